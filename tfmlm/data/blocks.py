"""What the pipeline asks of blocks, wherever they lie: packed on disk, streamed, or in shards."""

from __future__ import annotations

from typing import Any, Protocol

import tensorflow as tf

from tfmlm.errors import UserError

BLOCKS_A_CHUNK = 256
"""Blocks that are read and masked at once; at a batch of 16, calls would cost more than the work."""

WINDOW_BLOCKS = 16_384
"""Blocks that are shuffled among each other where order cannot be chosen: about 10 MB at 128 tokens."""


class Blocks(Protocol):
    """Blocks of one length L.

    A dataset of blocks holds chunks of n rows, n differing: `input_ids` int32 [n, L], `special_tokens_mask`
    int32 [n, L], `num_tokens` int32 [n], `example_id` int64 [n], and `starts_word` int32 [n, L] where words
    are needed.
    """

    @property
    def num_blocks(self) -> int | None:
        """How many there are; None if only reading them all would tell."""

    def read_in_order(self) -> tf.data.Dataset:
        """Every block once."""

    def read_shuffled(self, seed: int, first: int, last: int) -> tf.data.Dataset:
        """At least the blocks at `first` to `last` of an endless sequence of shuffled epochs.

        What lies at a position is a function of the seed and the position alone. The chunks have one more
        column, `epoch` int64 [n].
        """

    def explain(self, error: Exception) -> UserError | None:
        """What the person should know of an error that reading raised; None if it is not about reading."""


def shuffle_windows(rows: tf.data.Dataset, seed: tf.Tensor) -> tf.data.Dataset:
    """Shuffles each `WINDOW_BLOCKS` rows among each other.

    `Dataset.shuffle` takes no seed that is computed in the graph, and mixes in TensorFlow's global seed; this
    order is a function of `seed`, int64 [2], alone.
    """

    def shuffle(index: tf.Tensor, window: Any) -> Any:
        num_rows = tf.shape(tf.nest.flatten(window)[0])[0]
        order = tf.random.experimental.stateless_shuffle(tf.range(num_rows), tf.random.fold_in(seed, index))
        return tf.nest.map_structure(lambda column: tf.gather(column, order), window)

    # The next window is read while this one is used.
    return rows.batch(WINDOW_BLOCKS).enumerate().map(shuffle).prefetch(1).unbatch()
