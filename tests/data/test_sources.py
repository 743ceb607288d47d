"""Every source gives the texts it holds, all of them."""

import csv
import gzip
import json
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from tests.data.source_files import TEXTS, load_all, read, write_json, write_lines
from tfmlm.config import DataConfig
from tfmlm.data.splitting import load_texts

pytestmark = pytest.mark.usefixtures("own_caches")


# === Formats ===


def test_json_lines(tmp_path: Path) -> None:
    path = write_json(
        tmp_path / "a.jsonl", [{"id": number, "text": text} for number, text in enumerate(TEXTS)]
    )
    assert load_all(source="json", train_files=[path]) == sorted(TEXTS)


def test_json_nested_lists_are_joined_by_a_space(tmp_path: Path) -> None:
    """The shape of ELI5, which the masked-language-modelling guide reads."""
    rows = [
        {
            "q_id": "a",
            "answers": {"a_id": ["1", "2"], "text": ["First answer.", "Second answer."], "score": [3, 1]},
        },
        {"q_id": "b", "answers": {"a_id": ["3"], "text": ["Only answer."], "score": [7]}},
        {"q_id": "c", "answers": {"a_id": ["4", "5"], "text": ["", "After an empty one."], "score": [0, 0]}},
        {"q_id": "d", "answers": {"a_id": [], "text": [], "score": []}},
        {"q_id": "e", "answers": {"a_id": ["6"], "text": None, "score": [0]}},
    ]
    path = write_json(tmp_path / "eli5.jsonl", rows)
    assert load_all(source="json", train_files=[path], text_column="answers.text") == [
        "After an empty one.",
        "First answer. Second answer.",
        "Only answer.",
    ]


def test_json_nested_strings_at_any_depth(tmp_path: Path) -> None:
    rows = [{"page": {"body": {"text": text}, "title": "t"}} for text in TEXTS]
    path = write_json(tmp_path / "a.jsonl", rows)
    assert load_all(source="json", train_files=[path], text_column="page.body.text") == sorted(TEXTS)


def test_csv(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    texts = [*TEXTS, 'quoted, with "quotes"', "two\nlines", "na\u00efve"]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["number", "body"], *enumerate(texts)])
    assert load_all(source="csv", train_files=[str(path)], text_column="body") == sorted(texts)


@pytest.mark.parametrize("string", [pa.string(), pa.large_string()], ids=str)
@pytest.mark.parametrize("as_lists", [False, True], ids=["strings", "lists"])
def test_parquet(string: pa.DataType, as_lists: bool, tmp_path: Path) -> None:
    column = (
        pa.array([text.split(" ") for text in TEXTS], pa.list_(string))
        if as_lists
        else pa.array(TEXTS, string)
    )
    parquet.write_table(pa.table({"text": column, "number": range(20)}), tmp_path / "a.parquet")
    assert load_all(source="parquet", train_files=[str(tmp_path / "a.parquet")]) == sorted(TEXTS)


def test_text_is_one_text_a_line(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.txt", [*TEXTS, "\u4e2d\u6587 \U0001f600"])
    assert load_all(source="text", train_files=[path]) == sorted([*TEXTS, "\u4e2d\u6587 \U0001f600"])


def test_gzip_files(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "a.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in TEXTS)
    assert load_all(source="json", train_files=[str(tmp_path)]) == sorted(TEXTS)


def test_whole_documents_and_paragraphs(tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / f"{number}.txt").write_text(f"first {number}\nline\n\nsecond {number}")
    documents = load_all(source="text", train_files=[str(tmp_path)], sample_by="document")
    assert documents == ["first 0\nline\n\nsecond 0", "first 1\nline\n\nsecond 1"]
    paragraphs = load_all(source="text", train_files=[str(tmp_path)], sample_by="paragraph")
    assert paragraphs == ["first 0\nline", "first 1\nline", "second 0", "second 1"]


# === Files ===


def test_globs_and_several_files_are_read_in_order(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    write_lines(tmp_path / "b.txt", ["b"])
    write_lines(tmp_path / "a.txt", ["a"])
    write_lines(tmp_path / "deep" / "er" / "c.txt", ["c"])
    write_lines(tmp_path / "other.md", ["not matched"])
    last = write_lines(tmp_path / "last.log", ["last"])
    held_out = write_lines(tmp_path / "held_out", ["held out"])
    texts = load_texts(
        DataConfig(
            source="text",
            train_files=[str(tmp_path / "*.txt"), str(tmp_path / "deep" / "**" / "*.txt"), last],
            validation_files=[held_out],
        ),
        seed=0,
    )
    assert read(texts.train) == ["a", "b", "c", "last"]


def test_validation_files_are_held_out_whole_and_nothing_else_is(tmp_path: Path) -> None:
    train, held_out = write_lines(tmp_path / "t.txt", TEXTS), write_lines(tmp_path / "v.txt", ["x", "", "y"])
    data = DataConfig(
        source="text", train_files=[train], validation_files=[held_out], validation_fraction=0.5, max_rows=15
    )
    texts = load_texts(data, seed=0)
    assert read(texts.validation) == ["x", "y"]
    assert len(read(texts.train)) == 15


def test_one_text_is_enough_beside_validation_files(tmp_path: Path) -> None:
    train, held_out = write_lines(tmp_path / "t.txt", ["one"]), write_lines(tmp_path / "v.txt", ["x"])
    texts = load_texts(DataConfig(source="text", train_files=[train], validation_files=[held_out]), seed=0)
    assert read(texts.train) == ["one"]


def test_a_file_that_changed_is_read_again(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.txt", TEXTS)
    assert load_all(source="text", train_files=[path]) == sorted(TEXTS)
    write_lines(tmp_path / "a.txt", ["other", "lines"])
    assert load_all(source="text", train_files=[path]) == ["lines", "other"]


def test_a_folder_stands_for_its_files_of_that_kind(tmp_path: Path) -> None:
    (tmp_path / "texts" / "deep").mkdir(parents=True)
    write_lines(tmp_path / "texts" / "b.txt", TEXTS[:10])
    write_lines(tmp_path / "texts" / "deep" / "a.txt", TEXTS[10:])
    write_lines(tmp_path / "texts" / "notes.csv", ["not, this"])
    assert load_all(source="text", train_files=[str(tmp_path / "texts")]) == sorted(TEXTS)


# === Rows ===


def test_blank_texts_are_dropped(tmp_path: Path) -> None:
    rows = [{"text": text} for text in ["kept", "", "  ", "\n\t", None, "\u00a0", " kept as it is "]]
    path = write_json(tmp_path / "a.jsonl", rows)
    assert load_all(source="json", train_files=[path]) == [" kept as it is ", "kept"]


def test_validation_fraction(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.txt", TEXTS)
    texts = load_texts(DataConfig(source="text", train_files=[path], validation_fraction=0.25), seed=0)
    assert 1 <= len(read(texts.validation)) <= 10
    assert sorted(read(texts.train) + read(texts.validation)) == sorted(TEXTS)


def test_max_rows_takes_a_sample_before_the_split(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.txt", TEXTS)
    some = load_all(source="text", train_files=[path], max_rows=8)
    assert len(set(some)) == 8
    assert set(some) < set(TEXTS)
    assert some != sorted(TEXTS[:8])
    assert load_all(source="text", train_files=[path], max_rows=100) == sorted(TEXTS)


def test_the_seed_chooses_the_sample_and_the_held_out_texts(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.txt", TEXTS)

    def load(seed: int) -> tuple[list[str], list[str]]:
        data = DataConfig(source="text", train_files=[path], max_rows=10, validation_fraction=0.3)
        texts = load_texts(data, seed)
        return read(texts.train), read(texts.validation)

    assert load(1) == load(1)
    assert sorted(load(1)[0] + load(1)[1]) != sorted(load(2)[0] + load(2)[1])
    assert set(load(1)[1]) != set(load(2)[1])


# === Splits ===


@pytest.fixture
def dataset_folder(tmp_path: Path) -> str:
    """A dataset with splits of its own, as the Hub has them."""
    folder = tmp_path / "dataset"
    folder.mkdir()
    for split, texts in {"train": TEXTS[:12], "validation": TEXTS[12:16], "test": TEXTS[16:]}.items():
        write_json(folder / f"{split}.jsonl", [{"text": text} for text in texts])
    return str(folder)


def test_a_datasets_own_validation_split_is_held_out(dataset_folder: str) -> None:
    texts = load_texts(DataConfig(source=dataset_folder), 0)
    assert sorted(read(texts.train)) == sorted(TEXTS[:12])
    assert sorted(read(texts.validation)) == sorted(TEXTS[12:16])


def test_another_split_can_be_held_out(dataset_folder: str) -> None:
    texts = load_texts(DataConfig(source=dataset_folder, validation_split="test", split="train[:5]"), 0)
    assert read(texts.train) == TEXTS[:5]
    assert read(texts.validation) == TEXTS[16:]


def test_training_on_the_validation_split_holds_out_a_part_of_it(dataset_folder: str) -> None:
    texts = load_texts(DataConfig(source=dataset_folder, split="validation", validation_fraction=0.5), 0)
    assert sorted([*read(texts.train), *read(texts.validation)]) == sorted(TEXTS[12:16])
