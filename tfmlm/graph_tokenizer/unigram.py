"""SentencePiece's unigram model over words that begin with U+2581.

It has the sums and ties of the tokenizers library. The SentencePiece op of tensorflow-text adds in float32,
which breaks ties by rounding: `----` is then cut in another way than by the tokenizers library, which adds in
float64 and takes the longest piece of equals.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tokenizers import Tokenizer

from tfmlm.graph_tokenizer import UnsupportedTokenizerError
from tfmlm.graph_tokenizer.code_points import decode_utf8


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


# === The most probable pieces ===


_UNKNOWN_PENALTY = 10.0
"""Below the least probable piece; `K_UNK_PENALTY` in the tokenizers library."""

_CODE_POINT_BITS = 21
_DEAD = -1


class PieceTrie:
    """Pieces by their characters.

    Args:
        pieces: distinct strings; the index is the id.
    """

    def __init__(self, pieces: list[str]) -> None:
        nodes: dict[tuple[int, int], int] = {}
        ends: dict[int, int] = {}
        for piece_id, piece in enumerate(pieces):
            node = 0
            for letter in piece:
                node = nodes.setdefault((node, ord(letter)), len(nodes) + 1)
            if piece:
                ends[node] = piece_id
        keys = np.array([(node << _CODE_POINT_BITS) | letter for node, letter in nodes], np.int64)
        order = np.argsort(keys)
        # A key that no text can make keeps the search from running behind the end.
        self._keys = np.append(keys[order], np.iinfo(np.int64).max)
        self._children = np.append(np.array(list(nodes.values()), np.int32)[order], 0).astype(np.int32)
        self._piece_ids = np.full(len(nodes) + 1, _DEAD, np.int32)
        self._piece_ids[list(ends)] = list(ends.values())
        self.longest = max(len(piece) for piece in pieces)

    def find(self, characters: tf.Tensor, room: tf.Tensor) -> tf.Tensor:
        """Pieces that begin at each character.

        Args:
            characters: code points int32 [T].
            room: int32 [T], characters from each to the end of its word, itself included.

        Returns:
            int32 [T, K]: the id of the piece of k + 1 characters, or -1.
        """
        total = tf.size(characters)
        alive = tf.range(total)
        nodes = tf.zeros_like(alive)
        columns = []
        for length in range(1, self.longest + 1):
            has_room = tf.gather(room, alive) >= length
            alive, nodes = tf.boolean_mask(alive, has_room), tf.boolean_mask(nodes, has_room)
            letters = tf.cast(tf.gather(characters, alive + length - 1), tf.int64)
            keys = (
                tf.bitwise.left_shift(tf.cast(nodes, tf.int64), tf.cast(_CODE_POINT_BITS, tf.int64)) | letters
            )
            places = tf.searchsorted(tf.constant(self._keys), keys)
            is_child = tf.gather(self._keys, places) == keys
            alive = tf.boolean_mask(alive, is_child)
            nodes = tf.boolean_mask(tf.gather(self._children, places), is_child)
            found = tf.gather(self._piece_ids, nodes) - _DEAD
            columns.append(tf.scatter_nd(alive[:, tf.newaxis], found, [total]) + _DEAD)
        return tf.stack(columns, axis=1)


class Viterbi:
    """Cuts words into the pieces with the highest sum of scores.

    Args:
        pieces: strings; the index is the id.
        scores: of the pieces.
        unknown_id: of a character that is no piece.
    """

    def __init__(self, pieces: list[str], scores: list[float], unknown_id: int) -> None:
        self._trie = PieceTrie(pieces)
        self._scores: NDArray[np.float64] = np.array(scores, np.float64)
        self._unknown_score = min(scores) - _UNKNOWN_PENALTY
        self._unknown_id = unknown_id

    def __call__(self, words: tf.RaggedTensor) -> tf.RaggedTensor:
        """Ids int32 [W, None] of words, code points int32 [W, None]."""
        lengths = words.row_lengths()
        room = tf.repeat(words.row_limits(), lengths) - tf.range(tf.size(words.flat_values))
        ids = self._trie.find(words.flat_values, room)
        ids, scores = self._score(ids)
        steps = _trace_back(words, _find_best_steps(words, scores))
        return self._list_pieces(words, ids, steps)

    def _score(self, ids: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Ids and scores float64 [T, K], with the unknown piece where no piece of one character begins."""
        is_piece = ids != _DEAD
        scores = tf.gather(self._scores, tf.maximum(ids, 0))
        scores = tf.where(is_piece, scores, tf.constant(-np.inf, tf.float64))
        is_unknown = ~is_piece & (tf.range(self._trie.longest) == 0)
        return tf.where(is_unknown, self._unknown_id, ids), tf.where(
            is_unknown, tf.constant(self._unknown_score, tf.float64), scores
        )

    def _list_pieces(self, words: tf.RaggedTensor, ids: tf.Tensor, steps: tf.Tensor) -> tf.RaggedTensor:
        """The ids of the pieces that begin where `steps` int32 [T] is not 0; unknown neighbours are one."""
        starts = tf.cast(tf.where(steps > 0)[:, 0], tf.int32)
        piece_ids = tf.gather_nd(ids, tf.stack([starts, tf.gather(steps, starts) - 1], axis=1))
        word = tf.gather(words.value_rowids(), starts)
        is_unknown = piece_ids == self._unknown_id
        goes_on = tf.concat([[False], is_unknown[:-1] & (word[1:] == word[:-1])], axis=0)[: tf.size(word)]
        is_left = ~(is_unknown & goes_on)
        return tf.RaggedTensor.from_value_rowids(
            tf.boolean_mask(piece_ids, is_left),
            tf.boolean_mask(word, is_left),
            words.nrows(out_type=tf.int32),
            validate=False,
        )


def _find_best_steps(words: tf.RaggedTensor, scores: tf.Tensor) -> tf.Tensor:
    """Length of the last piece of the best cut that ends behind each character, int32 [T].

    All words go forward together, the longest first, so that those that are at their end drop off.
    """
    longest = scores.shape[1]
    lengths = words.row_lengths()
    order = tf.argsort(lengths, direction="DESCENDING", stable=True)
    starts = tf.gather(words.row_starts(), order)
    lengths = tf.gather(lengths, order)
    pieces = tf.range(longest, 0, -1)
    num_steps = tf.reduce_max(tf.concat([lengths, [0]], axis=0))
    # Scores of the cuts that end 1 ... K characters before, in the order of `pieces`.
    window = tf.concat(
        [
            tf.fill([tf.size(lengths), longest - 1], tf.constant(-np.inf, tf.float64)),
            tf.zeros([tf.size(lengths), 1], tf.float64),
        ],
        axis=1,
    )
    best = tf.zeros_like(words.flat_values)

    def step(end: tf.Tensor, window: tf.Tensor, best: tf.Tensor) -> tuple[tf.Tensor, ...]:
        num_left = tf.reduce_sum(tf.cast(lengths >= end, tf.int32))
        window, first = window[:num_left], starts[:num_left, tf.newaxis]
        begins = tf.maximum(first + end - pieces, 0)
        columns = tf.broadcast_to(pieces - 1, tf.shape(begins))
        of_pieces = tf.gather_nd(scores, tf.stack([begins, columns], axis=2))
        candidates = window + of_pieces
        choice = tf.argmax(candidates, axis=1, output_type=tf.int32)
        best = tf.tensor_scatter_nd_update(best, first + end - 1, longest - choice)
        highest = tf.reduce_max(candidates, axis=1, keepdims=True)
        return end + 1, tf.concat([window[:, 1:], highest], axis=1), best

    _, _, best = tf.while_loop(
        lambda end, _window, _best: end <= num_steps,
        step,
        (tf.constant(1), window, best),
        shape_invariants=(tf.TensorShape([]), tf.TensorShape([None, longest]), best.shape),
    )
    return best


def _trace_back(words: tf.RaggedTensor, best: tf.Tensor) -> tf.Tensor:
    """Length of the piece that begins at each character, 0 where none does, int32 [T]."""
    steps = tf.zeros_like(best)
    starts, ends = words.row_starts(), words.row_limits()

    def step(starts: tf.Tensor, ends: tf.Tensor, steps: tf.Tensor) -> tuple[tf.Tensor, ...]:
        is_left = ends > starts
        starts, ends = tf.boolean_mask(starts, is_left), tf.boolean_mask(ends, is_left)
        length = tf.gather(best, ends - 1)
        ends -= length
        return starts, ends, tf.tensor_scatter_nd_update(steps, ends[:, tf.newaxis], length)

    *_, steps = tf.while_loop(
        lambda starts, ends, _steps: tf.reduce_any(ends > starts),
        step,
        (starts, ends, steps),
        shape_invariants=(tf.TensorShape([None]), tf.TensorShape([None]), steps.shape),
    )
    return steps
