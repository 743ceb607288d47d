"""Folders of `save_to_disk` are read as the datasets that they are, and nothing outside of them is."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetDict, load_from_disk

from tests.data.source_files import TEXTS, assert_refused, load_all, read
from tfmlm.config import DataConfig
from tfmlm.data.sources import open_training_texts
from tfmlm.data.splitting import load_texts
from tfmlm.errors import UserError

pytestmark = pytest.mark.usefixtures("own_caches")


def make_dataset(texts: list[str]) -> Dataset:
    return Dataset.from_dict({"text": texts, "number": list(range(len(texts)))})


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A Dataset in three files."""
    make_dataset(TEXTS).save_to_disk(tmp_path / "saved", num_shards=3)
    return tmp_path / "saved"


@pytest.fixture
def splits(tmp_path: Path) -> Path:
    """A DatasetDict, one of whose splits has two files."""
    parts = {"train": TEXTS[:12], "validation": TEXTS[12:16], "test": TEXTS[16:]}
    folder = tmp_path / "splits"
    datasets = DatasetDict({name: make_dataset(texts) for name, texts in parts.items()})
    datasets.save_to_disk(folder, num_shards={"train": 2, "validation": 1, "test": 1})
    return folder


def edit_json(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def read_split(folder: Path, split: str) -> list[str]:
    return read(open_training_texts(DataConfig(source=str(folder), split=split)))


@pytest.mark.parametrize("streaming", [False, True])
def test_a_dataset_is_read_whole(streaming: bool, saved: Path) -> None:
    assert read(open_training_texts(DataConfig(source=str(saved), streaming=streaming))) == TEXTS
    assert load_all(source=str(saved), streaming=streaming) == sorted(TEXTS)


def test_a_dataset_dict_holds_out_its_own_validation_split(splits: Path) -> None:
    texts = load_texts(DataConfig(source=str(splits)), 0)
    assert read(texts.train) == TEXTS[:12]
    assert read(texts.validation) == TEXTS[12:16]
    texts = load_texts(DataConfig(source=str(splits), validation_split="test"), 0)
    assert read(texts.validation) == TEXTS[16:]
    texts = load_texts(DataConfig(source=str(splits), split="validation", validation_fraction=0.5), 0)
    assert sorted([*read(texts.train), *read(texts.validation)]) == TEXTS[12:16]


@pytest.mark.parametrize(
    "split",
    [
        *("train", "test", "train[:5]", "train[5:]", "train[3:9]", "train[-3:]", "train[:50%]"),
        *("train[25%:75%]", "test+train", "train[:7]+test[1:]+validation"),
    ],
)
def test_parts_of_splits_are_those_of_the_library(split: str, splits: Path) -> None:
    from datasets import ReadInstruction

    library = load_from_disk(splits)
    lengths = {name: len(dataset) for name, dataset in library.items()}
    expected = [
        text
        for part in ReadInstruction.from_spec(split).to_absolute(lengths)
        for text in library[part.splitname]["text"][part.from_ : part.to]
    ]
    assert read_split(splits, split) == expected


def test_what_was_filtered_shuffled_or_made_of_it_later_is_read_as_it_was_saved(tmp_path: Path) -> None:
    dataset = make_dataset(TEXTS).shuffle(seed=1).filter(lambda row: row["number"] % 2 == 0)
    dataset.save_to_disk(tmp_path / "saved")
    again = load_from_disk(tmp_path / "saved")
    again.map(
        lambda row: {"text": "cached " + row["text"]},
        cache_file_name=str(tmp_path / "saved" / "cache-0123456789abcdef.arrow"),
    )
    assert read_split(tmp_path / "saved", "train") == dataset["text"][:]
    files = DataConfig(source="arrow", train_files=[str(tmp_path / "saved")])
    assert read(open_training_texts(files)) == dataset["text"][:]
    folder_above = DataConfig(source="arrow", train_files=[str(tmp_path)])
    assert read(open_training_texts(folder_above)) == dataset["text"][:]


def test_a_file_of_an_earlier_save_is_not_read(saved: Path) -> None:
    make_dataset(TEXTS[:5]).save_to_disk(saved, num_shards=1)
    assert len(list(saved.glob("data-*.arrow"))) == 4
    for data in (DataConfig(source=str(saved)), DataConfig(source="arrow", train_files=[str(saved)])):
        assert read(open_training_texts(data)) == TEXTS[:5]


def test_rows_left_out_of_two_parts_of_a_file_are_counted_apart(tmp_path: Path) -> None:
    texts = ["long " * 20 if number in {1, 7, 8} else f"text {number}" for number in range(10)]
    make_dataset(texts).save_to_disk(tmp_path / "saved")
    data = DataConfig(
        source=str(tmp_path / "saved"),
        split="train[:5]",
        validation_split="train[5:]",
        on_bad_rows="skip",
        max_text_bytes=50,
    )
    opened = load_texts(data, 0)
    assert read(opened.train) == ["text 0", "text 2", "text 3", "text 4"]
    assert read(opened.validation) == ["text 5", "text 6", "text 9"]
    rows = (opened.train.bad_rows | opened.validation.bad_rows).values()
    assert sorted((row.row, row.num_rows) for row in rows) == [(2, 1), (8, 2)]


# === What is refused ===


def test_a_split_that_is_not_there_names_those_that_are(splits: Path, saved: Path) -> None:
    assert_refused("data.split 'dev'", "train, validation, test", source=str(splits), split="dev")
    assert_refused("data.validation_split 'dev'", source=str(splits), validation_split="dev")
    assert_refused("data.split 'test'", "which has train", source=str(saved), split="test")
    assert_refused("data.split 'train[5'", source=str(saved), split="train[5")
    assert_refused("'train[4:4]'", "holds no row", source=str(saved), split="train[4:4]")


def test_files_of_several_splits_are_not_mixed(splits: Path, tmp_path: Path) -> None:
    for folder in (splits, tmp_path):
        assert_refused("holds a DatasetDict", "data.train_files", source="arrow", train_files=[str(folder)])
    assert load_all(source="arrow", train_files=[str(splits / "train")]) == sorted(TEXTS[:12])


def test_its_lists_are_no_text(saved: Path) -> None:
    """`state.json` is no JSON to train on."""
    assert_refused("is a folder of save_to_disk", source="json", train_files=[str(saved)])


BROKEN_STATES: dict[str, Any] = {
    "above": {"_data_files": [{"filename": "../outside.arrow"}]},
    "absolute": {"_data_files": [{"filename": "/etc/passwd"}]},
    "a number": {"_data_files": [{"filename": 3}]},
    "none": {"_data_files": []},
    "no list": {"_data_files": "data"},
    "missing": {"_data_files": [{"filename": "data-9.arrow"}]},
    "in a folder": {"_data_files": [{"filename": "deep/a.arrow"}]},
}


@pytest.mark.parametrize("name", BROKEN_STATES)
def test_a_list_of_files_leads_nowhere_else(name: str, saved: Path) -> None:
    shutil.copy(next(saved.glob("*.arrow")), saved.parent / "outside.arrow")
    edit_json(saved / "state.json", **BROKEN_STATES[name])
    assert_refused("state.json", source=str(saved))


def test_links_out_of_the_folder_are_refused(saved: Path, splits: Path) -> None:
    file = next(saved.glob("*.arrow"))
    file.rename(saved.parent / file.name)
    file.symlink_to(saved.parent / file.name)
    assert_refused("is a link out of its folder", source=str(saved))
    (splits / "train").rename(splits.parent / "elsewhere")
    (splits / "train").symlink_to(splits.parent / "elsewhere")
    assert_refused("names the split 'train', which is no folder in it", source=str(splits))


@pytest.mark.parametrize("split", ["../saved", "/etc", "", 3])
def test_a_list_of_splits_leads_nowhere_else(split: object, splits: Path) -> None:
    edit_json(splits / "dataset_dict.json", splits=[split, "train"])
    assert_refused("dataset_dict.json names the split", source=str(splits))


@pytest.mark.parametrize("content", ["{", "[]", "null", '{"splits": 1}', "[" * 100_000])
def test_a_broken_list_of_splits(content: str, splits: Path) -> None:
    (splits / "dataset_dict.json").write_text(content)
    assert_refused("dataset_dict.json", source=str(splits))


def test_a_file_cut_short_is_named(saved: Path) -> None:
    file = sorted(saved.glob("*.arrow"))[1]
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(
        UserError, match=r"data-00001-of-00003\.arrow, row 8: it ends without the mark of its end"
    ):
        read_split(saved, "train")
    os.truncate(file, 100)
    assert_refused("data-00001-of-00003.arrow", source=str(saved), split="train[:9]")
