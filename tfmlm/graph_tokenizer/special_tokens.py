"""Finds the added tokens in a text, which are ids at once and no text for the tokenizer."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import numpy as np
import tensorflow as tf
from tokenizers import AddedToken, Tokenizer, models

from tfmlm.graph_tokenizer.code_points import NUM_CODE_POINTS, CodePointTable, decode_utf8, list_pages

WHITE_SPACE = r"[\t-\r \x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000}]"
"""Unicode's White_Space as RE2 writes it; RE2's own `\\s` is ASCII."""

_NOTHING = r"[^\x{0}-\x{10FFFF}]"
"""A pattern that matches no character, for a tokenizer without added tokens."""

_BORDER = b"\xff"
"""A byte that UTF-8 never uses."""

_PRIVATE = "\ue000"
"""A character that is no letter to anybody."""


class SpecialTokens(tf.Module):
    """The added tokens of a tokenizer, found as `find_matches` of the tokenizers library finds them.

    At each place the longest counts. A token that is matched only as a word, and is not one there, is text,
    and so is what lies within it. Then a token takes the white space beside it, if it is one that does.

    Args:
        added: the `added_tokens` of a `tokenizer.json`.
    """

    def __init__(self, added: list[dict[str, Any]]) -> None:
        super().__init__()
        # The longest first: RE2 takes the first alternative.
        ordered = sorted(added, key=lambda token: -len(token["content"]))
        self._pattern = "|".join(re.escape(token["content"]) for token in ordered) or _NOTHING
        # Of each token its id and how it is matched; behind them, of text.
        self._ids = np.array([*(token["id"] for token in ordered), -1], np.int32)
        self._is_word, self._takes_before, self._takes_after = (
            np.array([*(bool(token[flag]) for token in ordered), False])
            for flag in ("single_word", "lstrip", "rstrip")
        )
        self._text = len(ordered)
        # The empty one is there for a tokenizer that has none.
        contents = ["", *(token["content"] for token in ordered)]
        initializer = tf.lookup.KeyValueTensorInitializer(
            tf.constant(contents), tf.constant([self._text, *range(self._text)], tf.int32)
        )
        self._numbers = tf.lookup.StaticHashTable(initializer, default_value=self._text)

    def split(self, texts: tf.Tensor) -> tuple[tf.RaggedTensor, tf.RaggedTensor]:
        """Cuts texts at special tokens.

        Args:
            texts: string [N].

        Returns:
            The segments, string [N, None], and for each the id of a special token or -1, int32 [N, None].
        """
        # The op that splits by a pattern ends a text at its first NUL.
        marked = tf.strings.regex_replace(
            tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8"),
            f"({self._pattern})",
            _BORDER + rb"\1" + _BORDER,
        )
        cut = tf.strings.split(marked, _BORDER).with_row_splits_dtype(tf.int32)
        cut = tf.ragged.boolean_mask(cut, cut != "")
        segments, rows = cut.flat_values, cut.value_rowids()
        numbers = self._numbers.lookup(segments)
        if self._is_word.any():
            segments, rows, numbers = self._join_text(segments, rows, numbers)
        if self._takes_before.any() or self._takes_after.any():
            segments, rows, numbers = self._strip(segments, rows, numbers)
        split = tf.RaggedTensor.from_value_rowids(
            segments, rows, cut.nrows(out_type=tf.int32), validate=False
        )
        return split, split.with_flat_values(tf.gather(self._ids, numbers))

    def _join_text(
        self, segments: tf.Tensor, rows: tf.Tensor, numbers: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Makes text of tokens that must be words and stand beside a letter, and joins it with text there."""
        characters = decode_utf8(segments)
        is_letter = _find_letters()(characters.flat_values) > 0
        begins = tf.gather(is_letter, characters.row_starts())
        ends = tf.gather(is_letter, characters.row_limits() - 1)
        is_inside = _look_back(ends, rows) | _look_ahead(begins, rows)
        numbers = tf.where(tf.gather(self._is_word, numbers) & is_inside, self._text, numbers)
        is_text = numbers == self._text
        goes_on = is_text & _look_back(is_text, rows)
        joined = tf.strings.unsorted_segment_join(
            segments,
            tf.cumsum(tf.cast(~goes_on, tf.int32)) - 1,
            tf.reduce_sum(tf.cast(~goes_on, tf.int32)),
        )
        return joined, tf.boolean_mask(rows, ~goes_on), tf.boolean_mask(numbers, ~goes_on)

    def _strip(
        self, segments: tf.Tensor, rows: tf.Tensor, numbers: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Takes from text the white space that belongs to the tokens beside it, and drops what is empty."""
        is_text = numbers == self._text
        strips_end = is_text & _look_ahead(tf.gather(self._takes_before, numbers), rows)
        strips_begin = is_text & _look_back(tf.gather(self._takes_after, numbers), rows)
        segments = tf.where(strips_end, tf.strings.regex_replace(segments, f"{WHITE_SPACE}+$", ""), segments)
        segments = tf.where(
            strips_begin, tf.strings.regex_replace(segments, f"^{WHITE_SPACE}+", ""), segments
        )
        is_left = segments != ""
        return tuple(tf.boolean_mask(values, is_left) for values in (segments, rows, numbers))


def _look_back(values: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """Of the segment before, bool [T]; false at the beginning of a row."""
    is_same = tf.concat([[-1], rows], axis=0)[:-1] == rows
    return is_same & tf.concat([[False], values], axis=0)[:-1]


def _look_ahead(values: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """Of the segment behind, bool [T]; false at the end of a row."""
    is_same = tf.concat([rows, [-1]], axis=0)[1:] == rows
    return is_same & tf.concat([values, [False]], axis=0)[1:]


@cache
def _find_letters() -> CodePointTable:
    r"""Which characters keep a token from being a word, as the tokenizers library has it: its `\w`."""
    tokenizer = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))  # noqa: S106
    tokenizer.add_tokens([AddedToken(_PRIVATE, single_word=True)])
    is_letter = np.zeros(NUM_CODE_POINTS, np.int32)
    for page in list_pages():
        encoding = tokenizer.encode("".join(f"{character}{_PRIVATE} " for character in page))
        found = {
            start for token_id, (start, _) in zip(encoding.ids, encoding.offsets, strict=True) if token_id
        }
        for place, character in enumerate(page):
            is_letter[ord(character)] = 3 * place + 1 not in found
    return CodePointTable(is_letter)
