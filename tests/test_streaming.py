"""A stream gives the blocks that packing writes to disk, in an order that the seed alone decides."""

import csv
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import datasets
import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from tests.pytorch_folder import write_hub_folder
from tests.tiny import SENTENCES, TINY_CONFIGS
from tests.tiny_run import cut_after
from tfmlm.cli import main
from tfmlm.config import Config, DataConfig, MaskingConfig, ModelConfig, TokenizerConfig, TrainConfig
from tfmlm.config_loading import load_config
from tfmlm.data import blocks as blocks_module
from tfmlm.data.masking import MaskableVocabulary, MaskingCollator
from tfmlm.data.packing import BlockFormat
from tfmlm.data.pipeline import make_evaluation_batches, make_training_batches
from tfmlm.data.prepare import PreparedData, explained_errors, prepare_data
from tfmlm.data.streamed_blocks import StreamedBlocks
from tfmlm.data.text_stream import TextStream
from tfmlm.errors import UserError
from tfmlm.training.setup import set_up

ROOT = Path(__file__).parent.parent
BLOCK_SIZE = 16
WINDOW = 50

Rows = dict[str, NDArray]


@pytest.fixture(autouse=True)
def own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TFMLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A window of the real size would hold a hundred epochs of these texts."""
    monkeypatch.setattr(blocks_module, "WINDOW_BLOCKS", WINDOW)


@pytest.fixture
def model_folder(tmp_path: Path, byte_tokenizer: PreTrainedTokenizerFast) -> str:
    write_hub_folder(tmp_path / "model", byte_tokenizer)
    return str(tmp_path / "model")


@pytest.fixture
def config(text_file: Path, model_folder: str) -> Config:
    return Config(
        data=DataConfig(source="text", train_files=[str(text_file)], block_size=BLOCK_SIZE, streaming=True),
        model=ModelConfig(name_or_path=model_folder),
        train=TrainConfig(max_steps=3),
    )


def change(config: Config, **settings: object) -> Config:
    return Config(**(vars(config) | {"data": DataConfig(**(vars(config.data) | settings))}))


def read(chunks: tf.data.Dataset) -> Rows:
    """All blocks of a dataset, by column."""
    columns = list(chunks.as_numpy_iterator())
    return {name: np.concatenate([chunk[name] for chunk in columns]) for name in columns[0]}


def assert_same(left: Rows, right: Rows) -> None:
    assert left.keys() == right.keys()
    for name, column in left.items():
        np.testing.assert_array_equal(column, right[name], err_msg=name)
        assert column.dtype == right[name].dtype


def slice_rows(rows: Rows, part: slice) -> Rows:
    return {name: column[part] for name, column in rows.items()}


def select_epoch(rows: Rows, epoch: int) -> Rows:
    return {name: column[rows["epoch"] == epoch] for name, column in rows.items()}


def count_rows(rows: Rows) -> Counter[tuple[object, ...]]:
    names = sorted(rows.keys() - {"epoch"})
    return Counter(zip(*([tuple(np.ravel(row)) for row in rows[name]] for name in names), strict=True))


def stream_forever(passed: list[int]) -> TextStream:
    def read_part(part: int) -> Iterator[list[str]]:
        while True:
            passed.append(len(passed))
            yield SENTENCES[:20]

    return TextStream(1, read_part, lambda: "endless")


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


# === Order ===


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


def test_a_later_step_sees_what_an_uninterrupted_run_would(config: Config) -> None:
    data = prepare_data(config)
    collator = MaskingCollator(MaskableVocabulary.from_tokenizer(data.tokenizer), config.masking, 0)
    whole = list(make_training_batches(data.train, collator, 3, 0, 40, 8).as_numpy_iterator())
    later = list(make_training_batches(data.train, collator, 3, 33, 40, 8).as_numpy_iterator())
    for one, other in zip(whole[33:], later, strict=True):
        assert_same(one, other)


# === Lazy ===


def test_no_more_of_an_endless_stream_is_read_than_a_window(
    byte_tokenizer: PreTrainedTokenizerFast,
) -> None:
    passed: list[int] = []
    endless = StreamedBlocks(stream_forever(passed), byte_tokenizer, BlockFormat(BLOCK_SIZE, 1))
    rows = read(endless.read_shuffled(0, 0, 10))
    assert len(rows["epoch"]) == 10
    assert set(rows["epoch"]) == {0}
    assert len(passed) * 20 < 3 * WINDOW * BLOCK_SIZE


def test_taking_texts_reads_no_further() -> None:
    passed: list[int] = []
    texts = stream_forever(passed)
    assert [len(batch) for batch in texts.take(50)] == [20, 20, 10]
    assert len(passed) == 3
    assert sum(map(len, texts.take(40))) == 40
    assert len(passed) == 5


def test_a_part_that_is_not_reached_is_not_read(config: Config, tmp_path: Path) -> None:
    """The second file would raise."""
    lines = [f"{number} {sentence}" for number in range(15) for sentence in SENTENCES]
    good, bad = tmp_path / "a.txt", tmp_path / "b.txt"
    good.write_text("\n".join(lines))
    bad.write_bytes(b"\xff\n")
    data = prepare_data(change(config, train_files=[str(good), str(bad)], validation_fraction=0.5))
    rows = read(data.train.read_shuffled(0, 0, 10))
    assert len(rows["input_ids"]) == 10
    assert len(read(data.validation.read_in_order())["input_ids"]) > 100


def test_at_most_a_thousand_texts_are_held_out_of_a_stream(config: Config, tmp_path: Path) -> None:
    path = tmp_path / "many.txt"
    path.write_text("\n".join(f"{number}" for number in range(3000)))
    data = prepare_data(change(config, train_files=[str(path)], validation_fraction=0.5))
    rows = read(data.validation.read_in_order())
    begins = data.tokenizer.cls_token_id
    assert int((rows["input_ids"] == begins).sum()) == 1000


# === Errors ===


@pytest.fixture
def bad_in_the_middle(config: Config, text_file: Path, tmp_path: Path) -> Config:
    """Good files around one whose third row is bad."""
    bad = tmp_path / "bad.txt"
    bad.write_bytes(b"good\nas well\nbad \xff\nlast\n")
    good, held_out = tmp_path / "good.txt", tmp_path / "held_out.txt"
    good.write_text("\n".join(SENTENCES[:60]))
    held_out.write_text("\n".join(SENTENCES[60:]))
    return change(config, train_files=[str(good), str(bad), str(text_file)], validation_files=[str(held_out)])


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


# === Whole runs ===


@pytest.fixture
def config_file(text_file: Path, model_folder: str, tmp_path: Path) -> str:
    path = tmp_path / "config.yaml"
    path.write_text(f"""
run: {{name: streamed, output_dir: {tmp_path}/run}}
data: {{source: text, train_files: [{text_file}], block_size: {BLOCK_SIZE}, streaming: true}}
model: {{name_or_path: {model_folder}, config: {{hidden_dropout_prob: 0, attention_probs_dropout_prob: 0}}}}
train: {{max_steps: 4, per_replica_batch_size: 2, checkpoint_every_steps: 2}}
export: {{enabled: false}}
""")
    return str(path)


def read_losses(run_dir: Path) -> list[tuple[str, str]]:
    with (run_dir / "logs" / "metrics.csv").open() as file:
        return [(row["step"], row["loss"]) for row in csv.DictReader(file) if row["loss"]]


@pytest.mark.slow
def test_a_streamed_run_trains_and_resumes(
    config_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tmp_path / "whole"
    assert main(["train", config_file, f"run.output_dir={whole}"]) == 0
    with monkeypatch.context() as patch:
        cut_after(3, patch)
        assert main(["train", config_file]) == os.EX_SOFTWARE
    assert not (tmp_path / "run" / "result.json").exists()
    assert main(["train", config_file]) == 0
    assert [step for step, _ in read_losses(whole)] == ["1", "2", "3", "4"]
    assert read_losses(tmp_path / "run") == read_losses(whole)
    results = [json.loads((folder / "result.json").read_text()) for folder in (whole, tmp_path / "run")]
    assert results[0]["perplexity"] == results[1]["perplexity"]
    assert [(result["steps"], result["bad_rows"]) for result in results] == [(4, 0), (4, 0)]


def test_the_result_counts_bad_rows(config_file: str, bad_in_the_middle: Config, tmp_path: Path) -> None:
    files = ",".join(bad_in_the_middle.data.train_files)
    skip = ["data.on_bad_rows=skip", f"data.train_files=[{files}]"]
    assert main(["train", config_file, *skip, "train.max_steps=1"]) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["bad_rows"] == 1
    assert f"1 bad row was left out: {tmp_path / 'bad.txt'}, row 3: not UTF-8" in " ".join(result["notes"])


def test_a_run_that_meets_a_bad_row_ends_in_one_line(
    config_file: str, bad_in_the_middle: Config, tmp_path: Path
) -> None:
    """In a process of its own, in which TensorFlow's log is as quiet as a user finds it."""
    files = ",".join(bad_in_the_middle.data.train_files)
    held_out = bad_in_the_middle.data.validation_files[0]
    overrides = [f"data.train_files=[{files}]", f"data.validation_files=[{held_out}]", "train.max_steps=60"]
    done = subprocess.run(
        [sys.executable, "-m", "tfmlm", "train", config_file, *overrides],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    last_line = done.stderr.splitlines()[-1]
    assert last_line.startswith("tfmlm: text file cannot be read: ")
    assert f"{tmp_path / 'bad.txt'}, row 3: not UTF-8" in last_line
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run" / "result.json").exists()


def test_a_stream_needs_max_steps(config_file: str) -> None:
    with pytest.raises(UserError, match=r"train\.max_steps is empty; set it, because data\.streaming"):
        set_up(load_config(config_file, ["train.max_steps=null"]))


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
