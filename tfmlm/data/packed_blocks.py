"""Blocks in an Arrow file on this machine, read in any order through `prepare_tf_dataset`."""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow as tf
from datasets import Dataset
from datasets.table import InMemoryTable
from numpy.typing import NDArray
from transformers import TFPreTrainedModel

from tfmlm.data.blocks import BLOCKS_A_CHUNK
from tfmlm.data.packing import NO_TOKENS, Columns
from tfmlm.errors import UserError


def write_blocks(blocks: Iterable[Columns], path: Path) -> None:
    """Writes blocks to an Arrow file."""
    with pa.OSFile(str(path), "wb") as sink:
        writer = None
        for columns in blocks:
            batch = pa.record_batch({name: _to_arrow(column) for name, column in columns.items()})
            writer = writer or pa.ipc.new_stream(sink, batch.schema)
            writer.write_batch(batch)
        if writer is None:
            raise UserError(NO_TOKENS)
        writer.close()


def _to_arrow(column: NDArray[Any]) -> pa.Array:
    if column.ndim == 1:
        return pa.array(column)
    return pa.FixedSizeListArray.from_arrays(column.reshape(-1), column.shape[1])


def open_blocks(path: Path) -> PackedBlocks:
    """Maps what `write_blocks` wrote into memory."""
    with path.open("rb") as file:
        mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    table = InMemoryTable(pa.ipc.open_stream(pa.py_buffer(mapping)).read_all())
    # Without a fingerprint `datasets` would hash the whole table for one.
    return PackedBlocks(Dataset(table, fingerprint=path.parent.name), mapping)


@dataclass(frozen=True)
class PackedBlocks:
    """See `Blocks`.

    Attributes:
        table: a block a row.
        mapping: the memory that the table lies in, if that is a file's.
    """

    table: Dataset
    mapping: mmap.mmap | None = None

    @property
    def num_blocks(self) -> int:
        """Rows of the table."""
        return len(self.table)

    def read_in_order(self) -> tf.data.Dataset:
        """Every block once."""
        return self._stack_rows(self.table)

    def read_shuffled(self, seed: int, first: int, last: int) -> tf.data.Dataset:
        """Exactly the blocks at `first` to `last`; each epoch is a permutation of its own."""
        chunks = self._stack_rows(self.table.select(order_examples(self.num_blocks, seed, first, last)))

        def add_epoch(index: tf.Tensor, chunk: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            num_rows = tf.shape(chunk["example_id"], tf.int64)[0]
            return chunk | {"epoch": (first + index * BLOCKS_A_CHUNK + tf.range(num_rows)) // self.num_blocks}

        return chunks.enumerate().map(add_epoch)

    def _stack_rows(self, table: Dataset) -> tf.data.Dataset:
        return TFPreTrainedModel.prepare_tf_dataset(
            _BlockColumns(),
            table,
            batch_size=BLOCKS_A_CHUNK,
            shuffle=False,
            drop_remainder=False,
            collate_fn=self._stack,
            prefetch=False,
        ).map(_narrow)

    def _stack(self, rows: list[dict[str, Any]]) -> dict[str, NDArray[Any]]:
        columns = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        if self.mapping:
            # Every block read maps the 16 pages around it. They stay in the system's cache, but counted as
            # this process's memory they would grow to the size of the file.
            self.mapping.madvise(mmap.MADV_DONTNEED)
        return columns

    def explain(self, error: Exception) -> UserError | None:
        """Nothing: the file was written by this program and is checked by nobody."""
        del error
        return None


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


def _narrow(chunk: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Undoes `to_tf_dataset`, which widens every integer to int64."""
    return {
        name: column if name == "example_id" else tf.cast(column, tf.int32) for name, column in chunk.items()
    }
