"""Byte-level BPE, as GPT-2 and RoBERTa have it."""

from __future__ import annotations

import json
from functools import cache, partial
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer, pre_tokenizers

from tfmlm.graph_tokenizer import UnsupportedTokenizerError
from tfmlm.graph_tokenizer.code_points import (
    NUM_CODE_POINTS,
    CodePointTable,
    decode_utf8,
    encode_utf8,
    match_characters,
)

_OTHER, _LETTER, _NUMBER, _SPACE = range(4)
_CLASSES = {_LETTER: r"\p{L}", _NUMBER: r"\p{N}", _SPACE: r"\s"}
_CONTRACTIONS = ("s", "t", "re", "ve", "m", "ll", "d")
"""Endings that follow an apostrophe as a word of their own."""

_OPTIONS = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "ignore_merges")
"""Of a BPE model, which byte-level ones do not use."""

_NONE = -1
"""Class, or character, where the text has ended."""

_NO_RANK = np.iinfo(np.int32).max


class ByteBpe(tf.Module):
    r"""Splits into words of letters, of digits, of other signs and of white space, and merges their bytes.

    The words are those of the pattern of GPT-2 (https://github.com/openai/gpt-2, `encoder.py`):
    `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`. RE2 has no
    `(?!...)`, so the graph decides for each character, from its neighbours, whether a word begins there.

    Args:
        tokenizer: has a BPE model and the pre-tokenizer ByteLevel.

    Raises:
        UnsupportedTokenizerError: it has not.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        described = json.loads(tokenizer.to_str())
        self._adds_space = _check(described)
        # Letter, number, white space or other, by code point, as the pattern's \p{L}, \p{N} and \s match.
        self._classes = _read_classes()
        vocabulary: dict[str, int] = described["model"]["vocab"]
        letters = _list_letters()
        # The id of each of the 256 bytes, int32 [256]: what merging begins with.
        self._byte_ids = np.array([vocabulary[letter] for letter in letters], np.int32)
        self._num_ids = 1 + max(vocabulary.values())
        # Sorted for a binary search, which looks up all pairs of a batch at once; int64 and int32 [M + 1].
        self._pairs, self._ranks, self._merged_ids = _read_merges(described["model"]["merges"], vocabulary)
        # Most words of a text are one token; looked up here, they take no part in the loop that merges.
        words = _find_whole_words(tokenizer, letters)
        initializer = tf.lookup.KeyValueTensorInitializer(
            tf.constant(list(words), tf.string), tf.constant(list(words.values()), tf.int32)
        )
        self._whole_words = tf.lookup.StaticHashTable(initializer, default_value=-1)

    def __call__(self, texts: tf.Tensor, is_first: tf.Tensor) -> tf.RaggedTensor:  # noqa: ARG002 as Unigram
        """Token ids int32 [N, None] of normalized texts, string [N], wherever they stand."""
        if self._adds_space:
            texts = tf.where(tf.strings.regex_full_match(texts, "(?s)( .*)?"), texts, " " + texts)
        code_points = decode_utf8(texts)
        starts = tf.cast(tf.where(self._find_starts(code_points))[:, 0], tf.int32)
        words = tf.RaggedTensor.from_row_starts(code_points.flat_values, starts, validate=False)
        ids, word_of_id = self._merge(*self._begin(encode_utf8(words)))
        row_words = tf.searchsorted(starts, code_points.row_splits)
        row_splits = tf.searchsorted(word_of_id, row_words)
        return tf.RaggedTensor.from_row_splits(ids, row_splits, validate=False)

    def _find_starts(self, code_points: tf.RaggedTensor) -> tf.Tensor:
        """True where a word begins, bool [total]."""
        characters = code_points.flat_values
        classes = self._classes(characters)
        rows = code_points.value_rowids()
        before = _look_back(classes, rows)
        after = _look_ahead(classes, rows, 1)
        is_space, had_space = classes == _SPACE, before == _SPACE
        has_own_space = had_space & (_look_back(characters, rows) == ord(" "))
        # White space before a word is one piece, but its last character is apart: a space joins the word.
        starts = tf.where(
            is_space,
            ~had_space | ((after != _NONE) & (after != _SPACE)),
            (before != classes) & ~has_own_space,
        )
        first, second = (_look_ahead(characters, rows, distance) for distance in (1, 2))
        follows = {
            length: tf.reduce_any(
                tf.stack(
                    [
                        (first == ord(ending[0])) & ((second == ord(ending[-1])) | (length == 1))
                        for ending in _CONTRACTIONS
                        if len(ending) == length
                    ]
                ),
                axis=0,
            )
            for length in (1, 2)
        }
        is_apostrophe = starts & (characters == ord("'"))
        short, long = is_apostrophe & follows[1], is_apostrophe & follows[2]
        is_inside = _shift(short | long, 1) | _shift(long, 2)
        return (starts & ~is_inside) | _shift(short, 2) | _shift(long, 3)

    def _begin(self, words: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Ids int32 [T] of the bytes of words, string [W], and the word of each; a whole word is one id."""
        known = self._whole_words.lookup(words)
        num_bytes = tf.strings.length(words)
        lengths = tf.where(known >= 0, 1, num_bytes)
        word_of_id = tf.repeat(tf.range(tf.size(words)), lengths)
        places = tf.range(tf.size(word_of_id)) - tf.gather(tf.cumsum(lengths, exclusive=True), word_of_id)
        all_bytes = tf.cast(tf.io.decode_raw(tf.strings.reduce_join(words), tf.uint8), tf.int32)
        first_bytes = tf.cumsum(num_bytes, exclusive=True)
        byte_ids = tf.gather(
            tf.constant(self._byte_ids), tf.gather(all_bytes, tf.gather(first_bytes, word_of_id) + places)
        )
        known_ids = tf.gather(known, word_of_id)
        return tf.where(known_ids >= 0, known_ids, byte_ids), word_of_id

    def _merge(self, ids: tf.Tensor, word_of_id: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Merges in each word the pair of the lowest rank, everywhere in it, until no pair is left."""
        num_words = tf.reduce_max(tf.concat([word_of_id, [-1]], axis=0)) + 1
        unknown = tf.TensorSpec([None], tf.int32).shape

        def step(ids: tf.Tensor, word_of_id: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, ...]:
            pairs = tf.cast(ids[:-1], tf.int64) * self._num_ids + tf.cast(ids[1:], tf.int64)
            places = tf.searchsorted(tf.constant(self._pairs), pairs)
            is_pair = (word_of_id[:-1] == word_of_id[1:]) & (tf.gather(self._pairs, places) == pairs)
            ranks = tf.where(is_pair, tf.gather(self._ranks, places), _NO_RANK)
            lowest = tf.math.unsorted_segment_min(ranks, word_of_id[:-1], num_words)
            is_chosen = _drop_overlaps(is_pair & (ranks == tf.gather(lowest, word_of_id[:-1])))
            merged = tf.where(is_chosen, tf.gather(self._merged_ids, places), ids[:-1])
            is_left = tf.concat([[True], ~is_chosen], axis=0)[: tf.size(ids)]
            ids = tf.boolean_mask(tf.concat([merged, ids[-1:]], axis=0), is_left)
            return ids, tf.boolean_mask(word_of_id, is_left), tf.reduce_any(is_chosen)

        ids, word_of_id, _ = tf.while_loop(
            lambda _ids, _words, goes_on: goes_on,
            step,
            (ids, word_of_id, tf.constant(True)),
            shape_invariants=(unknown, unknown, tf.TensorShape([])),
        )
        return ids, word_of_id


def _drop_overlaps(is_chosen: tf.Tensor) -> tf.Tensor:
    """Of chosen neighbours (in `aaa`, both pairs `aa`) every other one, from the left; bool [T]."""
    places = tf.range(tf.size(is_chosen))
    begins = is_chosen & ~_shift(is_chosen, 1)
    run = tf.cumsum(tf.cast(begins, tf.int32))
    # Run 0 is what stands before the first.
    first_place = tf.concat([[0], tf.cast(tf.where(begins)[:, 0], tf.int32)], axis=0)
    return is_chosen & ((places - tf.gather(first_place, run)) % 2 == 0)


def _shift(flags: tf.Tensor, distance: int) -> tf.Tensor:
    """Flags of the character `distance` before, bool [T]."""
    return tf.concat([tf.zeros([distance], tf.bool), flags], axis=0)[: tf.size(flags)]


def _look_back(values: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """Values of the character before, -1 at the beginning of a row; int32 [T]."""
    is_same = tf.concat([[_NONE], rows], axis=0)[:-1] == rows
    return tf.where(is_same, tf.concat([[_NONE], values], axis=0)[:-1], _NONE)


def _look_ahead(values: tf.Tensor, rows: tf.Tensor, distance: int) -> tf.Tensor:
    """Values of the character `distance` on, -1 behind the end of a row; int32 [T]."""
    nothing = tf.fill([distance], _NONE)
    is_same = tf.concat([rows, nothing], axis=0)[distance:] == rows
    return tf.where(is_same, tf.concat([values, nothing], axis=0)[distance:], _NONE)


def _check(described: dict[str, Any]) -> bool:
    """True if a space is put before a text; raises where something else than ByteLevel and BPE is at work."""
    pre_tokenizer, model = described["pre_tokenizer"] or {}, described["model"]
    if pre_tokenizer.get("type") != "ByteLevel" or not pre_tokenizer.get("use_regex", True):
        raise UnsupportedTokenizerError("a BPE tokenizer whose pre-tokenizer is not ByteLevel alone")
    for option in _OPTIONS:
        if model.get(option):
            raise UnsupportedTokenizerError(f"a BPE model with {option}")
    return bool(pre_tokenizer["add_prefix_space"])


@cache
def _read_classes() -> CodePointTable:
    """Class of each code point, as the regular expressions of the tokenizers library see it.

    All tokenizers share it: making it costs more than the rest of one.
    """
    classes = np.full(NUM_CODE_POINTS, _OTHER, np.int32)
    for number, pattern in _CLASSES.items():
        splitter = pre_tokenizers.Split(Regex(f"{pattern}+"), behavior="removed", invert=True)
        classes[match_characters(partial(_list_spans, splitter))] = number
    return CodePointTable(classes)


def _list_spans(splitter: pre_tokenizers.PreTokenizer, text: str) -> list[tuple[int, int]]:
    return [span for _, span in splitter.pre_tokenize_str(text)]


def _list_letters() -> list[str]:
    """The letter that stands for each byte in a vocabulary; `bytes_to_unicode` in GPT-2's `encoder.py`.

    Itself if it is visible in Latin-1, else one from U+0100 on.
    """
    visible = {*range(ord("!"), ord("~") + 1), *range(ord("\xa1"), ord("\xac") + 1), *range(ord("\xae"), 256)}
    hidden = iter(range(256, 512))
    return [chr(byte) if byte in visible else chr(next(hidden)) for byte in range(256)]


def _read_merges(
    merges: list[Any], vocabulary: dict[str, int]
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]:
    """Sorted pairs (left id * number of ids + right id), their ranks, and the ids that they become."""
    num_ids = 1 + max(vocabulary.values())
    rows = []
    for rank, merge in enumerate(merges):
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        rows.append((vocabulary[left] * num_ids + vocabulary[right], rank, vocabulary[left + right]))
    # A pair that no ids can make keeps the search from running behind the end.
    ordered = np.array(sorted([*rows, (np.iinfo(np.int64).max, 0, 0)]), np.int64)
    return ordered[:, 0], ordered[:, 1].astype(np.int32), ordered[:, 2].astype(np.int32)


def _find_whole_words(tokenizer: Tokenizer, letters: list[str]) -> dict[bytes, int]:
    """Words whose merged bytes are one token: most words of a text need no merging."""
    byte_of = {letter: byte for byte, letter in enumerate(letters)}
    words = {}
    for token, token_id in tokenizer.get_vocab(with_added_tokens=False).items():
        if not byte_of.keys() >= set(token):
            continue
        if [piece.id for piece in tokenizer.model.tokenize(token)] == [token_id]:
            words[bytes(byte_of[letter] for letter in token)] = token_id
    return words
