"""Batches of short texts without the columns in which all is padding."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import tensorflow as tf

from tfmlm.data.pipeline import Batch

_MULTIPLE = 8
"""Lengths are multiples of it, which matrix units like."""

_PARTS = (8, 4, 2)
"""XLA has a program for each length: that of a block, and of these parts of one."""

_Computed = TypeVar("_Computed")


def list_lengths(block_size: int, is_compiled: bool) -> list[int]:
    """Lengths that a batch may be cut to, ascending; the last is that of a block.

    Args:
        block_size: L.
        is_compiled: whether XLA needs static shapes, and so time for each: there are at most four.
    """
    lengths = [block_size // part for part in _PARTS] if is_compiled else range(_MULTIPLE, block_size)
    rounded = {-(-length // _MULTIPLE) * _MULTIPLE for length in lengths}
    return sorted({min(length, block_size) for length in rounded - {0}} | {block_size})


def number_lengths(attention_mask: tf.Tensor, lengths: list[int]) -> tf.Tensor:
    """Which of the lengths is the least that holds every row, int32 [...] of int32 [..., B, L]."""
    longest = tf.reduce_max(tf.reduce_sum(attention_mask, axis=-1), axis=-1)
    flat = tf.reshape(longest, [-1])
    return tf.reshape(tf.searchsorted(tf.constant(lengths), flat), tf.shape(longest))


def compute_at_length(
    compute: Callable[[Batch, Any], _Computed],
    batch: Batch,
    lengths: list[int],
    num_slots: list[int],
    is_compiled: bool,
) -> _Computed:
    """`compute` of a batch whose columns are cut to the least length that holds every row.

    Args:
        compute: takes the cut batch, and the slots for its masked tokens: a number, or int32 [].
        batch: columns [B, L].
        lengths: from `list_lengths`; of one alone nothing is cut.
        num_slots: for each length, those of a batch of it.
        is_compiled: as of `list_lengths`; the graph then holds the computation once for each length, and else
            once, of a length that is not static.
    """
    if len(lengths) == 1:
        return compute(batch, num_slots[0])

    def compute_cut(length: Any, slots: Any) -> _Computed:
        return compute({name: column[:, :length] for name, column in batch.items()}, slots)

    number = number_lengths(batch["attention_mask"], lengths)
    if not is_compiled:
        return compute_cut(tf.gather(lengths, number), tf.gather(num_slots, number))
    branches = [partial(compute_cut, length, slots) for length, slots in zip(lengths, num_slots, strict=True)]
    computed: _Computed = tf.switch_case(number, branches)
    return computed
