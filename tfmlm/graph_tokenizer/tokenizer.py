"""A whole Hugging Face fast tokenizer as ops: special tokens, normalizer, words, pieces, template."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from tfmlm.graph_tokenizer import UnsupportedTokenizerError
from tfmlm.graph_tokenizer.byte_bpe import ByteBpe
from tfmlm.graph_tokenizer.normalization import make_normalizer
from tfmlm.graph_tokenizer.special_tokens import SpecialTokens
from tfmlm.graph_tokenizer.unigram import Unigram
from tfmlm.graph_tokenizer.wordpiece import WordPiece

_MODELS: dict[str, Callable[[Tokenizer], ByteBpe | Unigram | WordPiece]] = {
    "BPE": ByteBpe,
    "Unigram": Unigram,
    "WordPiece": WordPiece,
}


class GraphTokenizer(tf.Module):
    """Tokenizes as `tokenizer(text, add_special_tokens=False)` does.

    Attributes:
        prefix: ids that the tokenizer puts before a text, int32 [P].
        suffix: ids that it puts behind, int32 [S].

    Args:
        tokenizer: a fast tokenizer.

    Raises:
        UnsupportedTokenizerError: it has a part that is not known here.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        super().__init__()
        backend: Tokenizer = tokenizer.backend_tokenizer
        described: dict[str, Any] = json.loads(backend.to_str())
        kind = described["model"]["type"]
        if kind not in _MODELS:
            raise UnsupportedTokenizerError(f"a tokenizer with the model {kind}")
        if any("\0" in token for token in backend.get_vocab()):
            raise UnsupportedTokenizerError("a token with the character NUL, which ends a token in the ops")
        self._normalize = make_normalizer(backend)
        raw, normalized = _split_added(described["added_tokens"], backend)
        self._raw_tokens = SpecialTokens(raw)
        self._normalized_tokens = SpecialTokens(normalized) if normalized else None
        self._model = _MODELS[kind](backend)
        self.prefix, self.suffix = read_template(tokenizer)

    def __call__(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Token ids int32 [N, None] of texts, string [N], without prefix and suffix."""
        segments, added_ids = self._raw_tokens.split(texts)
        is_text = added_ids.flat_values < 0
        normalized = self._normalize(tf.where(is_text, segments.flat_values, ""))
        if self._normalized_tokens:
            parts, part_ids = self._normalized_tokens.split(normalized)
            parts = _add_rows(parts, normalized, ~is_text)
            part_ids = _add_rows(part_ids, added_ids.flat_values, ~is_text)
            segments = segments.with_flat_values(parts).merge_dims(1, 2)
            normalized, added_ids = segments.flat_values, segments.with_flat_values(part_ids.flat_values)
            is_text = added_ids.flat_values < 0
        ids = self._model(tf.where(is_text, normalized, ""), _find_firsts(segments))
        ids = _add_rows(ids, added_ids.flat_values, ~is_text)
        whole = segments.with_flat_values(ids).merge_dims(1, 2)
        rows: tf.RaggedTensor = whole.with_row_splits_dtype(tf.int32)
        return rows


def _split_added(
    added: list[dict[str, Any]], tokenizer: Tokenizer
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The tokens that are looked for in the text as it is, and those looked for in the normalized text."""
    raw = [token for token in added if not token["normalized"]]
    normalizer = tokenizer.normalizer
    normalized = [
        token | {"content": normalizer.normalize_str(token["content"]) if normalizer else token["content"]}
        for token in added
        if token["normalized"]
    ]
    return raw, normalized


def _add_rows(rows: tf.RaggedTensor, values: tf.Tensor, is_added: tf.Tensor) -> tf.RaggedTensor:
    """Puts one value into each of the chosen rows, which are empty."""
    added = tf.RaggedTensor.from_row_lengths(
        tf.boolean_mask(values, is_added), tf.cast(is_added, tf.int32), validate=False
    )
    return tf.concat([rows, added], axis=1)


def _find_firsts(segments: tf.RaggedTensor) -> tf.Tensor:
    """True for a segment that is the first of its text, bool [total]."""
    starts = tf.gather(segments.row_splits, segments.value_rowids())
    return tf.range(tf.size(segments.flat_values)) == starts


def read_template(tokenizer: PreTrainedTokenizerFast) -> tuple[list[int], list[int]]:
    """Ids that a tokenizer puts before and behind the tokens of a text."""
    word = str(tokenizer.mask_token)
    ids = tokenizer(word)["input_ids"]
    place = ids.index(tokenizer.mask_token_id)
    return ids[:place], ids[place + 1 :]
