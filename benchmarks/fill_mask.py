"""Row: seconds to fill the masks of 32 texts; ours is the export, the peer the Hugging Face pipeline."""

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
from tfmlm.quiet import quieten_libraries
from tfmlm.training.heads import compute_logits_at
from tfmlm.training.model import load_model_folder

NUM_TEXTS = 32
_WORDS_A_TEXT = 20
_TOP_K = 5
EXPORT_NAME = "fill-mask"


class Filling(NamedTuple):
    """Seconds to fill one text, and 32; median calls."""

    one: float
    many: float


def measure(folder: Path, size: Size) -> Row:
    """Ours takes texts; the floor is encoder and head at the mask alone, with the ids ready."""
    run_alone("benchmarks.fill_mask:write_export", folder, size)
    results = alternate_alone(
        {side: (f"benchmarks.fill_mask:time_{side}", folder, size) for side in ("ours", "pipeline", "floor")},
        size.num_repeats,
    )
    one = {side: median(each.one for each in results[side]) for side in results}
    many = {side: median(each.many for each in results[side]) for side in results}
    return Row(
        unit="seconds",
        ours=[each.many for each in results["ours"]],
        peer=[each.many for each in results["pipeline"]],
        higher_is_better=False,
        notes=[
            f"{NUM_TEXTS} texts; the peer is the Hugging Face pipeline",
            _describe_floor(f"{NUM_TEXTS} texts", many),
            f"one text {one['pipeline'] / one['ours']:.1f}x, {one['pipeline'] * 1000:.1f} ms the pipeline",
            _describe_floor("one text", one),
        ],
    )


def _describe_floor(name: str, seconds: dict[str, float]) -> str:
    ours, floor = seconds["ours"], seconds["floor"]
    return f"{name} {ours * 1000:.1f} ms, {ours / floor:.2f} times the floor of {floor * 1000:.1f} ms"


def read_masked_texts(folder: Path, size: Size) -> list[str]:
    """Texts of the material with their middle word masked."""
    material = open_material(folder, size)
    masked = []
    for text in material.texts[TEXT]:
        words = text.split()[:_WORDS_A_TEXT]
        if len(words) == _WORDS_A_TEXT:
            words[_WORDS_A_TEXT // 2] = str(material.tokenizer.mask_token)
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
    return _time(lambda texts: fill(texts=tf.constant(texts)), read_masked_texts(folder, size), size)


def time_pipeline(folder: Path, size: Size) -> Filling:
    """`pipeline("fill-mask", framework="tf")`."""
    quieten_libraries()
    fill = pipeline("fill-mask", model=str(folder / "model"), framework="tf", top_k=_TOP_K)
    return _time(fill, read_masked_texts(folder, size), size)


def time_floor(folder: Path, size: Size) -> Filling:
    """Encoder and head at the masks, from token ids that are padded already."""
    quieten_libraries()
    model, tokenizer = load_model_folder(folder / "model")

    @tf.function(reduce_retracing=True)
    def compute(input_ids: tf.Tensor, attention_mask: tf.Tensor, indices: tf.Tensor) -> tf.Tensor:
        return compute_logits_at(model, input_ids, attention_mask, indices)

    ready: dict[int, tuple[tf.Tensor, ...]] = {}

    def run(texts: list[str]) -> tf.Tensor:
        if len(texts) not in ready:
            ready[len(texts)] = _make_ids(tokenizer, texts)
        return compute(*ready[len(texts)])

    return _time(run, read_masked_texts(folder, size), size)


def _make_ids(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> tuple[tf.Tensor, ...]:
    encoded = tokenizer(texts, return_tensors="tf", padding=True)
    input_ids = tf.cast(encoded["input_ids"], tf.int32)
    is_mask = tf.reshape(input_ids == tokenizer.mask_token_id, [-1])
    return input_ids, tf.cast(encoded["attention_mask"], tf.int32), tf.where(is_mask)[:, 0]


def _time(fill: Callable[[list[str]], Any], texts: list[str], size: Size) -> Filling:
    def time_calls(batch: list[str]) -> float:
        seconds = []
        for _ in range(3 + size.timed_calls):
            start = time.perf_counter()
            fill(batch)
            seconds.append(time.perf_counter() - start)
        return median(seconds[3:])  # the first ones trace and warm up

    return Filling(time_calls(texts[:1]), time_calls(texts))
