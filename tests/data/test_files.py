"""A good file gives the texts that were written, whatever is to become of bad rows."""

import bz2
import csv
import gzip
import io
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from tests.data.source_files import read, write
from tfmlm.config import DataConfig
from tfmlm.data import files
from tfmlm.data.sources import open_training_texts
from tfmlm.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all of hypothesis's examples."""
    return tmp_path_factory.mktemp("files")


def read_texts(path: Path, source: str, on_bad_rows: str, **options: str) -> list[str]:
    data = DataConfig(source=source, train_files=[str(path)], on_bad_rows=on_bad_rows, **options)
    stream = open_training_texts(data)
    texts = read(stream)
    assert not stream.bad_rows
    return texts


# === What is written is read ===


WORDS = [
    "NA",
    "null",
    "None",
    "nan",
    "true",
    "False",
    "1",
    "-1.5",
    "1e9",
    "007",
    "inf",
    "2020-01-31",
    "12:30",
]
WORDS += ["2020-01-31T10:00:00Z", "2020-01-31 10:00:00", "[1, 2]", '{"a": 1}', "\\N", "#N/A", "0x1F", "1,5"]
LETTERS = st.characters(codec="utf-8")
PIECES = st.sampled_from(
    [*WORDS, ",", '"', '""', "\n", "\r\n", "\r", "\t", " ", "\u2028", "\x00", "a", "\u4e2d"]
)
texts = st.sampled_from(WORDS) | st.lists(PIECES | st.text(LETTERS, max_size=4), max_size=9).map("".join)


def write_json_lines(rows: list[str]) -> bytes:
    return "\n".join(json.dumps({"n": n, "text": row}) for n, row in enumerate(rows)).encode()


def write_json_list(rows: list[str]) -> bytes:
    return json.dumps([{"text": row, "n": n} for n, row in enumerate(rows)], ensure_ascii=False).encode()


def write_csv(rows: list[str]) -> bytes:
    content = io.StringIO(newline="")
    csv.writer(content).writerows([["n", "text", "more"], *([n, row, row] for n, row in enumerate(rows))])
    return content.getvalue().encode()


def write_csv_column(rows: list[str]) -> bytes:
    content = io.StringIO(newline="")
    csv.writer(content, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows(
        [["text"], *([row] for row in rows)]
    )
    return content.getvalue().encode()


def write_parquet(rows: list[str]) -> bytes:
    content = io.BytesIO()
    parquet.write_table(pa.table({"n": range(len(rows)), "text": rows}), content, row_group_size=2)
    return content.getvalue()


def write_lines(rows: list[str]) -> bytes:
    return "".join(f"{row}\n" for row in rows).encode()


FORMATS = {
    "json lines": ("json", write_json_lines),
    "json list": ("json", write_json_list),
    "csv": ("csv", write_csv),
    "csv of one column": ("csv", write_csv_column),
    "parquet": ("parquet", write_parquet),
    "text": ("text", write_lines),
}


@pytest.mark.parametrize("on_bad_rows", ["error", "skip"])
@pytest.mark.parametrize("form", FORMATS)
@settings(deadline=None, max_examples=60)
@given(
    rows=st.lists(texts, min_size=1, max_size=6),
    compress=st.sampled_from([bytes, gzip.compress, bz2.compress, lzma.compress]),
    chunk_bytes=st.sampled_from([3, 20, 1 << 20]),
)
def test_texts_are_read_as_they_were_written(
    form: str,
    on_bad_rows: str,
    rows: list[str],
    compress: Callable[[bytes], bytes],
    chunk_bytes: int,
    folder: Path,
) -> None:
    source, encode = FORMATS[form]
    if source == "text":
        rows = [row.replace("\r", " ").replace("\n", " ") for row in rows]
    content = encode(rows)
    if source != "parquet":
        content = compress(content)
    path = write(folder / "a", content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "_CHUNK_BYTES", chunk_bytes)
        assert read_texts(path, source, on_bad_rows) == [row for row in rows if row.strip()]


@pytest.mark.parametrize("on_bad_rows", ["error", "skip"])
@pytest.mark.parametrize("source", ["json", "csv"])
@settings(deadline=None, max_examples=40)
@given(word=st.sampled_from(WORDS), num_rows=st.integers(1, 4))
def test_a_column_of_words_that_look_like_something_else(
    source: str, on_bad_rows: str, word: str, num_rows: int, folder: Path
) -> None:
    encode = write_csv if source == "csv" else write_json_lines
    path = write(folder / "a", encode([word] * num_rows))
    assert read_texts(path, source, on_bad_rows) == [word] * num_rows


@pytest.mark.parametrize("on_bad_rows", ["error", "skip"])
@settings(deadline=None, max_examples=30)
@given(rows=st.lists(texts, min_size=1, max_size=6), blank=st.text(" \n", max_size=3))
def test_paragraphs_and_documents(on_bad_rows: str, rows: list[str], blank: str, folder: Path) -> None:
    rows = [row.replace("\r", "").replace("\n", "") for row in rows]
    rows = [row for row in rows if row.strip()]
    assume(rows)
    path = write(folder / "a.txt", "\n\n".join(rows))
    assert read_texts(path, "text", on_bad_rows, sample_by="paragraph") == rows
    path = write(folder / "a.txt", blank + "\n".join(rows))
    assert read_texts(path, "text", on_bad_rows, sample_by="document") == [blank + "\n".join(rows)]


@pytest.mark.parametrize("on_bad_rows", ["error", "skip"])
@settings(deadline=None, max_examples=40)
@given(rows=st.lists(st.tuples(texts, texts), min_size=1, max_size=5))
@pytest.mark.parametrize("source", ["json", "csv", "parquet"])
def test_several_columns_are_joined(
    source: str, on_bad_rows: str, rows: list[tuple[str, str]], folder: Path
) -> None:
    assume(all(any(part) for part in zip(*rows, strict=True)))
    if source == "json":
        content = "\n".join(json.dumps({"a": a, "b.c": b}) for a, b in rows).encode()
    elif source == "csv":
        lines = io.StringIO(newline="")
        csv.writer(lines).writerows([["b.c", "n", "a"], *([b, 1, a] for a, b in rows)])
        content = lines.getvalue().encode()
    else:
        table = io.BytesIO()
        parquet.write_table(pa.table(dict(zip(["a", "b.c"], zip(*rows, strict=True), strict=True))), table)
        content = table.getvalue()
    joined = [" ".join(filter(None, row)) for row in rows]
    path = write(folder / "a", content)
    found = read_texts(path, source, on_bad_rows, text_column="a, b.c")
    assert found == [text for text in joined if text.strip()]


# === The quick way through CSV and the one by row ===


def read_csv_by_row(path: Path) -> list[object]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "_read_plain_csv", lambda content, names: iter([]))
        return list(files.read_rows(str(path), DataConfig(source="csv")))


@settings(deadline=None, max_examples=400)
@given(
    content=st.lists(
        st.sampled_from(
            [b",", b'"', b'""', b"\n", b"\r\n", b"\r", b"a", b"\xff", b"\x00", b"text", b" ", b","]
        ),
        max_size=30,
    ).map(b"".join),
    header=st.sampled_from(
        [b"text\n", b"text,n\r\n", b"n,text\n", b'"text",n\n', b"\ntext\n", b"text", b"\xef\xbb\xbftext\r"]
    ),
    chunk_bytes=st.sampled_from([1, 7, 30, 1 << 20]),
    is_gzip=st.booleans(),
)
def test_any_csv_is_read_as_by_row(
    content: bytes, header: bytes, chunk_bytes: int, is_gzip: bool, folder: Path
) -> None:
    content = header + content
    path = write(folder / "a.csv", gzip.compress(content) if is_gzip else content)
    expected = read_csv_by_row(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "_CHUNK_BYTES", chunk_bytes)
        assert list(files.read_rows(str(path), DataConfig(source="csv"))) == expected


@settings(deadline=None, max_examples=60)
@given(share=st.floats(0, 1, exclude_max=True), chunk_bytes=st.sampled_from([7, 100, 1 << 20]))
def test_no_row_before_the_end_of_a_cut_gzip_is_lost(share: float, chunk_bytes: int, folder: Path) -> None:
    content = gzip.compress(write_csv([f'"row", number\n{number}' for number in range(500)]))
    path = write(folder / "a.csv", content[: max(2, int(share * len(content)))])
    expected = read_csv_by_row(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "_CHUNK_BYTES", chunk_bytes)
        assert list(files.read_rows(str(path), DataConfig(source="csv"))) == expected


@pytest.mark.parametrize("padding", range(16))
def test_line_ends_within_quotes_stay_as_they_are(padding: int, tmp_path: Path) -> None:
    """Arrow loses a line feed where one of its blocks ends with the carriage return before it."""
    rows = ["x" * (padding + 1), *["a\r\n\r\nb"] * 40]
    path = write(tmp_path / "a.csv", write_csv_column(rows))
    assert read_texts(path, "csv", "error") == rows


def test_the_quick_way_is_taken(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    path = write(folder / "a.csv", write_csv(["plain", 'with "quotes", and\nlines'] * 100))
    monkeypatch.setattr(files, "_CHUNK_BYTES", 64)
    monkeypatch.setattr(files, "_to_text", None)
    assert len(read_texts(path, "csv", "error")) == 200


# === Rows without the column ===


def test_a_row_that_lacks_the_column_is_empty_or_bad(tmp_path: Path) -> None:
    rows: list[object] = [{"other": 1}, {"text": None}, {"text": "a"}, {"other": 2}, {"text": "b"}]
    path = write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)))
    assert read_texts(path, "json", "error") == ["a", "b"]
    stream = open_training_texts(DataConfig(source="json", train_files=[str(path)], on_bad_rows="skip"))
    assert read(stream) == ["a", "b"]
    assert stream.bad_rows[str(path)].num_rows == 2


def test_a_row_that_lacks_one_of_the_columns_has_the_others(tmp_path: Path) -> None:
    rows = [
        {"a": "1", "b": [{"c": "2"}, {"d": "3"}, {"c": "4"}]},
        {"a": "5"},
        {"b": [{"c": "6"}]},
        {"a": None},
    ]
    path = write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)))
    assert read_texts(path, "json", "error", text_column="a,b.c") == ["1 2 4", "5", "6"]


@pytest.mark.parametrize("on_bad_rows", ["error", "skip"])
def test_columns_beside_the_text_may_hold_anything(on_bad_rows: str, tmp_path: Path) -> None:
    others = [1, "a", [1, "a"], {"b": {}}, 2**70, None, [[{"c": 1}, {"c": "d"}]], 1.5, True]
    rows = [{"text": f"{number}", "other": other} for number, other in enumerate(others)]
    path = write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)))
    assert read_texts(path, "json", on_bad_rows) == [f"{number}" for number in range(len(others))]


def test_the_columns_of_unlike_rows_are_listed(tmp_path: Path) -> None:
    rows: list[object] = [{"a": None, "b": [{"c": 1}]}, {"a": {"d": 1.5}, "b": [{"e": "x"}]}, {"f": [1, "x"]}]
    path = write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)))
    with pytest.raises(UserError, match=r"'text' does not exist; the columns are: a\.d, b\.c, b\.e, f$"):
        read_texts(path, "json", "error")
    with pytest.raises(UserError, match=r"'a\.d' holds float64, not text"):
        read_texts(path, "json", "error", text_column="a.d")


@pytest.mark.parametrize("source", ["json", "csv", "parquet"])
def test_a_later_file_of_other_columns_is_named(source: str, tmp_path: Path) -> None:
    encode = {"json": write_json_lines, "csv": write_csv, "parquet": write_parquet}[source]
    good, other = write(tmp_path / "good", encode(["a", "b"])), tmp_path / "other"
    if source == "parquet":
        parquet.write_table(pa.table({"body": ["a"]}), other)
    else:
        write(other, '{"body": "a"}\n' if source == "json" else "body\na\n")
    stream = open_training_texts(DataConfig(source=source, train_files=[str(good), str(other)]))
    with pytest.raises(UserError, match=f"{other}, row [12]: its columns are not those of {good};"):
        read(stream)


def test_a_column_that_parquet_has_twice(tmp_path: Path) -> None:
    parquet.write_table(pa.table([["a"], ["b"], ["c"]], names=["text", "text", "body"]), tmp_path / "a")
    with pytest.raises(UserError, match="a, row 1: column 'text' is there more than once;"):
        read_texts(tmp_path / "a", "parquet", "error")
    assert read_texts(tmp_path / "a", "parquet", "error", text_column="body") == ["c"]


def test_a_first_file_without_rows_is_passed_over(tmp_path: Path) -> None:
    empty, good = write(tmp_path / "empty", "\n"), write(tmp_path / "good", write_json_lines(["a"]))
    assert read(open_training_texts(DataConfig(source="json", train_files=[str(empty), str(good)]))) == ["a"]


def test_lists_too_deep_to_follow_are_a_bad_row() -> None:
    """Where JSON's own reader follows them, as from Python 3.12."""
    deep: object = "a"
    for _ in range(5000):
        deep = [deep]
    bad = files._to_text({"text": deep}, ["text"], 2**24)
    assert isinstance(bad, files.BadRow)
    assert "recursion" in bad.reason
