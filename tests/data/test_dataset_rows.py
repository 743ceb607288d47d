"""Rows of datasets, as the Hub has them, are held to the same limits as rows of files."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.data.source_files import load_all, read
from tfmlm.config import DataConfig
from tfmlm.data.sources import open_training_texts
from tfmlm.data.splitting import load_texts
from tfmlm.errors import UserError

pytestmark = pytest.mark.usefixtures("own_caches")

NUM_ROWS = 2500
LONG = {3, 1500, 1501}
GOOD = [f"text {number}" for number in range(NUM_ROWS) if number not in LONG]


def write_dataset(folder: Path, splits: dict[str, list[list[dict[str, Any]]]]) -> str:
    """A dataset of JSON lines, each split with its files."""
    for split, files in splits.items():
        (folder / split).mkdir(parents=True)
        for number, rows in enumerate(files):
            content = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / split / f"{number}.jsonl").write_text(content)
    return str(folder)


def make_rows(first: int, end: int) -> list[dict[str, Any]]:
    return [
        {"text": "long \u00e9" * 20 if number in LONG else f"text {number}", "n": number}
        for number in range(first, end)
    ]


@pytest.fixture
def one_file(tmp_path: Path) -> str:
    return write_dataset(tmp_path / "dataset", {"train": [make_rows(0, NUM_ROWS)]})


@pytest.fixture
def two_files(tmp_path: Path) -> str:
    files = [make_rows(0, 1000), make_rows(1000, NUM_ROWS)]
    return write_dataset(tmp_path / "dataset", {"train": files, "validation": [make_rows(0, 5)]})


@pytest.mark.parametrize("streaming", [False, True])
def test_a_row_that_is_too_long_is_named_with_its_dataset(streaming: bool, one_file: str) -> None:
    data = DataConfig(source=one_file, streaming=streaming, max_text_bytes=100)
    name = r"dataset, split train, row 4" if streaming else r"dataset, split train, rows 1 to 39, row 4"
    with pytest.raises(UserError, match=name) as refusal:
        read(open_training_texts(data))
    assert "it has more than 100 bytes (data.max_text_bytes)" in str(refusal.value)
    assert "data.on_bad_rows=skip" in str(refusal.value)


@pytest.mark.parametrize("streaming", [False, True])
def test_rows_that_are_too_long_are_left_out_and_counted(streaming: bool, two_files: str) -> None:
    data = DataConfig(source=two_files, streaming=streaming, max_text_bytes=100, on_bad_rows="skip")
    texts = load_texts(data, seed=0)
    for _ in range(2):  # a second epoch counts none twice
        assert read(texts.train) == GOOD
        assert read(texts.validation) == GOOD[:4]
    rows = list((texts.train.bad_rows | texts.validation.bad_rows).values())
    assert sum(row.num_rows for row in rows) == len(LONG) + 1
    numbers = sorted(row.row for row in rows if "split train" in row.file)
    assert numbers == ([4, 501] if streaming else [4, 1501])
    if streaming:
        assert {row.file.partition("split ")[2] for row in rows} == {
            "train, shard 1 of 2",
            "train, shard 2 of 2",
            "validation",
        }


def test_the_limit_counts_bytes_and_the_longest_is_allowed(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "dataset", {"train": [[{"text": "\u00e9" * 50}, {"text": "ab"}]]})
    assert len(load_all(source=folder, max_text_bytes=100, validation_fraction=0.5, seed=1)) == 2
    with pytest.raises(UserError, match="more than 99 bytes"):
        read(open_training_texts(DataConfig(source=folder, max_text_bytes=99)))


def test_lists_and_several_columns_are_measured_when_joined(tmp_path: Path) -> None:
    rows = [{"a": ["x" * 30, "y" * 30], "b": {"c": "z" * 30}}, {"a": [], "b": {"c": "short"}}]
    folder = write_dataset(tmp_path / "dataset", {"train": [rows]})
    settings = {"source": folder, "text_column": "a,b.c", "on_bad_rows": "skip"}
    assert read(open_training_texts(DataConfig(**settings, max_text_bytes=91))) == ["short"]
    assert len(read(open_training_texts(DataConfig(**settings, max_text_bytes=92)))) == 2


def test_skipping_and_the_limit_tell_caches_apart(one_file: str) -> None:
    prints = {
        open_training_texts(
            DataConfig(source=one_file, on_bad_rows="skip", max_text_bytes=most)
        ).fingerprint()
        for most in (100, 200)
    }
    assert len(prints) == 2
