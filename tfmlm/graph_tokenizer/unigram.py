"""SentencePiece's unigram model over words that begin with U+2581."""

from __future__ import annotations

import json
from typing import Any

import tensorflow as tf
from tokenizers import Tokenizer

from tfmlm.graph_tokenizer.code_points import decode_utf8
from tfmlm.graph_tokenizer.unsupported import UnsupportedTokenizerError
from tfmlm.graph_tokenizer.viterbi import Viterbi


class Unigram(tf.Module):
    """Splits before each U+2581 and finds the most probable pieces of each word.

    Args:
        tokenizer: has a Unigram model and the pre-tokenizer Metaspace.

    Raises:
        UnsupportedTokenizerError: it has not.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        described = json.loads(tokenizer.to_str())
        space = _find_metaspace(described["pre_tokenizer"])
        if described["model"].get("byte_fallback"):
            raise UnsupportedTokenizerError("a unigram model with byte fallback")
        self._space = space["replacement"]
        self._scheme = space["prepend_scheme"]
        pieces, scores = zip(*described["model"]["vocab"], strict=True)
        self._viterbi = Viterbi(list(pieces), list(scores), described["model"]["unk_id"])

    def __call__(self, texts: tf.Tensor, is_first: tf.Tensor) -> tf.RaggedTensor:
        """Token ids int32 [N, None] of normalized texts.

        Args:
            texts: string [N].
            is_first: bool [N], whether nothing stands before it in its text.
        """
        spaced = tf.strings.regex_replace(texts, " ", self._space)
        prepends = {"always": tf.ones_like(is_first), "first": is_first, "never": tf.zeros_like(is_first)}
        lacks_space = ~tf.strings.regex_full_match(spaced, f"(?s){self._space}.*") & (texts != "")
        spaced = tf.where(lacks_space & prepends[self._scheme], self._space + spaced, spaced)
        words = tf.strings.split(spaced, self._space).with_row_splits_dtype(tf.int32)
        # Each word but a text's first had a space before it; a text that begins with one has an empty first.
        starts = tf.gather(words.row_splits, words.value_rowids())
        has_space = tf.range(tf.size(words.flat_values)) > starts
        flat = tf.where(has_space, self._space + words.flat_values, words.flat_values)
        pieces = self._viterbi(decode_utf8(flat))
        ids: tf.RaggedTensor = words.with_flat_values(pieces).merge_dims(1, 2)
        return ids


def _find_metaspace(described: dict[str, Any] | None) -> dict[str, Any]:
    """The one step that matters: white space was split off before only if nothing of it is left."""
    steps = described.get("pretokenizers", [described]) if described else []
    if [step["type"] for step in steps] == ["Metaspace"] and steps[0].get("split", True):
        return dict(steps[0])
    raise UnsupportedTokenizerError("a unigram tokenizer whose pre-tokenizer is not Metaspace alone")
