"""Rows of Parquet and of gzip, whole, damaged and cut off."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from tests.data.source_files import (
    ROW_TEXTS,
    assert_one_bad_row,
    drop_blank,
    number_bad_rows,
    read_file,
    texts_of,
    write,
    write_parquet,
)
from tfmlm.config import DataConfig
from tfmlm.data.files import find_bad_row


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all of hypothesis's examples."""
    return tmp_path_factory.mktemp("rows")


# === Parquet ===


@pytest.mark.parametrize("as_lists", [False, True], ids=["strings", "lists"])
def test_parquet(as_lists: bool, tmp_path: Path) -> None:
    texts = [f"text {number}" for number in range(2500)]
    path = write_parquet(
        tmp_path / "a.parquet", pa.array([text.split() for text in texts] if as_lists else texts)
    )
    assert read_file(path, "parquet") == texts


def test_parquet_without_the_column_or_with_numbers_in_it(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", pa.array([1, 2]))
    assert number_bad_rows(read_file(path, "parquet")) == {
        1: "column 'text' holds 1, not text",
        2: "column 'text' holds 2, not text",
    }
    missing = number_bad_rows(read_file(path, "parquet", text_column="te,text.body"))
    assert missing == dict.fromkeys([1, 2], "no column 'te' (the columns are: text)")


def test_bad_bytes_in_parquet(tmp_path: Path) -> None:
    values = [b"bad \xff" if number == 1500 else b"good %d" % number for number in range(2500)]
    path = write_parquet(tmp_path / "a.parquet", pa.array(values, pa.binary()).view(pa.string()))
    items = read_file(path, "parquet")
    assert_one_bad_row(items, path, 1501, "not UTF-8")
    assert texts_of(items) == [f"good {number}" for number in range(2500) if number != 1500]


def test_dates_that_python_cannot_hold(tmp_path: Path) -> None:
    """Beside the text they do no harm; within its column they make a row bad."""
    path, dates = tmp_path / "a.parquet", pa.array([0, 2**62, 1], pa.timestamp("us"))
    parquet.write_table(pa.table({"date": dates, "text": ["a", "b", "c"]}), path)
    assert read_file(path, "parquet") == ["a", "b", "c"]
    page = pa.StructArray.from_arrays([pa.array(["a", "b", "c"]), dates], ["body", "date"])
    items = read_file(write_parquet(path, page), "parquet", text_column="text.body")
    assert_one_bad_row(items, path, 2, "not readable: ")
    assert texts_of(items) == ["a", "c"]


def test_parquet_whose_pages_are_broken_in_the_middle(tmp_path: Path) -> None:
    texts = [f"text {number}" for number in range(3000)]
    path = write_parquet(tmp_path / "a.parquet", pa.array(texts), row_group_size=1000, use_dictionary=False)
    content = bytearray(path.read_bytes())
    start = parquet.read_metadata(path).row_group(1).column(0).data_page_offset
    content[start : start + 200] = b"\xff" * 200
    items = read_file(write(path, bytes(content)), "parquet")
    assert_one_bad_row(items, path, 1001, "")
    assert texts_of(items) == texts[:1000]


@pytest.mark.parametrize("content", [b"", b"PAR1 and then something else", b"PAR1", b"a\nb\n"])
def test_no_parquet_at_all(content: bytes, tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", content)
    assert_one_bad_row(read_file(path, "parquet"), path, 1, "Parquet")


@settings(deadline=None, max_examples=50)
@given(share=st.floats(0, 1, exclude_max=True))
def test_parquet_that_is_cut_off(share: float, folder: Path) -> None:
    content = write_parquet(folder / "whole.parquet", pa.array(ROW_TEXTS)).read_bytes()
    path = write(folder / "cut.parquet", content[: int(share * len(content))])
    assert_one_bad_row(read_file(path, "parquet"), path, 1, "")


# === Gzip ===


CONTENT = {
    "text": "\n".join(ROW_TEXTS),
    "json": "\n".join(json.dumps({"text": text}) for text in ROW_TEXTS),
    "csv": "\n".join(["text", *ROW_TEXTS]),
}


@pytest.mark.parametrize("name", ["a.gz", "a.jsonl", "a"])
@pytest.mark.parametrize("source", CONTENT)
def test_gzip_under_any_name(source: str, name: str, tmp_path: Path) -> None:
    path = write(tmp_path / name, gzip.compress(CONTENT[source].encode()))
    assert drop_blank(read_file(path, source)) == ROW_TEXTS


def test_gzip_of_json_with_a_bom(tmp_path: Path) -> None:
    path = write(tmp_path / "a.gz", gzip.compress(("\ufeff" + CONTENT["json"]).encode()))
    assert read_file(path, "json") == ROW_TEXTS


@pytest.mark.parametrize("sample_by", ["line", "paragraph", "document"])
@pytest.mark.parametrize("source", CONTENT)
@settings(deadline=None, max_examples=60)
@given(share=st.floats(0, 1, exclude_max=True))
@example(share=0.999)
def test_gzip_that_is_cut_off(source: str, sample_by: str, share: float, folder: Path) -> None:
    content = gzip.compress(CONTENT[source].encode())
    length = max(2, int(share * len(content)))
    path = write(folder / "cut.gz", content[:length])
    items = read_file(path, source, sample_by=sample_by)
    assert_one_bad_row(items, path, len(items), "the compressed file ends in the middle")
    if sample_by == "line":
        assert texts_of(items) == ROW_TEXTS[: len(texts_of(items))]


@pytest.mark.parametrize("at", [2, 12, 40, -8, -1], ids=["method", "start", "data", "checksum", "length"])
def test_gzip_with_a_wrong_byte(at: int, tmp_path: Path) -> None:
    content = bytearray(gzip.compress(CONTENT["text"].encode()))
    content[at] ^= 0xFF
    path = write(tmp_path / "a.gz", bytes(content))
    bad = find_bad_row([str(path)], DataConfig(source="text"))
    assert bad is not None
    assert bad.file == str(path)
