"""SentencePiece's precompiled character map, as the tokenizers library applies it.

That library looks at a grapheme (a letter with its marks) first: if it is shorter than six bytes and begins
with a key of the map, it becomes that key's value whole, marks and all; the shortest key counts. Else each
character is looked up alone. SentencePiece itself replaces the longest key at each place, but models meet
the library's way.
"""

from __future__ import annotations

import base64
from functools import cache

import numpy as np
import regex
import tensorflow as tf
from numpy.typing import NDArray

from tfmlm.graph_tokenizer.code_points import (
    NUM_CODE_POINTS,
    CodePointTable,
    Replacements,
    decode_utf8,
    encode_utf8,
)

_BYTES_OF_A_LONG_GRAPHEME = 6
_BITS_OF_A_CODE_POINT = 21
_BREAKS = ("Control", "CR", "LF", "Extend", "ZWJ", "SpacingMark", "Prepend", "L", "V", "T", "LV", "LVT")
"""Values of Grapheme_Cluster_Break that graphemes shorter than six bytes are made of; emoji with joiners and
flags are longer, and so are conjuncts."""


class Precompiled:
    """The normalizer `Precompiled`.

    Args:
        charsmap: base64 of the map: the size of a double-array trie in bytes, the trie, and the values.
    """

    def __init__(self, charsmap: str) -> None:
        values = read_charsmap(base64.b64decode(charsmap))
        numbers = np.zeros(NUM_CODE_POINTS, np.int32)
        pairs = {}
        for number, key in enumerate(values, start=1):
            if len(key) == 1:
                numbers[ord(key)] = number
            elif len(key) <= 3:  # a longer one has six bytes or begins with a shorter key
                pairs[_pack(key)] = number
        self._numbers = CodePointTable(numbers)
        # The last number deletes; a key that no grapheme can be keeps the search below from an empty array.
        self._replacements = Replacements([*values.values(), ""])
        self._deleted = len(values) + 1
        ordered = sorted({2**63 - 1: 0, **pairs}.items())
        self._long_keys = np.array([key for key, _ in ordered], np.int64)
        self._long_numbers = np.array([number for _, number in ordered], np.int32)
        self._breaks = _read_breaks()

    def __call__(self, texts: tf.Tensor) -> tf.Tensor:
        """Normalizes strings [N]."""
        code_points = decode_utf8(texts)
        return encode_utf8(self._replacements.apply(code_points, self._choose(code_points)))

    def _choose(self, code_points: tf.RaggedTensor) -> tf.Tensor:
        """Number of the replacement of each character, int32 [total]."""
        characters = code_points.flat_values
        numbers = self._numbers(characters)
        is_joined = self._find_joints(code_points)
        graphemes = tf.cumsum(tf.cast(~is_joined, tf.int32)) - 1
        num_bytes = 1 + sum(tf.cast(characters >= first, tf.int32) for first in (0x80, 0x800, 0x10000))
        grapheme_bytes = tf.math.segment_sum(num_bytes, graphemes)
        starts = tf.cast(tf.where(~is_joined)[:, 0], tf.int32)
        lengths = tf.math.segment_sum(tf.ones_like(graphemes), graphemes)

        padded = tf.cast(tf.concat([characters, [0, 0]], axis=0), tf.int64)
        key = tf.gather(padded, starts)
        number = tf.gather(numbers, starts)
        for index in (1, 2):
            key += tf.bitwise.left_shift(
                tf.gather(padded, starts + index), tf.cast(index * _BITS_OF_A_CODE_POINT, tf.int64)
            )
            number = tf.where((number == 0) & (lengths > index), self._look_up(key), number)
        is_whole = (number > 0) & (lengths > 1) & (grapheme_bytes < _BYTES_OF_A_LONG_GRAPHEME)
        of_whole = tf.where(is_joined, self._deleted, tf.gather(number, graphemes))
        return tf.where(tf.gather(is_whole, graphemes), of_whole, numbers)

    def _look_up(self, keys: tf.Tensor) -> tf.Tensor:
        """Numbers of packed keys int64 [G], 0 where there is none."""
        long_keys = tf.constant(self._long_keys)
        places = tf.searchsorted(long_keys, keys)
        return tf.where(
            tf.gather(long_keys, places) == keys, tf.gather(tf.constant(self._long_numbers), places), 0
        )

    def _find_joints(self, code_points: tf.RaggedTensor) -> tf.Tensor:
        """Which characters go on with the grapheme before them, bool [total]; UAX 29, GB3 to GB9b."""
        after = self._breaks(code_points.flat_values)
        before = tf.concat([[0], after[:-1]], axis=0)
        rows = code_points.value_rowids()
        is_first = tf.concat([[-1], rows[:-1]], axis=0)[: tf.size(rows)] != rows
        before = before[: tf.size(after)]
        is_control = _is_one(before, "Control", "CR", "LF") | _is_one(after, "Control", "CR", "LF")
        is_hangul = (
            (_is_one(before, "L") & _is_one(after, "L", "V", "LV", "LVT"))
            | (_is_one(before, "LV", "V") & _is_one(after, "V", "T"))
            | (_is_one(before, "LVT", "T") & _is_one(after, "T"))
        )
        is_marked = _is_one(after, "Extend", "ZWJ", "SpacingMark") | _is_one(before, "Prepend")
        is_line_end = _is_one(before, "CR") & _is_one(after, "LF")
        return ~is_first & (is_line_end | (~is_control & (is_hangul | is_marked)))


def _is_one(breaks: tf.Tensor, *names: str) -> tf.Tensor:
    return tf.reduce_any(tf.stack([breaks == 1 + _BREAKS.index(name) for name in names]), axis=0)


@cache
def _read_breaks() -> CodePointTable:
    """Grapheme_Cluster_Break of each code point: 1 + its place in `_BREAKS`, or 0."""
    breaks = np.zeros(NUM_CODE_POINTS, np.int32)
    text = "".join(chr(code) if not 0xD800 <= code < 0xE000 else " " for code in range(NUM_CODE_POINTS))
    for number, name in enumerate(_BREAKS, start=1):
        for match in regex.finditer(rf"\p{{GCB={name}}}+", text):
            breaks[match.start() : match.end()] = number
    return CodePointTable(breaks)


def _pack(key: str) -> int:
    return sum(ord(letter) << (_BITS_OF_A_CODE_POINT * index) for index, letter in enumerate(key))


def read_charsmap(blob: bytes) -> dict[str, str]:
    """Keys and values of a precompiled map.

    Args:
        blob: the field `precompiled_charsmap` of a SentencePiece model. Its trie is Darts-clone's.
    """
    trie_bytes = int.from_bytes(blob[:4], "little")
    units = np.frombuffer(blob, np.uint32, trie_bytes // 4, offset=4).astype(np.int64)
    values = blob[4 + trie_bytes :]
    found: dict[str, str] = {}
    nodes, prefixes = _child_base(units, np.zeros(1, np.int64)), np.zeros((1, 0), np.uint8)
    labels = np.arange(1, 256)
    while nodes.size:
        children = nodes[:, np.newaxis] ^ labels
        is_inside = children < units.size
        taken = units[np.where(is_inside, children, 0)]
        parent, label = np.nonzero(is_inside & ((taken & 0x800000FF) == labels))
        children = children[parent, label]
        prefixes = np.concatenate([prefixes[parent], labels[label, np.newaxis].astype(np.uint8)], axis=1)
        nodes = _child_base(units, children)
        for index in np.nonzero(units[children] >> 8 & 1)[0]:
            start = int(units[nodes[index]] & 0x7FFFFFFF)
            found[prefixes[index].tobytes().decode()] = values[start : values.index(b"\0", start)].decode()
    return found


def _child_base(units: NDArray[np.int64], nodes: NDArray[np.int64]) -> NDArray[np.int64]:
    """The offset that a child's label is combined with to find it."""
    taken = units[nodes]
    base: NDArray[np.int64] = nodes ^ ((taken >> 10) << ((taken & (1 << 9)) >> 6))
    return base
