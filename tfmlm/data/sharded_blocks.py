"""Blocks in TFRecord shards, read by `tf.data` alone, as the workers of a TPU pod need it."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, replace

import tensorflow as tf

from tfmlm.data.blocks import BLOCKS_A_CHUNK, shuffle_windows
from tfmlm.data.shards import Manifest, Shard, find_corrupt_shard
from tfmlm.errors import UserError

READING_ERRORS = (tf.errors.OpError, UnicodeDecodeError)
"""What a record that is no block raises: TensorFlow puts it into the message, and decodes that as UTF-8."""

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
