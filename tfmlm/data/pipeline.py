"""Batches for `fit` and `evaluate`: blocks are read in chunks, masked in the graph, and rebatched."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import tensorflow as tf

from tfmlm.data.blocks import Blocks
from tfmlm.data.masking import EVALUATION_EPOCH, MaskingCollator

Batch = dict[str, tf.Tensor]

SORTED_BLOCKS = 4_096
"""Blocks that are sorted by length among each other: of a batch of 16 in 256, most are of one length."""


def make_training_batches(
    blocks: Blocks,
    collator: MaskingCollator,
    seed: int,
    first_step: int,
    last_step: int,
    global_batch_size: int,
) -> tf.data.Dataset:
    """Batches of the steps `first_step` to `last_step`, wherever in an epoch those lie.

    The data is one endless sequence of shuffled epochs; a batch may span two. What a step sees is a function
    of (seed, step) alone, so a resumed run sees what an uninterrupted one would. Where texts are not packed,
    a step has blocks of like length.

    Returns:
        A dataset of `input_ids`, `attention_mask` and `labels`, int32 [global_batch_size, L] each; of blocks
        that N input pipelines share, this one's [global_batch_size / N, L] of every step.
    """
    windows = [_Window(first_step, last_step)]
    if not blocks.is_packed:
        windows = list(_list_windows(first_step, last_step, blocks.num_blocks, global_batch_size))
    first_read, last_read = windows[0].first_step, windows[-1].last_step
    chunks = blocks.read_shuffled(seed, first_read * global_batch_size, last_read * global_batch_size)
    rows_per_step = global_batch_size // blocks.num_pipelines
    if not blocks.is_packed:
        chunks = _sort_by_length(chunks, windows, rows_per_step, seed)
    if collator.masking.final_rate is not None:
        chunks = _note_progress(chunks, first_read, last_step, rows_per_step)

    def mask(chunk: Batch) -> Batch:
        return collator(chunk, chunk["epoch"], chunk.get("progress"))

    batches = _map(chunks, mask).rebatch(rows_per_step, drop_remainder=True)
    wanted = batches.skip(first_step - first_read).take(last_step - first_step)
    return _spread(wanted.prefetch(tf.data.AUTOTUNE))


class _Window(NamedTuple):
    """Consecutive steps, `first_step` to the one before `last_step`, whose blocks are sorted by length."""

    first_step: int
    last_step: int


def _list_windows(
    first_step: int, last_step: int, num_blocks: int | None, blocks_per_step: int
) -> Iterator[_Window]:
    """The windows that the steps lie in, which depend on nothing but the number of blocks and their size.

    None goes beyond the steps of an epoch, so that a run of whole epochs sees the same blocks as without
    sorting. A stream's epochs are not known.
    """
    most_steps = max(1, SORTED_BLOCKS // blocks_per_step)
    step = first_step
    while step < last_step:
        start, end = 0, math.inf
        if num_blocks is not None:
            epoch = -(-(step + 1) * blocks_per_step // num_blocks) - 1
            start, end = (number * num_blocks // blocks_per_step for number in (epoch, epoch + 1))
        first = start + (step - start) // most_steps * most_steps
        step = int(min(first + most_steps, end))
        yield _Window(first, step)


def _sort_by_length(
    chunks: tf.data.Dataset, windows: list[_Window], rows_per_step: int, seed: int
) -> tf.data.Dataset:
    """Sorts the rows of each window by length, cuts them into steps, and shuffles these."""
    num_steps = tf.constant([window.last_step - window.first_step for window in windows], tf.int64)
    seeds = tf.constant([[seed % 2**63, window.first_step] for window in windows], tf.int64)

    def sort(index: tf.Tensor, rows: Batch) -> Batch:
        order = tf.argsort(rows["num_tokens"], stable=True)
        steps = tf.random.experimental.stateless_shuffle(
            tf.reshape(order, [-1, rows_per_step]), seed=seeds[index]
        )
        return {name: tf.gather(column, tf.reshape(steps, [-1])) for name, column in rows.items()}

    whole = chunks.rebatch(num_steps * rows_per_step).take(len(windows))
    return whole.enumerate().map(sort, num_parallel_calls=tf.data.AUTOTUNE)


def _note_progress(
    chunks: tf.data.Dataset, first_step: int, last_step: int, rows_per_step: int
) -> tf.data.Dataset:
    """Adds `progress`, float32 [B]: 0 at the rows of step 0, 1 at those of the last step."""

    def note(num_before: tf.Tensor, chunk: Batch) -> tuple[tf.Tensor, Batch]:
        num_rows = tf.shape(chunk["num_tokens"], tf.int64)[0]
        steps = first_step + (num_before + tf.range(num_rows)) // rows_per_step
        # The rows are read a little further than the last step, which takes no more of them.
        progress = tf.minimum(tf.cast(steps, tf.float32) / max(last_step - 1, 1), 1.0)
        return num_before + num_rows, chunk | {"progress": progress}

    return chunks.scan(tf.constant(0, tf.int64), note)


def make_evaluation_batches(
    blocks: Blocks, collator: MaskingCollator, global_batch_size: int, most_blocks: int | None = None
) -> tf.data.Dataset:
    """Every block once, in order, with masks that are the same on every pass.

    Where texts are not packed, blocks that are near each other are sorted by length. The last batch is filled
    up with empty rows, which have no label, so that all shapes are static.

    Args:
        blocks: held-out ones.
        collator: as of training.
        global_batch_size: blocks of a batch.
        most_blocks: read no more than these, the first ones.
    """
    evaluation_collator = collator.for_evaluation()

    def mask(batch: Batch) -> Batch:
        filled = {name: _fill_rows(column, global_batch_size) for name, column in batch.items()}
        return evaluation_collator(filled, epoch=tf.constant(EVALUATION_EPOCH, tf.int64))

    chunks = blocks.read_in_order()
    if most_blocks is not None:
        chunks = _take_rows(chunks, most_blocks)
    if not blocks.is_packed:
        chunks = chunks.rebatch(SORTED_BLOCKS).map(_sort_rows)
    batches = chunks.rebatch(global_batch_size)
    return _spread(_map(batches, mask).prefetch(tf.data.AUTOTUNE))


def _sort_rows(rows: Batch) -> Batch:
    order = tf.argsort(rows["num_tokens"], stable=True)
    return {name: tf.gather(column, order) for name, column in rows.items()}


def _take_rows(chunks: tf.data.Dataset, most_rows: int) -> tf.data.Dataset:
    """The first rows of a dataset of chunks, without cutting it into rows."""

    def cut(num_before: tf.Tensor, chunk: Batch) -> tuple[tf.Tensor, Batch]:
        num_rows = tf.shape(chunk["num_tokens"], tf.int64)[0]
        kept = tf.clip_by_value(most_rows - num_before, 0, num_rows)
        return num_before + num_rows, {name: column[:kept] for name, column in chunk.items()}

    # Each chunk but the last is whole, so that none after the first empty one is read.
    cut_chunks = chunks.scan(tf.constant(0, tf.int64), cut)
    return cut_chunks.take_while(lambda chunk: tf.shape(chunk["num_tokens"])[0] > 0)


def _map(chunks: tf.data.Dataset, mask: Callable[[Batch], Batch]) -> tf.data.Dataset:
    # Masking has no branch that hangs on a tensor, so AutoGraph would rewrite it for nothing.
    plain = tf.autograph.experimental.do_not_convert(mask)
    return chunks.map(plain, num_parallel_calls=tf.data.AUTOTUNE)


def _spread(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Several workers take their parts of the same batches, so what is computed does not depend on them."""
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return batches.with_options(options)


def _fill_rows(column: tf.Tensor, num_rows: int) -> tf.Tensor:
    """Appends rows of zeros up to `num_rows`; zero `num_tokens` means that nothing in the row counts."""
    missing = num_rows - tf.shape(column)[0]
    filled = tf.pad(column, [[0, missing]] + [[0, 0]] * (column.shape.rank - 1))
    return tf.ensure_shape(filled, [num_rows, *column.shape[1:]])
