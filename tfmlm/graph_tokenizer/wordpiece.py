"""BERT's words and WordPiece."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import tensorflow as tf
import tensorflow_text as tf_text
from tokenizers import Tokenizer, pre_tokenizers

from tfmlm.graph_tokenizer import UnsupportedTokenizerError
from tfmlm.graph_tokenizer.code_points import (
    CharacterMap,
    decode_utf8,
    encode_utf8,
    list_pages,
)

_LONGEST_CHARACTER = 4
"""Bytes of a character in UTF-8, at most."""

_NO_WORD = "\uffff"
"""A code point that Unicode keeps free, and so no piece: WordPiece makes it the unknown token."""


class WordPiece(tf.Module):
    """Splits at white space and around punctuation, then takes the longest pieces from the left.

    Args:
        tokenizer: has a WordPiece model and BERT's pre-tokenizer.

    Raises:
        UnsupportedTokenizerError: it has not.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        if not isinstance(tokenizer.pre_tokenizer, pre_tokenizers.BertPreTokenizer):
            raise UnsupportedTokenizerError("a WordPiece tokenizer without BERT's pre-tokenizer")
        model: dict[str, Any] = json.loads(tokenizer.to_str())["model"]
        self._separate = _separate_words()
        self._max_characters = model["max_input_chars_per_word"]
        self._pieces = tf_text.FastWordpieceTokenizer(
            vocab=sorted(model["vocab"], key=model["vocab"].__getitem__),
            suffix_indicator=model["continuing_subword_prefix"],
            max_bytes_per_word=_LONGEST_CHARACTER * self._max_characters,
            unknown_token=model["unk_token"],
            token_out_type=tf.int32,
            no_pretokenization=True,
        )

    def __call__(self, texts: tf.Tensor, is_first: tf.Tensor) -> tf.RaggedTensor:  # noqa: ARG002 as Unigram
        """Token ids int32 [N, None] of normalized texts, string [N], wherever they stand."""
        separated = encode_utf8(self._separate(decode_utf8(texts)))
        words = tf.strings.split(separated, " ").with_row_splits_dtype(tf.int32)
        words = tf.ragged.boolean_mask(words, words != "")
        is_long = tf.strings.length(words.flat_values, unit="UTF8_CHAR") > self._max_characters
        pieces = self._pieces.tokenize(tf.where(is_long, _NO_WORD, words.flat_values))
        pieces = pieces.with_row_splits_dtype(tf.int32)
        ids: tf.RaggedTensor = words.with_flat_values(pieces).merge_dims(1, 2)
        return ids


@cache
def _separate_words() -> CharacterMap:
    """A space for each white space, and spaces around each punctuation mark.

    All tokenizers share it: making it costs more than the rest of one.
    """
    pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    separated = {}
    for page in list_pages():
        # Between two letters, white space is in no piece, and punctuation is a piece alone.
        pieces = pre_tokenizer.pre_tokenize_str("".join(f"q{character}" for character in page) + "q")
        inside = {place for _, (start, end) in pieces for place in range(start, end)}
        alone = {start for _, (start, end) in pieces if end - start == 1}
        for place, character in enumerate(page):
            if 2 * place + 1 not in inside:
                separated[ord(character)] = " "
            elif 2 * place + 1 in alone:
                separated[ord(character)] = f" {character} "
    return CharacterMap(separated)
