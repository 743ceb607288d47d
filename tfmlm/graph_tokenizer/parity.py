"""Compares the tokenization in the graph with the tokenizer itself, before an export relies on it."""

from __future__ import annotations

from collections.abc import Iterable

import tensorflow as tf
from transformers import PreTrainedTokenizerFast

from tfmlm.graph_tokenizer.tokenizer import GraphTokenizer

_TEXTS_A_BATCH = 256

_HARD_TEXTS = (
    "",
    " ",
    "  two  spaces\n\n\ttab\r\nline\x0bfeed  ",
    "I'd've said it's 'tis, don't we'll '' \"''s",
    "na\u00efve caf\u00e9 \u00c0\u00c9\u00ce \u1e9e\u00df \u0130\u0131 \u03a3\u03b1\u03c2 \u03a3\u0391\u03a3",
    "e\u0301\u0323 o\u0308\u0304 q\u0344 \u1100\u1161\u11a8 \u0915\u094d\u0937\u093f",
    "\u4e2d\u6587\u5b57\u7b26 \u65e5\u672c\u8a9e\u30c6\u30ad\u30b9\u30c8 \ud55c\uad6d \u3231 \ufb01 \ufdfa",
    "\U0001f600 \U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea \u00a9\ufe0f \u2122",
    "\x00a\x07b\u200bc\u00adx\ufeff\ufffd\ue000\U0010ffff",
    "a\u00a0b\u2003c\u3000d\x85e\u2028f",
    "----- ==== .... aaaaaaa ((()))",
    "\u0661\u0662\u0663 \u00bd \u216b \u00b2 1,000.50",
    "x" * 150 + " " + "\u00e9" * 101,
    "``quoted'' [UNK] [SEP]x[CLS] </s><s>y <pad>",
)
"""White space, contractions, case, marks, scripts, emoji, control characters, long words, special tokens."""


def find_mismatch(
    graph_tokenizer: GraphTokenizer, tokenizer: PreTrainedTokenizerFast, texts: Iterable[list[str]]
) -> str | None:
    """Compares on texts of a corpus and on hard ones, each also with masks in it.

    Args:
        graph_tokenizer: the ops.
        tokenizer: what they must equal.
        texts: in batches.

    Returns:
        The first text whose ids differ, or None.
    """
    tokenize = tf.function(
        graph_tokenizer.__call__, input_signature=[tf.TensorSpec([None], tf.string)], autograph=False
    )
    mask = str(tokenizer.mask_token)
    hard = [text for hard in _HARD_TEXTS for text in (hard, f"{hard} {mask} {hard}", f"{hard}{mask}{hard}")]
    for batch in _rebatch([hard], texts):
        ours = tokenize(tf.constant(batch)).to_list()
        expected = tokenizer(batch, add_special_tokens=False)["input_ids"]
        for text, ids, expected_ids in zip(batch, ours, expected, strict=True):
            if ids != expected_ids:
                return text
    return None


def _rebatch(*sources: Iterable[list[str]]) -> Iterable[list[str]]:
    for source in sources:
        for batch in source:
            for start in range(0, len(batch), _TEXTS_A_BATCH):
                yield batch[start : start + _TEXTS_A_BATCH]
