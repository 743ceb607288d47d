"""Row: texts a second whose pseudo-log-likelihood is computed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import median

import tensorflow as tf
from transformers import PreTrainedTokenizerFast

from benchmarks.material import TEXT, Material, open_material
from benchmarks.measure import Row, Size, alternate, show
from benchmarks.tokenize import time_call
from tfmlm.inference.score import load_scorer
from tfmlm.library_logging import quieten_libraries
from tfmlm.training.model import load_model_folder

_LENGTHS = range(15, 36)
"""Tokens of the texts, special ones included: sentences."""

_LARGEST_DIFFERENCE = 1e-3
"""Nats between the two sides' scores of a text, for the measurement to count."""


def measure(folder: Path, size: Size) -> Row:
    """Ours: masked copies in batches, logits at the masks. The peer: a loop over texts and tokens."""
    quieten_libraries()
    material = open_material(folder, size)
    texts = choose_texts(material, size.scored_texts)
    scorer = load_scorer(material.config.model.name_or_path)
    model, tokenizer = load_model_folder(material.config.model.name_or_path)
    graph = tf.function(lambda ids: model(ids, training=False).logits, reduce_retracing=True)

    def eager(ids: tf.Tensor) -> tf.Tensor:
        return model(ids, training=False).logits

    # All of them, so that no side traces or warms up while it is timed.
    ours = [score["score"] for score in scorer(texts)]
    peer = [score_plainly(graph, tokenizer, text) for text in texts]
    difference = max(abs(mine - theirs) for mine, theirs in zip(ours, peer, strict=True))
    assert difference < _LARGEST_DIFFERENCE, difference

    rates = alternate(
        {
            "ours": lambda: len(texts) / time_call(lambda: scorer(texts)),
            "peer": lambda: len(texts) / time_call(lambda: score_all_plainly(eager, tokenizer, texts)),
            "graph": lambda: len(texts) / time_call(lambda: score_all_plainly(graph, tokenizer, texts)),
        },
        size.num_repeats,
    )
    in_graph = median(rates["graph"])
    num_tokens = sum(len(tokenizer(text)["input_ids"]) for text in texts)
    return Row(
        unit="texts/s",
        ours=rates["ours"],
        peer=rates["peer"],
        higher_is_better=True,
        notes=[
            "the peer masks one token at a time",
            f"its model in a tf.function {show(in_graph)}, ours is {median(rates['ours']) / in_graph:.2f}x",
            f"{len(texts)} texts of {num_tokens / len(texts):.0f} tokens; scores differ by {difference:.0e}",
        ],
    )


def choose_texts(material: Material, num_texts: int) -> list[str]:
    """The first texts that are as long as sentences."""
    texts = material.texts[TEXT]
    fitting = (text for text in texts if len(material.tokenizer(text)["input_ids"]) in _LENGTHS)
    return [text for text, _ in zip(fitting, range(num_texts), strict=False)]


def score_all_plainly(
    compute_logits: Callable[[tf.Tensor], tf.Tensor], tokenizer: PreTrainedTokenizerFast, texts: list[str]
) -> list[float]:
    """`score_plainly` of each text."""
    return [score_plainly(compute_logits, tokenizer, text) for text in texts]


def score_plainly(
    compute_logits: Callable[[tf.Tensor], tf.Tensor], tokenizer: PreTrainedTokenizerFast, text: str
) -> float:
    """The sum of the tokens' log probabilities, each masked in turn, as it is written first."""
    ids = tokenizer(text)["input_ids"]
    total = 0.0
    for position in range(1, len(ids) - 1):
        masked = [*ids[:position], tokenizer.mask_token_id, *ids[position + 1 :]]
        logits = compute_logits(tf.constant([masked]))[0, position]
        total += float(tf.nn.log_softmax(logits)[ids[position]])
    return total
