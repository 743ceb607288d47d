"""Row: seconds to fill the masks of 32 sentences; ours is the export, the peer the Hugging Face pipeline."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import tensorflow as tf
from transformers import PreTrainedTokenizerFast, pipeline

from benchmarks.material import TEXT, open_material
from benchmarks.measure import Row, Size, alternate_alone, run_alone
from tfmlm.config import ExportConfig
from tfmlm.export.saved_model import export_saved_model
from tfmlm.library_logging import quieten_libraries
from tfmlm.training.heads import compute_logits_at
from tfmlm.training.model import load_model_folder

NUM_TEXTS = 32
_SENTENCE_WORDS = range(6, 17)
_PASSAGE_WORDS = 20
_TOP_K = 5
EXPORT_NAME = "fill-mask"


class Filling(NamedTuple):
    """Seconds to fill one sentence, 32 of them, and 32 passages; median calls."""

    one: float
    sentences: float
    passages: float


def measure(folder: Path, size: Size) -> Row:
    """Ours takes texts; the floor is encoder and head at the mask alone, with the ids ready."""
    run_alone("benchmarks.fill_mask:write_export", folder, size)
    results = alternate_alone(
        {side: (f"benchmarks.fill_mask:time_{side}", folder, size) for side in ("ours", "pipeline", "floor")},
        size.num_repeats,
    )
    names = {
        "one": "one sentence",
        "sentences": f"{NUM_TEXTS} sentences",
        "passages": f"{NUM_TEXTS} passages",
    }
    return Row(
        unit="seconds",
        ours=[each.sentences for each in results["ours"]],
        peer=[each.sentences for each in results["pipeline"]],
        higher_is_better=False,
        notes=[
            "the peer is the Hugging Face pipeline; the floor is encoder and head at the masks, ids ready",
            *(_describe(name, field, results) for field, name in names.items()),
        ],
    )


def _describe(name: str, field: str, results: dict[str, list[Filling]]) -> str:
    milliseconds = {side: 1000 * median(getattr(each, field) for each in results[side]) for side in results}
    ours, peer, floor = (milliseconds[side] for side in ("ours", "pipeline", "floor"))
    return (
        f"{name}: {ours:.1f} ms, {peer / ours:.1f} times as fast as {peer:.1f} ms; "
        f"{ours / floor:.2f} times the floor of {floor:.1f} ms"
    )


def read_sentences(folder: Path, size: Size) -> list[str]:
    """First sentences of 6 to 16 words, their middle word masked."""
    return _mask_middle_words(
        folder, size, lambda text: text.split(".")[0].split(), lambda words: len(words) in _SENTENCE_WORDS
    )


def read_passages(folder: Path, size: Size) -> list[str]:
    """The first 20 words of texts, their middle word masked; code among them, so uneven in tokens."""
    return _mask_middle_words(
        folder,
        size,
        lambda text: text.split()[:_PASSAGE_WORDS],
        lambda words: len(words) == _PASSAGE_WORDS,
    )


def _mask_middle_words(
    folder: Path, size: Size, cut: Callable[[str], list[str]], is_taken: Callable[[list[str]], bool]
) -> list[str]:
    material = open_material(folder, size)
    masked = []
    for words in filter(is_taken, map(cut, material.texts[TEXT])):
        words[len(words) // 2] = str(material.tokenizer.mask_token)
        masked.append(" ".join(words))
    return masked[:NUM_TEXTS]


def write_export(folder: Path, size: Size) -> None:
    """Exports the material's model, unless another row did."""
    del size
    if (folder / EXPORT_NAME).exists():
        return
    quieten_libraries()
    config = ExportConfig(dir=str(folder), top_k=_TOP_K, text_signature="require")
    export_saved_model(folder / "model", config, EXPORT_NAME)


def time_ours(folder: Path, size: Size) -> Filling:
    """The export's signature `text`, called as a server calls it."""
    quieten_libraries()
    loaded = tf.saved_model.load(str(folder / EXPORT_NAME / "1"))
    fill = loaded.signatures["text"]
    return _time(lambda texts: fill(texts=tf.constant(texts)), folder, size)


def time_pipeline(folder: Path, size: Size) -> Filling:
    """`pipeline("fill-mask", framework="tf")`."""
    quieten_libraries()
    fill = pipeline("fill-mask", model=str(folder / "model"), framework="tf", top_k=_TOP_K)
    return _time(fill, folder, size)


def time_floor(folder: Path, size: Size) -> Filling:
    """Encoder and head at the masks, from token ids that are padded already."""
    quieten_libraries()
    model, tokenizer = load_model_folder(folder / "model")

    @tf.function(reduce_retracing=True)
    def compute(input_ids: tf.Tensor, attention_mask: tf.Tensor, indices: tf.Tensor) -> tf.Tensor:
        return compute_logits_at(model, input_ids, attention_mask, indices)

    ready: dict[str, tuple[tf.Tensor, ...]] = {}

    def run(texts: list[str]) -> tf.Tensor:
        key = "\n".join(texts)
        if key not in ready:
            ready[key] = _make_ids(tokenizer, texts)
        return compute(*ready[key])

    return _time(run, folder, size)


def _make_ids(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> tuple[tf.Tensor, ...]:
    encoded = tokenizer(texts, return_tensors="tf", padding=True)
    input_ids = tf.cast(encoded["input_ids"], tf.int32)
    is_mask = tf.reshape(input_ids == tokenizer.mask_token_id, [-1])
    return input_ids, tf.cast(encoded["attention_mask"], tf.int32), tf.where(is_mask)[:, 0]


def _time(fill: Callable[[list[str]], Any], folder: Path, size: Size) -> Filling:
    def time_calls(batch: list[str]) -> float:
        seconds = []
        for _ in range(3 + size.timed_calls):
            start = time.perf_counter()
            fill(batch)
            seconds.append(time.perf_counter() - start)
        return median(seconds[3:])  # the first ones trace and warm up

    sentences = read_sentences(folder, size)
    return Filling(time_calls(sentences[:1]), time_calls(sentences), time_calls(read_passages(folder, size)))
