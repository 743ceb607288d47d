"""Blocks, wherever they lie: packed on disk, in shards, or streamed."""

from __future__ import annotations

import mmap
import posixpath
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import tensorflow as tf
from datasets import Dataset
from datasets.table import InMemoryTable
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast, TFPreTrainedModel

from tfmlm.data.packing import NO_TOKENS, BlockFormat, Columns, pack_texts
from tfmlm.data.shards import Manifest, Shard, find_corrupt_shard
from tfmlm.data.text_stream import TextStream
from tfmlm.errors import UserError

BLOCKS_A_CHUNK = 256
"""Blocks that are read and masked at once; at a batch of 16, calls would cost more than the work."""

WINDOW_BLOCKS = 16_384
"""Blocks that are shuffled among each other where order cannot be chosen: about 10 MB at 128 tokens."""


class TokenCounts(NamedTuple):
    """Tokens of a text, special ones left out.

    Attributes:
        num_text_tokens: all of them.
        num_unknown: those that the tokenizer does not know.
    """

    num_text_tokens: int
    num_unknown: int


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

    def count_unknown(self) -> TokenCounts:
        """How much of the text the tokenizer does not know; of a stream, of its first texts."""

    def explain(self, error: Exception) -> UserError | None:
        """Turns an error that reading raised into one line; None if it is not about reading."""


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


# === Packed: in an Arrow file on this machine, read in any order ===


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

    def count_unknown(self) -> TokenCounts:
        """Of all blocks."""
        columns = (self.table.with_format("numpy")[name] for name in TokenCounts._fields)
        return TokenCounts(*(int(np.sum(column[:], dtype=np.int64)) for column in columns))

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


# === Sharded: in TFRecord files, read by tf.data alone ===


READING_ERRORS = (tf.errors.OpError, UnicodeDecodeError)
"""Raised for a record that is no block: TensorFlow puts it into the message, and decodes that as UTF-8."""

_FILES_AT_ONCE = 16
"""Shards that are read in turn, so that a window holds texts from far apart."""

_BLOCKS_A_TURN = 16
_BUFFER_BYTES = 2**20

_Tensors = dict[str, tf.Tensor]


@dataclass(frozen=True)
class ShardedBlocks:
    """See `Blocks`.

    Attributes:
        folder: local, or of any file system that TensorFlow reads.
        shards: files in it.
        block_size: L.
        with_words: read the column `starts_word`.
    """

    folder: str
    shards: tuple[Shard, ...]
    block_size: int
    with_words: bool

    @classmethod
    def of_split(cls, folder: str, manifest: Manifest, split: str, with_words: bool) -> ShardedBlocks:
        """The blocks of `train` or `validation`."""
        return cls(folder, tuple(manifest.splits[split]), manifest.block_size, with_words)

    @property
    def num_blocks(self) -> int:
        """As the manifest has it."""
        return sum(shard.num_blocks for shard in self.shards)

    def of_worker(self, index: int, num_workers: int) -> ShardedBlocks:
        """The share of one of several workers: every `num_workers`-th shard.

        Raises:
            UserError: there are fewer shards than workers.
        """
        if len(self.shards) < num_workers:
            raise UserError(
                f"{self.folder!r} has {len(self.shards)} shards for {num_workers} workers; run "
                "`tfmlm prepare` again with a smaller --blocks-per-shard"
            )
        return replace(self, shards=self.shards[index::num_workers])

    def read_in_order(self) -> tf.data.Dataset:
        """Every block once."""
        records = tf.data.TFRecordDataset(self._paths(), buffer_size=_BUFFER_BYTES)
        return records.batch(BLOCKS_A_CHUNK).map(self._parse, num_parallel_calls=tf.data.AUTOTUNE)

    def read_shuffled(self, seed: int, first: int, last: int) -> tf.data.Dataset:
        """The endless sequence from `first` on; an epoch shuffles the shards, and the blocks in windows.

        Blocks before `first` in its epoch are read and passed over unparsed.
        """
        first_epoch, skipped = divmod(first, self.num_blocks)
        num_epochs = -(-last // self.num_blocks) - first_epoch

        def read_epoch(number: tf.Tensor) -> tf.data.Dataset:
            epoch = first_epoch + number
            records = self._read_epoch(tf.stack([tf.constant(seed % 2**63, tf.int64), epoch]))
            chunks = records.skip(tf.where(number == 0, tf.constant(skipped, tf.int64), 0)).batch(
                BLOCKS_A_CHUNK
            )
            return chunks.map(
                lambda chunk: self._add_epoch(self._parse(chunk), epoch), num_parallel_calls=tf.data.AUTOTUNE
            )

        return tf.data.Dataset.range(num_epochs).flat_map(read_epoch)

    def _read_epoch(self, seed: tf.Tensor) -> tf.data.Dataset:
        paths = tf.random.experimental.stateless_shuffle(tf.constant(self._paths()), seed)
        records = tf.data.Dataset.from_tensor_slices(paths).interleave(
            lambda path: tf.data.TFRecordDataset(path, buffer_size=_BUFFER_BYTES),
            cycle_length=min(_FILES_AT_ONCE, len(self.shards)),
            block_length=_BLOCKS_A_TURN,
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        return shuffle_windows(records, seed)

    def count_unknown(self) -> TokenCounts:
        """As the manifest has it."""
        return TokenCounts(
            *(sum(getattr(shard, name) for shard in self.shards) for name in TokenCounts._fields)
        )

    def explain(self, error: Exception) -> UserError | None:
        """Names the corrupt shard after a reading error; finding it reads the shards whole."""
        if not isinstance(error, READING_ERRORS):
            return None
        corrupt = find_corrupt_shard(self.folder, self.shards)
        if corrupt is not None:
            reason = "its contents are not those that the manifest has the checksum of"
        else:
            corrupt = next((shard for shard in self.shards if not self._is_readable(shard)), None)
            reason = "it holds no such blocks as the manifest says"
        if corrupt is None:
            return None
        path = posixpath.join(self.folder, corrupt.name)
        return UserError(f"shard {path!r} is corrupt: {reason}; run `tfmlm prepare` again")

    def _is_readable(self, shard: Shard) -> bool:
        try:
            for _ in replace(self, shards=(shard,)).read_in_order():
                pass
        except READING_ERRORS:
            return False
        return True

    def _paths(self) -> list[str]:
        return [posixpath.join(self.folder, shard.name) for shard in self.shards]

    def _parse(self, records: tf.Tensor) -> _Tensors:
        rows = ["input_ids", "special_tokens_mask", *(["starts_word"] if self.with_words else [])]
        features = {name: tf.io.FixedLenFeature([self.block_size], tf.int64) for name in rows} | {
            name: tf.io.FixedLenFeature([], tf.int64) for name in ("num_tokens", "example_id")
        }
        chunk = tf.io.parse_example(records, features)
        return {
            name: column if name == "example_id" else tf.cast(column, tf.int32)
            for name, column in chunk.items()
        }

    @staticmethod
    def _add_epoch(chunk: _Tensors, epoch: tf.Tensor) -> _Tensors:
        return chunk | {"epoch": tf.fill(tf.shape(chunk["example_id"]), epoch)}


# === Streamed: tokenized and packed while training reads them ===


HELD_OUT_OF_A_STREAM = 1000
"""Texts that are held out of a stream at most: finding more would read it far ahead."""


class StreamedBlocks:
    """See `Blocks`. Starting at a later position reads, and passes over, everything before it."""

    num_blocks = None

    def __init__(
        self, texts: TextStream, tokenizer: PreTrainedTokenizerFast, block_format: BlockFormat
    ) -> None:
        self._texts = texts
        self._tokenizer = tokenizer
        self._format = block_format
        self._failure: UserError | None = None

    def read_in_order(self) -> tf.data.Dataset:
        """Every block once."""
        return self._read(num_epochs=1).map(lambda chunk: {name: chunk[name] for name in self._names()})

    def read_shuffled(self, seed: int, first: int, last: int) -> tf.data.Dataset:
        """The endless stream, shuffled in windows."""
        blocks = self._read(num_epochs=None).unbatch()
        shuffled = shuffle_windows(blocks, tf.constant([seed % 2**63, 0], tf.int64))
        return shuffled.skip(first).take(last - first).batch(BLOCKS_A_CHUNK)

    def count_unknown(self) -> TokenCounts:
        """Of as many texts as are held out at most."""
        counts = np.zeros(len(TokenCounts._fields), np.int64)
        texts = self._texts.take(HELD_OUT_OF_A_STREAM)
        for columns in pack_texts(texts, self._tokenizer, self._format):
            counts += [int(columns[name].sum()) for name in TokenCounts._fields]
        return TokenCounts(*counts.tolist())

    def explain(self, error: Exception) -> UserError | None:
        """The bad row, which TensorFlow has wrapped in an error of its own."""
        del error
        return self._failure

    def _names(self) -> list[str]:
        words = ["starts_word"] if self._format.with_words else []
        return ["input_ids", "special_tokens_mask", *words, "num_tokens", "example_id"]

    def _read(self, num_epochs: int | None) -> tf.data.Dataset:
        length = self._format.block_size
        spec = {name: tf.TensorSpec([None, length], tf.int32) for name in self._names()}
        spec["num_tokens"] = tf.TensorSpec([None], tf.int32)
        spec["example_id"] = spec["epoch"] = tf.TensorSpec([None], tf.int64)
        return tf.data.Dataset.from_generator(lambda: self._generate(num_epochs), output_signature=spec)

    def _generate(self, num_epochs: int | None) -> Iterator[Columns]:
        epoch = 0
        try:
            while epoch != num_epochs:
                columns: Columns | None = None
                for columns in pack_texts(self._texts, self._tokenizer, self._format):
                    yield {
                        name: columns[name].astype(np.int32)
                        if columns[name].dtype == np.bool_
                        else columns[name]
                        for name in self._names()
                    } | {"epoch": np.full_like(columns["example_id"], epoch)}
                if columns is None:
                    raise UserError(NO_TOKENS)
                epoch += 1
        except UserError as error:
            self._failure = error
            raise
