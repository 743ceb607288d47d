"""Blocks that are tokenized and packed while training reads them; nothing is written to disk."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from transformers import PreTrainedTokenizerFast

from tfmlm.data.blocks import BLOCKS_A_CHUNK, shuffle_windows
from tfmlm.data.packing import NO_TOKENS, BlockFormat, Columns, pack_texts
from tfmlm.data.text_stream import TextStream
from tfmlm.errors import UserError


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
                        name: column.astype(np.int32) if column.dtype == np.bool_ else column
                        for name, column in columns.items()
                    } | {"epoch": np.full_like(columns["example_id"], epoch)}
                if columns is None:
                    raise UserError(NO_TOKENS)
                epoch += 1
        except UserError as error:
            self._failure = error
            raise
