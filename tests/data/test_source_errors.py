"""A source that gives no texts is refused in one line that names the key or the file."""

from pathlib import Path

import pytest

from tests.data.source_files import TEXTS, assert_refused, write_json, write_lines

pytestmark = pytest.mark.usefixtures("own_caches")


def test_missing_column_lists_the_columns(tmp_path: Path) -> None:
    path = write_json(tmp_path / "a.jsonl", [{"title": "t", "page": {"body": "b", "n": 1}}])
    assert_refused(
        "data.text_column 'text'",
        "title, page.body, page.n",
        source="json",
        train_files=[path],
    )


@pytest.mark.parametrize(
    ("value", "described"),
    [(1, "int64"), (1.5, "float64"), (True, "bool"), ([1, 2], "int64"), (None, "null")],
    ids=str,
)
def test_a_column_that_is_not_text(value: object, described: str, tmp_path: Path) -> None:
    path = write_json(tmp_path / "a.jsonl", [{"text": value, "title": "t"}])
    assert_refused(
        f"data.text_column 'text' holds {described}", "text, title", source="json", train_files=[path]
    )


@pytest.mark.parametrize("blank", [[""], [" ", "\t"]], ids=repr)
def test_data_whose_texts_are_all_blank(blank: list[str], tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.txt", blank)
    assert_refused("holds no text in column 'text'", source="text", train_files=[path])


@pytest.mark.parametrize("source", ["json", "csv", "text", "parquet"])
def test_an_empty_file(source: str, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "empty", [])
    assert_refused(path, source=source, train_files=[path])


def test_a_csv_of_a_header_alone(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "header.csv", ["text"])
    assert_refused(path, source="csv", train_files=[path])


def test_a_glob_without_a_match(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.txt", TEXTS)
    nothing = str(tmp_path / "*.nothing")
    assert_refused(nothing, "data.train_files", source="text", train_files=[path, nothing])
    assert_refused(
        nothing, "data.validation_files", source="text", train_files=[path], validation_files=[nothing]
    )


def test_one_text_cannot_be_split(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.txt", ["only one", "  "])
    assert_refused("'text' holds 1 text", "data.validation_files", source="text", train_files=[path])


def test_a_fraction_that_leaves_nothing_to_train_on(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.txt", ["one", "two"])
    assert_refused("data.validation_fraction", source="text", train_files=[path], validation_fraction=0.9)


BROKEN = {
    "json": b'{"text": "a"}\n{"text": oops}\n',
    "csv": b"text\na\xe9\n",
    "text": b"a\xe9b\n",
    "parquet": b"PAR1 and then something else",
}


@pytest.mark.parametrize("source", BROKEN)
def test_a_broken_file(source: str, tmp_path: Path) -> None:
    path = tmp_path / "broken"
    path.write_bytes(BROKEN[source])
    assert_refused(f"{source} file cannot be read", str(path), source=source, train_files=[str(path)])


def test_files_with_other_columns(tmp_path: Path) -> None:
    paths = [
        write_json(tmp_path / "a.jsonl", [{"text": "a"}]),
        write_json(tmp_path / "b.jsonl", [{"body": "b", "number": 1}]),
    ]
    assert_refused(*paths, source="json", train_files=paths)


def test_a_dataset_that_the_hub_does_not_give() -> None:
    assert_refused(
        "data.source 'nobody/nothing'",
        "installed-docs",
        "json, csv, parquet, arrow, text",
        source="nobody/nothing",
    )


def test_a_folder_with_a_broken_file(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "train.jsonl").write_bytes(BROKEN["json"])
    assert_refused(f"data.source '{tmp_path / 'folder'}'", source=str(tmp_path / "folder"))


def test_a_folder_without_such_files(tmp_path: Path) -> None:
    write_lines(tmp_path / "notes.csv", ["not, this"])
    assert_refused("no json file matches", str(tmp_path), source="json", train_files=[str(tmp_path)])
