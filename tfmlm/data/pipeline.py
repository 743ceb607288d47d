"""Batches for `fit` and `evaluate`: `prepare_tf_dataset` stacks, the collator masks in the graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from datasets import Dataset
from numpy.typing import NDArray
from transformers import TFPreTrainedModel

from tfmlm.data.masking import EVALUATION_EPOCH, MaskingCollator

_BLOCKS_A_FETCH = 256
"""Blocks that one call into Python reads; with a batch of 16 the call costs more than the reading."""

Batch = dict[str, tf.Tensor]


def make_training_batches(
    blocks: Dataset,
    collator: MaskingCollator,
    seed: int,
    first_step: int,
    last_step: int,
    global_batch_size: int,
) -> tf.data.Dataset:
    """Batches of the steps `first_step` to `last_step`, wherever in an epoch those lie.

    The data is one endless sequence of epochs, each a permutation of its own; a batch may span two. What a
    step sees is a function of (seed, step) alone, so a resumed run sees what an uninterrupted one would.

    Returns:
        A dataset of `input_ids`, `attention_mask` and `labels`, int32 [global_batch_size, L] each.
    """
    first, last = first_step * global_batch_size, last_step * global_batch_size
    order = order_examples(len(blocks), seed, first, last)
    stacked = _stack_rows(blocks.select(order)).rebatch(global_batch_size, drop_remainder=True)

    def mask(index: tf.Tensor, batch: Batch) -> Batch:
        position = first + index * global_batch_size + tf.range(global_batch_size, dtype=tf.int64)
        return collator(batch, epoch=position // len(blocks))

    return stacked.enumerate().map(mask, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def make_evaluation_batches(
    blocks: Dataset, collator: MaskingCollator, global_batch_size: int
) -> tf.data.Dataset:
    """Every block once, in order, with masks that are the same on every pass.

    The last batch is filled up with empty rows, which have no label, so that all shapes are static.
    """
    evaluation_collator = collator.for_evaluation()

    def mask(batch: Batch) -> Batch:
        filled = {name: _fill_rows(column, global_batch_size) for name, column in batch.items()}
        return evaluation_collator(filled, epoch=tf.constant(EVALUATION_EPOCH, tf.int64))

    batches = _stack_rows(blocks).rebatch(global_batch_size)
    return batches.map(mask, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def order_examples(num_examples: int, seed: int, first: int, last: int) -> NDArray[np.int64]:
    """Examples at the positions `first` to `last` of the endless sequence of shuffled epochs.

    Returns:
        int64 [last - first], indices below `num_examples`.
    """
    epochs = range(first // num_examples, -(-last // num_examples))
    orders = [np.random.default_rng((seed, epoch)).permutation(num_examples) for epoch in epochs]
    start = epochs.start * num_examples
    return np.concatenate([np.empty(0, np.int64), *orders])[first - start : last - start]


class _BlockColumns(tf.Module):
    """Tells `prepare_tf_dataset` which columns to keep.

    It keeps the columns that `self.call` names. A Hugging Face model names what it computes with, which is
    how the stock path loses `special_tokens_mask` before any collator sees it.
    """

    def call(
        self, input_ids: Any, special_tokens_mask: Any, starts_word: Any, num_tokens: Any, example_id: Any
    ) -> None:
        """Never called; only its signature is read."""


def _stack_rows(blocks: Dataset) -> tf.data.Dataset:
    return TFPreTrainedModel.prepare_tf_dataset(
        _BlockColumns(),
        blocks,
        batch_size=_BLOCKS_A_FETCH,
        shuffle=False,
        drop_remainder=False,
        collate_fn=_stack,
        prefetch=False,
    ).map(_narrow)


def _stack(rows: list[dict[str, Any]]) -> dict[str, NDArray[Any]]:
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def _narrow(batch: Batch) -> Batch:
    """Undoes `to_tf_dataset`, which widens every integer to int64."""
    return {
        name: column if name == "example_id" else tf.cast(column, tf.int32) for name, column in batch.items()
    }


def _fill_rows(column: tf.Tensor, num_rows: int) -> tf.Tensor:
    """Appends rows of zeros up to `num_rows`; zero `num_tokens` means that nothing in the row counts."""
    missing = num_rows - tf.shape(column)[0]
    filled = tf.pad(column, [[0, missing]] + [[0, 0]] * (column.shape.rank - 1))
    return tf.ensure_shape(filled, [num_rows, *column.shape[1:]])
