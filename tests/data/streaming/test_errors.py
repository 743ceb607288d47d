"""A bad row of a stream is named, or skipped and counted; other errors stay what they are."""

from pathlib import Path

import pytest
import tensorflow as tf
from transformers import PreTrainedTokenizerFast

from tests.data.streaming.streamed import BLOCK_SIZE, change, read
from tests.tiny import TINY_CONFIGS
from tfmlm.config import Config, ModelConfig, TokenizerConfig
from tfmlm.data.blocks import StreamedBlocks
from tfmlm.data.packing import BlockFormat
from tfmlm.data.prepare import PreparedData, explained_errors, prepare_data
from tfmlm.data.text_stream import TextStream
from tfmlm.errors import UserError
from tfmlm.training.setup import set_up


def read_all(data: PreparedData) -> None:
    with explained_errors(data):
        read(data.train.read_in_order())


def test_a_bad_row_of_a_stream_is_named(bad_in_the_middle: Config, tmp_path: Path) -> None:
    data = prepare_data(bad_in_the_middle)
    with pytest.raises(UserError, match="text file cannot be read") as refusal:
        read_all(data)
    assert f"{tmp_path / 'bad.txt'}, row 3: not UTF-8 at character 5" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_other_errors_are_not_explained(config: Config) -> None:
    data = prepare_data(config)
    with pytest.raises(tf.errors.AbortedError), explained_errors(data):
        raise tf.errors.AbortedError(None, None, "of something else")


def test_texts_without_a_token_are_refused(byte_tokenizer: PreTrainedTokenizerFast) -> None:
    """Instead of reading them for ever."""
    nothing = StreamedBlocks(
        TextStream(1, lambda part: iter([]), str), byte_tokenizer, BlockFormat(BLOCK_SIZE, 1)
    )
    with pytest.raises(tf.errors.OpError, match="makes no token"):
        read(nothing.read_shuffled(0, 0, 1))
    assert str(nothing.explain(ValueError())).startswith("the tokenizer makes no token")


def test_a_bad_row_of_a_stream_is_skipped_and_counted(bad_in_the_middle: Config, tmp_path: Path) -> None:
    data = prepare_data(change(bad_in_the_middle, on_bad_rows="skip"))
    read_all(data)
    (row,) = data.bad_rows.values()
    assert (row.file, row.row, row.num_rows) == (str(tmp_path / "bad.txt"), 3, 1)


def test_a_bad_row_of_held_out_texts_is_counted_too(bad_in_the_middle: Config, tmp_path: Path) -> None:
    files = bad_in_the_middle.data
    data = prepare_data(
        change(
            bad_in_the_middle,
            on_bad_rows="skip",
            train_files=files.validation_files,
            validation_files=files.train_files,
        )
    )
    read(data.train.read_in_order())
    assert not data.bad_rows
    read(data.validation.read_in_order())
    (row,) = data.bad_rows.values()
    assert (row.file, row.row, row.num_rows) == (str(tmp_path / "bad.txt"), 3, 1)


def test_a_bad_row_that_is_met_while_tokens_are_counted_is_named(
    bad_in_the_middle: Config, tmp_path: Path
) -> None:
    tokenizer = TokenizerConfig(name_or_path=bad_in_the_middle.model.name_or_path)
    new = ModelConfig(config={"model_type": "bert"} | TINY_CONFIGS["bert"])
    with pytest.raises(UserError, match="text file cannot be read") as refusal:
        set_up(Config(**vars(bad_in_the_middle) | {"tokenizer": tokenizer, "model": new}))
    assert f"{tmp_path / 'bad.txt'}, row 3: not UTF-8 at character 5" in str(refusal.value)
