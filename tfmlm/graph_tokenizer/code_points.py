"""Functions of Unicode code points as tables in the graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

NUM_CODE_POINTS = 0x110000
_SURROGATES = range(0xD800, 0xE000)
_PAGE = 256


class CodePointTable:
    """A function from code points to small integers.

    Stored in pages, of which most are equal: some 100 kB instead of the 4 MB of a plain table.

    Args:
        values: int32 [0x110000].
    """

    def __init__(self, values: NDArray[np.int32]) -> None:
        pages, page_numbers = np.unique(values.reshape(-1, _PAGE), axis=0, return_inverse=True)
        self._values = pages.reshape(-1).astype(np.int32)
        self._page_starts = (page_numbers.reshape(-1) * _PAGE).astype(np.int32)

    def __call__(self, code_points: tf.Tensor) -> tf.Tensor:
        """int32 values of int32 code points, of any shape."""
        starts = tf.gather(tf.constant(self._page_starts), code_points // _PAGE)
        return tf.gather(tf.constant(self._values), starts + code_points % _PAGE)


class Replacements:
    """Strings that characters may become, by number; number 0 leaves a character as it is.

    Args:
        texts: the strings; the first has number 1.
    """

    def __init__(self, texts: list[str]) -> None:
        lengths = [1, *(len(text) for text in texts)]
        self._lengths = np.array(lengths, np.int32)
        self._starts = np.cumsum([0, *lengths[:-1]], dtype=np.int32)
        self._code_points = np.array([0, *(ord(letter) for text in texts for letter in text)], np.int32)

    def apply(self, code_points: tf.RaggedTensor, numbers: tf.Tensor) -> tf.RaggedTensor:
        """Replaces the characters int32 [N, None] by the strings whose numbers are int32 [total]."""
        characters = code_points.flat_values
        lengths = tf.gather(tf.constant(self._lengths), numbers)
        ends = tf.cumsum(lengths)
        sources = tf.repeat(tf.range(tf.size(characters)), lengths)
        offsets = tf.range(tf.size(sources)) - tf.gather(ends - lengths, sources)
        source_numbers = tf.gather(numbers, sources)
        replaced = tf.gather(
            tf.constant(self._code_points), tf.gather(tf.constant(self._starts), source_numbers) + offsets
        )
        flat = tf.where(source_numbers == 0, tf.gather(characters, sources), replaced)
        row_splits = tf.gather(tf.concat([[0], ends], axis=0), code_points.row_splits)
        return tf.RaggedTensor.from_row_splits(flat, row_splits, validate=False)


class CharacterMap:
    """A function from characters to strings, applied to each character of a text alone.

    Args:
        strings: what a code point becomes; one that is missing stays.
    """

    def __init__(self, strings: dict[int, str]) -> None:
        distinct = list(dict.fromkeys(strings.values()))
        numbers = np.zeros(NUM_CODE_POINTS, np.int32)
        number_of = {text: number for number, text in enumerate(distinct, start=1)}
        for code_point, text in strings.items():
            numbers[code_point] = number_of[text]
        self._numbers = CodePointTable(numbers)
        self._replacements = Replacements(distinct)

    def __call__(self, code_points: tf.RaggedTensor) -> tf.RaggedTensor:
        """Replaces the characters of int32 [N, None]."""
        return self._replacements.apply(code_points, self._numbers(code_points.flat_values))


def decode_utf8(texts: tf.Tensor) -> tf.RaggedTensor:
    """Code points int32 [N, None] of strings [N]; what is not UTF-8 becomes U+FFFD."""
    decoded: tf.RaggedTensor = tf.strings.unicode_decode(texts, "UTF-8").with_row_splits_dtype(tf.int32)
    return decoded


def encode_utf8(code_points: tf.RaggedTensor) -> tf.Tensor:
    """Strings [N] of code points int32 [N, None]."""
    return tf.strings.unicode_encode(code_points, "UTF-8")


def map_characters(function: Callable[[str], str]) -> dict[int, str]:
    """The strings that a function makes of single characters, where it changes them.

    Args:
        function: takes characters one by one, so that `f(a + b) == f(a) + f(b)`.
    """
    changed = {}
    for page in list_pages():
        mapped = _map_page(page, function)
        changed.update({ord(old): new for old, new in zip(page, mapped, strict=True) if old != new})
    return changed


def list_pages() -> Iterator[list[str]]:
    """All characters, 256 at a time."""
    for start in range(0, NUM_CODE_POINTS, _PAGE):
        if start not in _SURROGATES:
            yield [chr(code_point) for code_point in range(start, start + _PAGE)]


def _map_page(page: list[str], function: Callable[[str], str]) -> list[str]:
    """Maps characters in one call, a letter between them; one by one if that letter is in a result."""
    together = function("".join(f"q{character}" for character in page) + "q").split("q")
    if len(together) == len(page) + 2:
        return together[1:-1]
    return [function(character) for character in page]


def match_characters(matches: Callable[[str], list[tuple[int, int]]]) -> NDArray[np.bool_]:
    """Which code points a function finds, bool [0x110000].

    Args:
        matches: gives the (start, end) of the characters that it finds in a text.
    """
    found = np.zeros(NUM_CODE_POINTS, np.bool_)
    for page in list_pages():
        for start, end in matches("".join(page)):
            found[ord(page[0]) + start : ord(page[0]) + end] = True
    return found
