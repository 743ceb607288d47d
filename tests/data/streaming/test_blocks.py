"""A stream gives the blocks that packing writes to disk."""

import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.data.streaming.streamed import (
    BLOCK_SIZE,
    WINDOW,
    assert_same,
    change,
    count_rows,
    read,
    select_epoch,
)
from tests.tiny import SENTENCES
from tfmlm.config import Config, MaskingConfig, TokenizerConfig
from tfmlm.data.blocks import StreamedBlocks
from tfmlm.data.masking import MaskableVocabulary, MaskingCollator
from tfmlm.data.pipeline import make_evaluation_batches, make_training_batches
from tfmlm.data.prepare import prepare_data

# === The same blocks as on disk ===


@pytest.mark.parametrize("whole_word", [False, True])
@pytest.mark.parametrize("drop_remainder", [False, True])
def test_a_stream_gives_the_packed_blocks(whole_word: bool, drop_remainder: bool, config: Config) -> None:
    both = []
    for streaming in (True, False):
        data = change(config, streaming=streaming, drop_remainder=drop_remainder)
        both.append(prepare_data(Config(**(vars(data) | {"masking": MaskingConfig(whole_word=whole_word)}))))
    streamed, packed = both
    assert isinstance(streamed.train, StreamedBlocks)
    assert packed.train.num_blocks
    for one, other in ((streamed.train, packed.train), (streamed.validation, packed.validation)):
        rows = read(one.read_in_order())
        assert_same(rows, read(other.read_in_order()))
        assert ("starts_word" in rows) is whole_word
        assert bool(np.all(rows["num_tokens"] == BLOCK_SIZE)) is drop_remainder
        for blocks, last in ((one, other.num_blocks + WINDOW), (other, other.num_blocks)):
            shuffled = read(blocks.read_shuffled(0, 0, last))
            assert count_rows(select_epoch(shuffled, 0)) == count_rows(rows)


def test_nothing_is_written_to_disk(config: Config, tmp_path: Path) -> None:
    def list_files() -> set[Path]:
        return {path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"}

    before = list_files()
    trained = Config(**(vars(config) | {"tokenizer": TokenizerConfig(train_vocab_size=200)}))
    for data in (prepare_data(config), prepare_data(trained)):
        assert data.train.num_blocks is None
        read(data.train.read_in_order())
    assert list_files() == before


# === Batches ===


@pytest.mark.parametrize("whole_word", [False, True])
def test_batches_have_static_shapes(whole_word: bool, config: Config) -> None:
    masking = MaskingConfig(whole_word=whole_word)
    data = prepare_data(Config(**(vars(config) | {"masking": masking})))
    collator = MaskingCollator(MaskableVocabulary.from_tokenizer(data.tokenizer), masking, 0)
    training = make_training_batches(data.train, collator, 0, 2, 6, 8)
    for batches in (training, make_evaluation_batches(data.validation, collator, 8)):
        assert set(batches.element_spec) == {"input_ids", "attention_mask", "labels"}
        for spec in batches.element_spec.values():
            assert (spec.shape, spec.dtype) == (tf.TensorShape([8, BLOCK_SIZE]), tf.int32)
        for batch in batches:
            assert batch["labels"].shape == (8, BLOCK_SIZE)
            assert (batch["labels"].numpy() >= 0).any()
    assert len(list(training)) == 4


# === Datasets in the Hub's layout ===


@pytest.fixture
def dataset_folder(tmp_path: Path) -> str:
    folder = tmp_path / "dataset"
    folder.mkdir()
    for split, texts in {"train": SENTENCES[:200], "validation": SENTENCES[200:]}.items():
        lines = (json.dumps({"text": text}) for text in texts)
        (folder / f"{split}.jsonl").write_text("\n".join(lines))
    return str(folder)


def test_a_dataset_streams(dataset_folder: str, config: Config) -> None:
    settings = {"source": dataset_folder, "train_files": []}
    streamed, packed = (prepare_data(change(config, streaming=on, **settings)) for on in (True, False))
    assert streamed.train.num_blocks is None
    for part in ("train", "validation"):
        mine, expected = (read(getattr(data, part).read_in_order()) for data in (streamed, packed))
        assert_same(mine, expected)


def test_the_first_texts_of_a_dataset_that_streams(dataset_folder: str, config: Config) -> None:
    data = prepare_data(change(config, source=dataset_folder, train_files=[], max_rows=7))
    rows = read(data.train.read_in_order())
    tokens = np.concatenate([row[:n] for row, n in zip(rows["input_ids"], rows["num_tokens"], strict=True)])
    expected = [token for text in SENTENCES[:7] for token in data.tokenizer(text)["input_ids"]]
    assert list(islice(tokens, len(expected) + 1)) == expected
