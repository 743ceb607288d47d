"""Computes texts of like length together, so that short ones are not filled up to the batch's longest."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

MOST_PADDING = 64
"""Tokens of padding that a group may have in all. On a CPU one more call of a small model costs about as much
as 15 tokens do; on a GPU it costs more than the padding, and `export.group_by_length` is for that."""

Compute = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]
"""From `input_ids` and `attention_mask` [n, l] and positions [p] in their flattened form to values [p, D]."""


def compute_by_length(
    compute: Compute, input_ids: tf.Tensor, attention_mask: tf.Tensor, places: tf.Tensor, spec: tf.TensorSpec
) -> tf.Tensor:
    """Calls `compute` on groups of rows of like length; a row without a place costs nothing.

    Args:
        compute: what is computed of a group.
        input_ids: int32 [N, L].
        attention_mask: int32 [N, L]; what follows the last that is not 0 in a row is left out.
        places: int32 [P, 2], rows and columns whose values are wanted.
        spec: [None, D] and the dtype of what `compute` returns.

    Returns:
        [P, D], the values at the places.
    """
    rows, columns = places[:, 0], places[:, 1]
    ends = 1 + tf.range(tf.shape(attention_mask)[1])
    lengths = tf.reduce_max(tf.where(attention_mask != 0, ends, 0), axis=1)
    wanted = tf.unique(rows).y
    order = tf.gather(wanted, tf.argsort(tf.gather(lengths, wanted), direction="DESCENDING"))

    def add_group(start: tf.Tensor, values: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        group = _take_group(order, lengths, start)
        longest = lengths[group[0]]
        # Where in the group a row is, counted from 1; 0 if it is not in it.
        rank = tf.scatter_nd(group[:, tf.newaxis], 1 + tf.range(tf.size(group)), tf.shape(lengths))
        ours = tf.where(tf.gather(rank, rows) > 0)[:, 0]
        positions = (tf.gather(rank, tf.gather(rows, ours)) - 1) * longest + tf.gather(columns, ours)
        input_ids_of_group = tf.gather(input_ids, group)[:, :longest]
        attention_mask_of_group = tf.gather(attention_mask, group)[:, :longest]
        computed = compute(input_ids_of_group, attention_mask_of_group, positions)
        values = tf.tensor_scatter_nd_update(values, ours[:, tf.newaxis], computed)
        return start + tf.size(group), tf.ensure_shape(values, spec.shape)

    _, values = tf.while_loop(
        lambda start, _: start < tf.size(order),
        add_group,
        (tf.constant(0), tf.zeros([tf.shape(places)[0], spec.shape[1]], spec.dtype)),
        shape_invariants=(tf.TensorShape([]), spec.shape),
        parallel_iterations=1,  # each uses all cores
    )
    return values


def _take_group(order: tf.Tensor, lengths: tf.Tensor, start: tf.Tensor) -> tf.Tensor:
    """The rows from `start` on that together need no more than `MOST_PADDING`."""
    rest = order[start:]
    missing = lengths[rest[0]] - tf.gather(lengths, rest)
    return tf.boolean_mask(rest, tf.cumsum(missing) <= MOST_PADDING)
