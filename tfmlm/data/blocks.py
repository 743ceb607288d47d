"""Blocks, wherever they lie: packed on disk, in shards, or streamed."""

from __future__ import annotations

import logging
import math
import mmap
import posixpath
from collections.abc import Callable, Iterable, Iterator, Sequence
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

_LOGGER = logging.getLogger(__name__)

BLOCKS_A_CHUNK = 256
"""Blocks that are read and masked at once; at a batch of 16, calls would cost more than the work."""

WINDOW_BLOCKS = 16_384
"""Blocks that are shuffled among each other where order cannot be chosen: about 10 MB at 128 tokens."""


class TextCounts(NamedTuple):
    """Tokens of texts, special ones left out, and the texts themselves where they are not packed.

    Attributes:
        num_text_tokens: all of them.
        num_unknown: those that the tokenizer does not know.
        num_texts: texts; 0 where they are packed.
        num_long_texts: those that are longer than a block.
    """

    num_text_tokens: int
    num_unknown: int
    num_texts: int = 0
    num_long_texts: int = 0

    @property
    def unknown_share(self) -> float:
        """Share of the tokens that the tokenizer does not know; 0 where nothing was counted."""
        return self.num_unknown / max(self.num_text_tokens, 1)

    @classmethod
    def of_all(cls, blocks: Iterable[Blocks]) -> TextCounts:
        """Those of several sets of blocks together."""
        return cls(*map(sum, zip(*(each.count_texts() for each in blocks), strict=True)))


class Blocks(Protocol):
    """Blocks of one length L.

    A dataset of blocks holds chunks of n rows, n differing: `input_ids` int32 [n, L], `special_tokens_mask`
    int32 [n, L], `num_tokens` int32 [n], `example_id` int64 [n], and `starts_word` and `starts_text` int32
    [n, L] where words and the borders of texts are needed.
    """

    @property
    def num_blocks(self) -> int | None:
        """How many there are; None if only reading them all would tell."""

    @property
    def is_packed(self) -> bool:
        """Whether they hold texts end to end; else each is of one text, and mostly padded."""

    @property
    def num_pipelines(self) -> int:
        """Input pipelines that share them; `read_shuffled` gives the part of one."""

    def read_in_order(self) -> tf.data.Dataset:
        """Every block once."""

    def read_shuffled(self, seed: int, first: int, last: int) -> tf.data.Dataset:
        """At least the blocks at `first` to `last` of an endless sequence of shuffled epochs.

        What lies at a position is a function of the seed and the position alone. The chunks have one more
        column, `epoch` int64 [n].
        """

    def count_texts(self) -> TextCounts:
        """How much of the text the tokenizer does not know, and so on; of a stream, of its first texts."""

    def explain(self, error: Exception) -> UserError | None:
        """Turns an error that reading raised into one line; None if it is not about reading."""


def name_rows(with_words: bool, with_texts: bool) -> list[str]:
    """The columns of a chunk that have a value for each token."""
    words, texts = ["starts_word"] * with_words, ["starts_text"] * with_texts
    return ["input_ids", "special_tokens_mask", *words, *texts]


def shuffle_windows(
    rows: tf.data.Dataset, seed: tf.Tensor, window_blocks: int, first_window: tf.Tensor | int = 0
) -> tf.data.Dataset:
    """Windows of `window_blocks` rows, each shuffled.

    `Dataset.shuffle` takes no seed that is computed in the graph, and mixes in TensorFlow's global seed; this
    order is a function of `seed`, int64 [2], and the window's number alone.
    """

    def shuffle(index: tf.Tensor, window: Any) -> Any:
        num_rows = tf.shape(tf.nest.flatten(window)[0])[0]
        order = tf.random.experimental.stateless_shuffle(tf.range(num_rows), tf.random.fold_in(seed, index))
        return tf.nest.map_structure(lambda column: tf.gather(column, order), window)

    # The next window is read while this one is used.
    return rows.batch(window_blocks).enumerate(first_window).map(shuffle).prefetch(1)


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
    num_pipelines = 1

    @property
    def num_blocks(self) -> int:
        """Rows of the table."""
        return len(self.table)

    @property
    def is_packed(self) -> bool:
        """As the columns tell."""
        return "num_texts" not in self.table.column_names

    def read_in_order(self) -> tf.data.Dataset:
        """Every block once."""
        return self._stack_rows(self.table)

    def read_shuffled(self, seed: int, first: int, last: int) -> tf.data.Dataset:
        """Exactly the blocks at `first` to `last`; each epoch is a permutation of its own."""
        chunks = self._stack_rows(_ShuffledEpochs(self.table, seed, first, last))

        def add_epoch(index: tf.Tensor, chunk: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            num_rows = tf.shape(chunk["example_id"], tf.int64)[0]
            return chunk | {"epoch": (first + index * BLOCKS_A_CHUNK + tf.range(num_rows)) // self.num_blocks}

        return chunks.enumerate().map(add_epoch)

    def count_texts(self) -> TextCounts:
        """Of all blocks."""
        columns, names = self.table.with_format("numpy"), self.table.column_names
        return TextCounts(
            *(int(np.sum(columns[name][:], dtype=np.int64)) for name in TextCounts._fields if name in names)
        )

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


class _ShuffledEpochs(Dataset):
    """The rows at the positions `first` to `last` of the endless sequence of a table's shuffled epochs.

    `prepare_tf_dataset` takes nothing but a `Dataset`, and asks it for its length and for rows by their
    numbers only. So no array of positions is needed, which `Dataset.select` would keep whole.
    """

    def __init__(self, table: Dataset, seed: int, first: int, last: int) -> None:
        # Without a fingerprint `datasets` would hash the whole table for one.
        super().__init__(table.data, fingerprint="shuffled-epochs")
        self._table = table.with_format("numpy")
        self._seed = seed
        self._first = first
        self._last = last

    def __len__(self) -> int:
        return self._last - self._first

    def __getitem__(self, key: slice | Sequence[int]) -> dict[str, NDArray[Any]]:
        positions = self._first + np.r_[key]
        rows: dict[str, NDArray[Any]] = self._table[order_examples(len(self._table), self._seed, positions)]
        return rows


_CIPHER_ROUNDS = 8
"""With the 4 of `tf.random.experimental.index_shuffle`, neighbours among 10^9 examples stay neighbours."""


def order_examples(num_examples: int, seed: int, positions: NDArray[np.int64]) -> NDArray[np.int64]:
    """Examples at positions of the endless sequence of shuffled epochs.

    Each is computed by itself, by a block cipher over the positions of an epoch. That costs 0.2 ms for each
    where there are 3 examples, and a thousandth from 1000 on, because the cipher has at least 16 bits.

    Args:
        num_examples: of an epoch.
        seed: 0 or more.
        positions: int64 [n].

    Returns:
        int64 [n], indices below `num_examples`.
    """
    epochs, places = np.divmod(positions, num_examples)
    epochs, epoch_of_each = np.unique(epochs, return_inverse=True)
    # The cipher takes as few as 8 bits of each word of its key, so these must depend on all of the seed.
    keys = np.array(
        [np.random.SeedSequence(seed, spawn_key=(epoch,)).generate_state(3) for epoch in epochs.tolist()]
    )
    order: NDArray[np.int64] = tf.raw_ops.RandomIndexShuffle(
        index=places, seed=keys[epoch_of_each], max_index=np.int64(num_examples - 1), rounds=_CIPHER_ROUNDS
    ).numpy()
    return order


class _BlockColumns(tf.Module):
    """Tells `prepare_tf_dataset` which columns to keep.

    It keeps the columns that `self.call` names. A Hugging Face model names what it computes with, which is
    how the stock path loses `special_tokens_mask` before any collator sees it.
    """

    def call(
        self,
        input_ids: Any,
        special_tokens_mask: Any,
        starts_word: Any,
        starts_text: Any,
        num_tokens: Any,
        example_id: Any,
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

MAX_LANES = 64
"""Places of an epoch that are read at once: so many remote reads are on their way, and buffers in memory."""

_BUFFER_BYTES = 2**18

_Tensors = dict[str, tf.Tensor]


class _Files(NamedTuple):
    """Shards as tensors, so that a dataset in a graph can open one at any block.

    Attributes:
        paths: string [num_shards].
        num_blocks: int64 [num_shards].
        strides: blocks from one offset to the next, int64 [num_shards].
        offsets: of every such block in its file, in bytes, int64 [num_shards, n]; the rest is 0.
    """

    paths: tf.Tensor
    num_blocks: tf.Tensor
    strides: tf.Tensor
    offsets: tf.Tensor

    @classmethod
    def of(cls, folder: str, shards: Sequence[Shard]) -> _Files:
        return cls(
            tf.constant([posixpath.join(folder, shard.name) for shard in shards]),
            tf.constant([shard.num_blocks for shard in shards], tf.int64),
            tf.constant([shard.offset_stride for shard in shards], tf.int64),
            tf.ragged.constant([shard.offsets for shard in shards], tf.int64).to_tensor(),
        )

    def open_lanes(
        self, num_lanes: int, window_blocks: int, first_window: tf.Tensor, seed: tf.Tensor
    ) -> Callable[[tf.Tensor], tf.data.Dataset]:
        """Shuffles the shards, and cuts them into lanes.

        Args:
            num_lanes: how many; those of lower numbers are a block longer if it does not divide the blocks.
            window_blocks: blocks of a lane that are shuffled among each other.
            first_window: where in the lanes to begin.
            seed: of the order, int64 [2].

        Returns:
            Opens the lane of a number, as windows of records, string [n].
        """
        order = tf.random.experimental.stateless_shuffle(tf.range(len(self.paths), dtype=tf.int64), seed)
        ends = tf.cumsum(tf.gather(self.num_blocks, order))

        def find_start(lane: tf.Tensor) -> tf.Tensor:
            return lane * (ends[-1] // num_lanes) + tf.minimum(lane, ends[-1] % num_lanes)

        def open_lane(lane: tf.Tensor) -> tf.data.Dataset:
            first, last = find_start(lane) + first_window * window_blocks, find_start(lane + 1)
            places = tf.searchsorted(ends, [first, last - 1], "right", tf.int64)

            def read_part(place: tf.Tensor) -> tf.data.Dataset:
                start = ends[place] - self.num_blocks[order[place]]
                return self.read(order[place], tf.maximum(first - start, 0), last - start)

            records = tf.data.Dataset.range(places[0], places[1] + 1).flat_map(read_part)
            return shuffle_windows(records, tf.random.fold_in(seed, lane), window_blocks, first_window)

        return open_lane

    def read(self, shard: tf.Tensor, first: tf.Tensor, last: tf.Tensor) -> tf.data.Dataset:
        """The records `first` to `last` of a shard, or to its end; all are int64 []."""
        stride = self.strides[shard]
        # `tf.data.TFRecordDataset` is this operation without its offset. With it, TensorFlow cannot turn the
        # dataset into a graph again, as it does to optimize it, unless it is made in a function of a graph.
        variant = tf.raw_ops.TFRecordDatasetV2(
            filenames=self.paths[shard],
            compression_type="",
            buffer_size=_BUFFER_BYTES,
            byte_offsets=self.offsets[shard, first // stride],
        )
        records = tf.data.experimental.from_variant(variant, tf.TensorSpec([], tf.string))
        return records.skip(first % stride).take(tf.minimum(last, self.num_blocks[shard]) - first)


def _take_in_turn(windows: tf.RaggedTensor) -> tf.Tensor:
    """One record of each lane, then the next of each; at the end of an epoch some lanes have one less."""
    records = tf.reshape(tf.transpose(windows.to_tensor()), [-1])
    return tf.boolean_mask(records, tf.reshape(tf.transpose(tf.sequence_mask(windows.row_lengths())), [-1]))


@dataclass(frozen=True)
class ShardedBlocks:
    """See `Blocks`.

    Attributes:
        folder: local, or of any file system that TensorFlow reads.
        shards: files in it.
        block_size: L.
        with_words: read the column `starts_word`.
        with_texts: read the column `starts_text`.
        is_packed: as in `Blocks`.
        pipeline: the number of this input pipeline among those that share the blocks.
        num_pipelines: how many they are.
    """

    folder: str
    shards: tuple[Shard, ...]
    block_size: int
    with_words: bool
    with_texts: bool = False
    is_packed: bool = True
    pipeline: int = 0
    num_pipelines: int = 1

    @classmethod
    def of_split(
        cls, folder: str, manifest: Manifest, split: str, with_words: bool = False, with_texts: bool = False
    ) -> ShardedBlocks:
        """The blocks of `train` or `validation`."""
        return cls(
            folder,
            tuple(manifest.splits[split]),
            manifest.block_size,
            with_words,
            with_texts,
            manifest.pack,
        )

    @property
    def num_blocks(self) -> int:
        """As the manifest has it."""
        return sum(shard.num_blocks for shard in self.shards)

    @property
    def num_lanes(self) -> int:
        """Lanes that `read_shuffled` cuts an epoch into: a power of two, as numbers of workers mostly are."""
        return 1 << min(MAX_LANES, len(self.shards)).bit_length() - 1

    def of_pipeline(self, number: int, num_pipelines: int) -> ShardedBlocks:
        """The share of one of several input pipelines: every `num_pipelines`-th block of `read_shuffled`."""
        num_readers = math.gcd(num_pipelines, self.num_lanes)
        if num_readers < num_pipelines:
            _LOGGER.warning(
                "%d input pipelines share %d shards, so each reads 1/%d of the bytes; if they are a power of "
                "two, and no more than the shards and %d, each reads its own share alone",
                num_pipelines,
                len(self.shards),
                num_readers,
                MAX_LANES,
            )
        return replace(self, pipeline=number, num_pipelines=num_pipelines)

    def read_in_order(self) -> tf.data.Dataset:
        """Every block once."""
        paths = [posixpath.join(self.folder, shard.name) for shard in self.shards]
        records = tf.data.TFRecordDataset(paths, buffer_size=_BUFFER_BYTES)
        return records.batch(BLOCKS_A_CHUNK).map(self._parse, num_parallel_calls=tf.data.AUTOTUNE)

    def read_shuffled(self, seed: int, first: int, last: int) -> tf.data.Dataset:
        """This pipeline's part of the endless sequence from `first` on.

        An epoch's shards are shuffled, laid end to end, and cut into lanes of one length; position p of the
        epoch lies in lane p mod `num_lanes`. Within a lane, blocks are shuffled in windows. So the order is a
        function of the seed and the manifest. Pipeline w of N takes the positions that are w modulo N, and
        opens only the lanes that those lie in, each at the window where it begins.
        """
        files = _Files.of(self.folder, self.shards)
        num_blocks, num_lanes = self.num_blocks, self.num_lanes
        window_blocks = max(1, WINDOW_BLOCKS // num_lanes)
        num_readers = math.gcd(self.num_pipelines, num_lanes)

        def read_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
            # Of the positions from `start` on, those that are `residue` modulo the number of pipelines.
            start = tf.maximum(first - epoch * num_blocks, 0)
            residue = (self.pipeline - epoch * num_blocks) % self.num_pipelines
            first_window = start // (window_blocks * num_lanes)
            windows = tf.data.Dataset.range(residue % num_readers, num_lanes, num_readers).interleave(
                files.open_lanes(num_lanes, window_blocks, first_window, tf.stack([seed % 2**63, epoch])),
                cycle_length=num_lanes // num_readers,
                block_length=1,
                num_parallel_calls=tf.data.AUTOTUNE,
                deterministic=True,
            )
            records = windows.ragged_batch(num_lanes // num_readers).map(_take_in_turn).unbatch()
            start += (residue - start) % self.num_pipelines - first_window * window_blocks * num_lanes
            share = records.skip(start // num_readers).shard(self.num_pipelines // num_readers, 0)
            return share.batch(BLOCKS_A_CHUNK).map(
                lambda chunk: self._add_epoch(self._parse(chunk), epoch), num_parallel_calls=tf.data.AUTOTUNE
            )

        return tf.data.Dataset.range(first // num_blocks, -(-last // num_blocks)).flat_map(read_epoch)

    def count_texts(self) -> TextCounts:
        """As the manifest has it."""
        return TextCounts(
            *(sum(getattr(shard, name) for shard in self.shards) for name in TextCounts._fields)
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
            files = _Files.of(self.folder, [shard])
            starts = tf.data.Dataset.range(0, shard.num_blocks, shard.offset_stride)
            for _ in starts.flat_map(lambda start: files.read(tf.zeros_like(start), start, start + 1)):
                pass
        except READING_ERRORS:
            return False
        return True

    def _parse(self, records: tf.Tensor) -> _Tensors:
        rows = name_rows(self.with_words, self.with_texts)
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
    num_pipelines = 1

    def __init__(
        self, texts: TextStream, tokenizer: PreTrainedTokenizerFast, block_format: BlockFormat
    ) -> None:
        self.is_packed = block_format.pack
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
        shuffled = shuffle_windows(blocks, tf.constant([seed % 2**63, 0], tf.int64), WINDOW_BLOCKS)
        return shuffled.unbatch().skip(first).take(last - first).batch(BLOCKS_A_CHUNK)

    def count_texts(self) -> TextCounts:
        """Of as many texts as are held out at most."""
        counts = np.zeros(len(TextCounts._fields), np.int64)
        texts = self._texts.take(HELD_OUT_OF_A_STREAM)
        for columns in pack_texts(texts, self._tokenizer, self._format):
            counts += [int(columns[name].sum()) if name in columns else 0 for name in TextCounts._fields]
        return TextCounts(*counts.tolist())

    def explain(self, error: Exception) -> UserError | None:
        """The bad row, which TensorFlow has wrapped in an error of its own."""
        del error
        return self._failure

    def _names(self) -> list[str]:
        rows = name_rows(self._format.with_words, self._format.with_texts)
        return [*rows, "num_tokens", "example_id"]

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
