"""The seed alone decides the order of a stream, and where one starts later changes nothing."""

import numpy as np
import pytest
import tensorflow as tf
from transformers import PreTrainedTokenizerFast

from tests.data.streaming.streamed import (
    BLOCK_SIZE,
    WINDOW,
    Rows,
    assert_same,
    count_rows,
    read,
    select_epoch,
)
from tests.tiny import SENTENCES
from tfmlm.config import Config
from tfmlm.data.blocks import StreamedBlocks
from tfmlm.data.masking import MaskableVocabulary, MaskingCollator
from tfmlm.data.packing import BlockFormat
from tfmlm.data.pipeline import make_training_batches
from tfmlm.data.prepare import prepare_data
from tfmlm.data.text_stream import TextStream


def slice_rows(rows: Rows, part: slice) -> Rows:
    return {name: column[part] for name, column in rows.items()}


@pytest.fixture
def stream(byte_tokenizer: PreTrainedTokenizerFast) -> StreamedBlocks:
    batches = [SENTENCES[start : start + 9] for start in range(0, 45, 9)]
    texts = TextStream(1, lambda part: iter(batches), lambda: "of a test")
    return StreamedBlocks(texts, byte_tokenizer, BlockFormat(BLOCK_SIZE, pad_token_id=1))


@pytest.mark.parametrize("first", [1, WINDOW - 1, WINDOW, 2 * WINDOW + 7])
def test_starting_later_equals_skipping(first: int, stream: StreamedBlocks) -> None:
    whole = read(stream.read_shuffled(5, 0, 3 * WINDOW))
    assert_same(read(stream.read_shuffled(5, first, 3 * WINDOW)), slice_rows(whole, slice(first, None)))
    assert_same(read(stream.read_shuffled(5, 0, first)), slice_rows(whole, slice(first)))


def test_the_seed_decides_the_order(stream: StreamedBlocks) -> None:
    tf.random.set_seed(1)
    one = read(stream.read_shuffled(5, 0, WINDOW))
    tf.random.set_seed(2)
    assert_same(one, read(stream.read_shuffled(5, 0, WINDOW)))
    for seed in (6, -5, 2**63 + 4):
        other = read(stream.read_shuffled(seed, 0, WINDOW))
        assert (other["example_id"] != one["example_id"]).any()
        assert count_rows(other) == count_rows(one)
    in_order = read(stream.read_in_order())
    assert (one["example_id"][:20] != in_order["example_id"][:20]).any()


def test_windows_are_shuffled_differently(stream: StreamedBlocks) -> None:
    rows = read(stream.read_shuffled(5, 0, 4 * WINDOW))
    num_blocks = len(read(stream.read_in_order())["example_id"])
    places = rows["epoch"] * num_blocks + rows["example_id"]
    windows = places.reshape(4, WINDOW)
    np.testing.assert_array_equal(np.sort(windows), np.arange(4 * WINDOW).reshape(4, WINDOW))
    assert len({tuple(window - window.min()) for window in windows}) == 4


def test_each_epoch_holds_every_block_once(stream: StreamedBlocks) -> None:
    in_order = read(stream.read_in_order())
    num_blocks = len(in_order["example_id"])
    rows = read(stream.read_shuffled(5, 0, 4 * WINDOW))
    assert rows["epoch"].dtype == np.int64
    finished = range(4 * WINDOW // num_blocks)
    assert len(finished) >= 2
    for epoch in finished:
        assert count_rows(select_epoch(rows, epoch)) == count_rows(in_order)


def test_a_later_step_sees_what_an_uninterrupted_run_would(config: Config) -> None:
    data = prepare_data(config)
    collator = MaskingCollator(MaskableVocabulary.from_tokenizer(data.tokenizer), config.masking, 0)
    whole = list(make_training_batches(data.train, collator, 3, 0, 40, 8).as_numpy_iterator())
    later = list(make_training_batches(data.train, collator, 3, 33, 40, 8).as_numpy_iterator())
    for one, other in zip(whole[33:], later, strict=True):
        assert_same(one, other)
