"""Good files are read as `datasets` does."""

import csv
import io
import json
from pathlib import Path

import pyarrow as pa
import pytest
from datasets import load_dataset
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from tests.data.source_files import drop_blank, reads_csv, select_texts, write, write_parquet
from tfmlm.config import DataConfig
from tfmlm.data.files import read_rows, split_column_names

pytestmark = pytest.mark.usefixtures("own_caches")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all of hypothesis's examples."""
    return tmp_path_factory.mktemp("rows")


PIECES = ["\n", "\n\n", "\r\n", "\r", "\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\ufeff", '"', '""']
PIECES += [
    ",",
    "'",
    "\\",
    "\\n",
    " ",
    "\t",
    "\u00a0",
    "NA",
    "null",
    "1",
    "{",
    "[",
    "\u00e9",
    "\U0001f600",
    "a",
]
texts = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=8).map("".join)
rows_of_texts = st.lists(texts, max_size=5)
newlines = st.sampled_from(["\n", "\r\n", "\n\n"])


def assert_read_as_usual(path: Path, source: str, text_column: str = "text", **options: str) -> None:
    data = DataConfig(source=source, train_files=[str(path)], text_column=text_column, **options)
    # pandas would read the words "NA" and "null" as nothing.
    settings = options if source == "text" else {"keep_default_na": False} if source == "csv" else {}
    tables = load_dataset(source, data_files=[str(path)], split="train", streaming=True, **settings)
    names = split_column_names(data)
    expected = [
        text for table in tables.with_format("arrow").iter(1000) for text in select_texts(table, names)
    ]
    assert drop_blank(list(read_rows(str(path), data))) == expected


@pytest.mark.parametrize("sample_by", ["line", "paragraph", "document"])
@settings(deadline=None, max_examples=80)
@given(content=texts)
@example(content="\n\na\n\n\n\n\nb\n\n\n")
@example(content="a\r\n\r\nb\r\rc")
@example(content="\ufeffa\nb")
def test_text_is_read_as_usual(sample_by: str, content: str, folder: Path) -> None:
    assume(content.strip())
    assert_read_as_usual(write(folder / "a.txt", content), "text", sample_by=sample_by)


@settings(deadline=None, max_examples=80)
@given(
    rows=rows_of_texts,
    newline=newlines,
    ascii_only=st.booleans(),
    start=st.sampled_from(["", "\ufeff", "\n\r\n"]),
)
def test_json_lines_are_read_as_usual(
    rows: list[str], newline: str, ascii_only: bool, start: str, folder: Path
) -> None:
    objects = [{"id": number, "text": text} for number, text in enumerate(["first", *rows])]
    lines = newline.join(json.dumps(row, ensure_ascii=ascii_only) for row in objects)
    assert_read_as_usual(write(folder / "a.jsonl", start + lines), "json")


@settings(deadline=None, max_examples=60)
@given(
    rows=rows_of_texts,
    indent=st.sampled_from([None, 2]),
    bare=st.booleans(),
    start=st.sampled_from(["", "\ufeff"]),
)
def test_a_json_list_is_read_as_usual(
    rows: list[str], indent: int | None, bare: bool, start: str, folder: Path
) -> None:
    items = ["first", *rows] if bare else [{"text": text} for text in ["first", *rows]]
    content = json.dumps(items, indent=indent, ensure_ascii=False)
    assert_read_as_usual(write(folder / "a.json", start + content), "json")


@settings(deadline=None, max_examples=40)
@given(rows=st.lists(st.none() | st.lists(texts, max_size=3), max_size=4))
def test_json_lists_of_texts_are_read_as_usual(rows: list[list[str] | None], folder: Path) -> None:
    objects = [{"answers": {"text": texts, "score": 1}} for texts in (["first"], *rows)]
    lines = "\n".join(map(json.dumps, objects))
    assert_read_as_usual(write(folder / "a.jsonl", lines), "json", text_column="answers.text")


@reads_csv
@settings(deadline=None, max_examples=80)
@given(
    rows=rows_of_texts,
    newline=st.sampled_from(["\n", "\r\n", "\r"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    start=st.sampled_from(["", "\ufeff", "\n\n"]),
    header=st.sampled_from([["id", "text"], ["id", "text", "text"]]),
)
def test_csv_is_read_as_usual(
    rows: list[str], newline: str, quoting: int, start: str, header: list[str], folder: Path
) -> None:
    content = io.StringIO(newline="")
    records = [["0", text, "second"][: len(header)] for text in ["first", *rows]]
    csv.writer(content, lineterminator=newline, quoting=quoting).writerows([header, *records])
    assert_read_as_usual(write(folder / "a.csv", start + content.getvalue()), "csv")


@settings(deadline=None, max_examples=40)
@given(rows=st.lists(st.none() | texts, max_size=5), as_lists=st.booleans())
def test_parquet_is_read_as_usual(rows: list[str | None], as_lists: bool, folder: Path) -> None:
    column = ["first", *rows]
    array = pa.array([None if text is None else [text, text] for text in column] if as_lists else column)
    assert_read_as_usual(write_parquet(folder / "a.parquet", array, row_group_size=2), "parquet")
