"""Finds the added tokens in a text, which are ids at once and no text for the tokenizer."""

from __future__ import annotations

import re

import tensorflow as tf

from tfmlm.graph_tokenizer import UnsupportedTokenizerError

WHITE_SPACE = r"[\t-\r \x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000}]"
"""Unicode's White_Space as RE2 writes it; RE2's own `\\s` is ASCII."""

_NOTHING = r"[^\x{0}-\x{10FFFF}]"
"""A pattern that matches no character, for a tokenizer without added tokens."""

_BORDER = b"\xff"
"""A byte that UTF-8 never uses."""


class SpecialTokens:
    """The added tokens of a tokenizer.

    Args:
        added: the `added_tokens` of a `tokenizer.json`.

    Raises:
        UnsupportedTokenizerError: one is matched in a way that RE2 cannot.
    """

    def __init__(self, added: list[dict[str, object]]) -> None:
        for token in added:
            if token["single_word"]:
                raise UnsupportedTokenizerError(f"added token {token['content']!r}, matched only as a word")
        # The longest first: RE2 takes the first alternative, the tokenizers library the longest.
        ordered = sorted(added, key=lambda token: -len(str(token["content"])))
        # The empty one is there for a tokenizer that has none.
        self._contents = tf.constant(["", *(str(token["content"]) for token in ordered)])
        self._ids = tf.constant([-1, *(int(str(token["id"])) for token in ordered)], tf.int32)
        self._pattern = "|".join(_make_pattern(token) for token in ordered) or _NOTHING
        self._strip = f"^{WHITE_SPACE}+|{WHITE_SPACE}+$"

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
        segments = tf.strings.split(marked, _BORDER).with_row_splits_dtype(tf.int32)
        segments = tf.ragged.boolean_mask(segments, segments != "")
        is_token = tf.strings.regex_full_match(segments.flat_values, self._pattern)
        stripped = tf.strings.regex_replace(segments.flat_values, self._strip, "")
        matches = tf.cast(stripped[:, tf.newaxis] == self._contents, tf.int32)
        ids = tf.where(is_token, tf.gather(self._ids, tf.argmax(matches, axis=1)), -1)
        return segments, segments.with_flat_values(ids)


def _make_pattern(token: dict[str, object]) -> str:
    before = f"{WHITE_SPACE}*" if token["lstrip"] else ""
    after = f"{WHITE_SPACE}*" if token["rstrip"] else ""
    return f"{before}{re.escape(str(token['content']))}{after}"
