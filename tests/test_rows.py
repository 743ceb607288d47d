"""A bad row has a name, the good rows around it come through, and good files are read as `datasets` does."""

import csv
import gc
import gzip
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import datasets
import pyarrow as pa
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from tfmlm.config import DataConfig
from tfmlm.data.rows import BadRow, describe_bad_row, find_bad_row, read_rows
from tfmlm.data.sources import open_training_texts

TEXTS = [f"text number {number}" for number in range(20)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all of hypothesis's examples."""
    return tmp_path_factory.mktemp("rows")


@pytest.fixture
def left_open() -> Iterator[None]:
    """Collects the files that the CSV reader of datasets does not close while their warning is ignored."""
    yield
    gc.collect()


def reads_csv(test: Callable[..., None]) -> Callable[..., None]:
    ignored = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
    return pytest.mark.usefixtures("left_open")(ignored(test))


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def write_parquet(path: Path, column: pa.Array, **options: object) -> Path:
    parquet.write_table(pa.table({"text": column}), path, **options)
    return path


def read(path: Path, source: str, **options: str) -> list[str | BadRow]:
    return list(read_rows(str(path), DataConfig(source=source, **options)))


def drop_blank(items: list[str | BadRow]) -> list[str | BadRow]:
    return [item for item in items if isinstance(item, BadRow) or item.strip()]


def number_bad_rows(items: list[str | BadRow]) -> dict[int, str]:
    return {item.row: item.reason for item in items if isinstance(item, BadRow)}


def texts_of(items: list[str | BadRow]) -> list[str]:
    return [item for item in items if isinstance(item, str) and item.strip()]


def assert_one_bad_row(items: list[str | BadRow], path: Path, row: int, reason: str) -> None:
    """The only bad row stands where it lies, so row numbers and items agree."""
    (bad,) = (item for item in items if isinstance(item, BadRow))
    assert (bad.file, bad.row, bad.num_rows) == (str(path), row, 1)
    assert reason in bad.reason
    assert "\n" not in str(bad)
    assert items.index(bad) == row - 1


# === The same texts as the normal path ===

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


def assert_read_as_usual(path: Path, source: str, **options: str) -> None:
    data = DataConfig(source=source, train_files=[str(path)], **options)
    expected = [text for batch in open_training_texts(data) for text in batch]
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


# === Text ===


@pytest.mark.parametrize(
    ("sample_by", "between", "row"), [("line", "\n", 3), ("paragraph", "\n\n", 3), ("document", "\n\n", 1)]
)
def test_bad_bytes_in_text(sample_by: str, between: str, row: int, tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.txt", between.join(["a", "b", "c\udcffd", "e"]).encode(errors="surrogateescape")
    )
    items = read(path, "text", sample_by=sample_by)
    assert_one_bad_row(items, path, row, f"not UTF-8 at character {2 if row == 3 else 8}")
    assert texts_of(items) == (["a", "b", "e"] if row == 3 else [])


def test_every_bad_row_is_named_and_no_good_one_is_lost(tmp_path: Path) -> None:
    lines = [b"bad \xff" if number % 3 else f"good {number}".encode() for number in range(3000)]
    items = read(write(tmp_path / "a.txt", b"\n".join(lines)), "text")
    assert list(number_bad_rows(items)) == [number + 1 for number in range(3000) if number % 3]
    assert texts_of(items) == [f"good {number}" for number in range(0, 3000, 3)]


def test_a_character_cut_off_at_the_end(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "a\n\u4e2d".encode()[:-1])
    assert_one_bad_row(read(path, "text"), path, 2, "not UTF-8 at character 1")


# === JSON ===

BAD_JSON = {
    "broken": ('{"text": oops}', "not valid JSON: Expecting value"),
    "cut off": ('{"text": "a', "not valid JSON: Invalid control character"),
    "no object": ('"a"', "not a JSON object"),
    "number": ('{"text": 7}', "column 'text' holds 7, not text"),
    "list of numbers": ('{"text": ["a", 1.5]}', "column 'text' holds 1.5, not text"),
    "object": ('{"text": {"a": "b"}}', "no column 'text' (the columns are: a)"),
    "no column": ('{"title": "a", "body": "b"}', "no column 'text' (the columns are: title, body)"),
    "surrogate": (r'{"text": "a\ud800"}', "not UTF-8 at character 2"),
    "swapped surrogates": (r'{"text": "\ude00\ud83d"}', "not UTF-8 at character 1"),
    "bad byte": (b'{"text": "ab\xff"}'.decode(errors="surrogateescape"), "not UTF-8 at character 3"),
    "deep": ("[" * 100_000, "not valid JSON: maximum recursion depth exceeded"),
    "long number": ('{"text": %s}' % ("1" * 5000), "not valid JSON: Exceeds the limit"),
}


@pytest.mark.parametrize(("line", "reason"), BAD_JSON.values(), ids=BAD_JSON)
@pytest.mark.parametrize("start", ["", "\ufeff", "\n \n"], ids=["plain", "BOM", "blank lines"])
def test_a_bad_json_line(start: str, line: str, reason: str, tmp_path: Path) -> None:
    content = f'{start}{{"text": "a"}}\n\n{line}\n{{"text": null}}\n{{"text": "b"}}'
    path = write(tmp_path / "a.jsonl", content.encode(errors="surrogateescape"))
    items = read(path, "json")
    assert_one_bad_row(items, path, 3 + start.count("\n"), reason)
    assert texts_of(items) == ["a", "b"]


def test_a_bad_first_json_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '\n{"text": 1}\n{"text": "a"}\n')
    items = read(path, "json")
    assert_one_bad_row(items, path, 2, "holds 1")
    assert texts_of(items) == ["a"]


def test_surrogate_pairs_are_characters(tmp_path: Path) -> None:
    assert read(write(tmp_path / "a.jsonl", r'{"text": "\ud83d\ude00"}'), "json") == ["\U0001f600"]


def test_a_bad_item_of_a_json_list(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", r'[{"text": "a"}, {"text": "\udfff"}, {"text": "b"}]')
    items = read(path, "json")
    assert_one_bad_row(items, path, 2, "not UTF-8")
    assert texts_of(items) == ["a", "b"]
    assert number_bad_rows(read(write(path, '[{"text": "a"}, 3, ["b"], null]'), "json")) == dict.fromkeys(
        [2, 3, 4], "not a JSON object"
    )


def test_a_json_list_that_is_cut_off(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", '[{"text": "a"},\n{"text": "b"}')
    assert_one_bad_row(read(path, "json"), path, 1, "not a valid JSON list")


# === CSV ===


def test_csv_rows_are_records_and_the_header_is_the_first(tmp_path: Path) -> None:
    content = 'text,n\n"two\nlines",1\n"say ""so"", yes",2\na,b,c\nshort\nlast,3\n'
    path = write(tmp_path / "a.csv", content)
    items = read(path, "csv")
    assert_one_bad_row(items, path, 4, "3 fields, and the header has 2")
    assert texts_of(items) == ["two\nlines", 'say "so", yes', "short", "last"]


def test_a_quote_that_is_followed_by_more(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'text\na\n"b"c"\nd\ne\n')
    items = read(path, "csv")
    assert_one_bad_row(items, path, 3, "not valid CSV: ',' expected after '\"'")
    assert texts_of(items) == ["a", "d", "e"]


def test_a_quote_that_nobody_closes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'text\na\n"b\nc\n')
    items = read(path, "csv")
    assert_one_bad_row(items, path, 3, "not valid CSV: unexpected end of data")
    assert texts_of(items) == ["a"]


def test_bad_bytes_and_numbers_in_csv(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", b"text\na\xe9\n12\nb\n")
    items = read(path, "csv")
    assert_one_bad_row(items, path, 2, "not UTF-8 at character 2")
    assert texts_of(items) == ["12", "b"]


def test_csv_without_the_column(tmp_path: Path) -> None:
    items = read(write(tmp_path / "a.csv", "body,n\na,1\nb,2\n"), "csv")
    assert number_bad_rows(items) == dict.fromkeys([2, 3], "no column 'text' (the columns are: body, n)")
    assert read(tmp_path / "a.csv", "csv", text_column="body")[1:] == ["a", "b"]


@pytest.mark.parametrize("length", [131_072, 131_073, 1_000_000])
def test_csv_fields_may_be_books(length: int, tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", f'text,n\n{"x" * length},1\n"{"y" * length}",2\n')
    assert read(path, "csv")[1:] == ["x" * length, "y" * length]


# === Parquet ===


@pytest.mark.parametrize("as_lists", [False, True], ids=["strings", "lists"])
def test_parquet(as_lists: bool, tmp_path: Path) -> None:
    texts = [f"text {number}" for number in range(2500)]
    path = write_parquet(
        tmp_path / "a.parquet", pa.array([text.split() for text in texts] if as_lists else texts)
    )
    assert read(path, "parquet") == texts


def test_parquet_without_the_column_or_with_numbers_in_it(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", pa.array([1, 2]))
    assert number_bad_rows(read(path, "parquet")) == {
        1: "column 'text' holds 1, not text",
        2: "column 'text' holds 2, not text",
    }
    missing = number_bad_rows(read(path, "parquet", text_column="te,text.body"))
    assert missing == dict.fromkeys([1, 2], "no column 'te' (the columns are: text)")


def test_bad_bytes_in_parquet(tmp_path: Path) -> None:
    values = [b"bad \xff" if number == 1500 else b"good %d" % number for number in range(2500)]
    path = write_parquet(tmp_path / "a.parquet", pa.array(values, pa.binary()).view(pa.string()))
    items = read(path, "parquet")
    assert_one_bad_row(items, path, 1501, "not UTF-8")
    assert texts_of(items) == [f"good {number}" for number in range(2500) if number != 1500]


def test_dates_that_python_cannot_hold(tmp_path: Path) -> None:
    """Beside the text they do no harm; within its column they make a row bad."""
    path, dates = tmp_path / "a.parquet", pa.array([0, 2**62, 1], pa.timestamp("us"))
    parquet.write_table(pa.table({"date": dates, "text": ["a", "b", "c"]}), path)
    assert read(path, "parquet") == ["a", "b", "c"]
    page = pa.StructArray.from_arrays([pa.array(["a", "b", "c"]), dates], ["body", "date"])
    items = read(write_parquet(path, page), "parquet", text_column="text.body")
    assert_one_bad_row(items, path, 2, "not readable: ")
    assert texts_of(items) == ["a", "c"]


def test_parquet_whose_pages_are_broken_in_the_middle(tmp_path: Path) -> None:
    texts = [f"text {number}" for number in range(3000)]
    path = write_parquet(tmp_path / "a.parquet", pa.array(texts), row_group_size=1000, use_dictionary=False)
    content = bytearray(path.read_bytes())
    start = parquet.read_metadata(path).row_group(1).column(0).data_page_offset
    content[start : start + 200] = b"\xff" * 200
    items = read(write(path, bytes(content)), "parquet")
    assert_one_bad_row(items, path, 1001, "")
    assert texts_of(items) == texts[:1000]


@pytest.mark.parametrize("content", [b"", b"PAR1 and then something else", b"PAR1", b"a\nb\n"])
def test_no_parquet_at_all(content: bytes, tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", content)
    assert_one_bad_row(read(path, "parquet"), path, 1, "Parquet")


@settings(deadline=None, max_examples=50)
@given(share=st.floats(0, 1, exclude_max=True))
def test_parquet_that_is_cut_off(share: float, folder: Path) -> None:
    content = write_parquet(folder / "whole.parquet", pa.array(TEXTS)).read_bytes()
    path = write(folder / "cut.parquet", content[: int(share * len(content))])
    assert_one_bad_row(read(path, "parquet"), path, 1, "")


# === Gzip ===

CONTENT = {
    "text": "\n".join(TEXTS),
    "json": "\n".join(json.dumps({"text": text}) for text in TEXTS),
    "csv": "\n".join(["text", *TEXTS]),
}


@pytest.mark.parametrize("name", ["a.gz", "a.jsonl", "a"])
@pytest.mark.parametrize("source", CONTENT)
def test_gzip_under_any_name(source: str, name: str, tmp_path: Path) -> None:
    path = write(tmp_path / name, gzip.compress(CONTENT[source].encode()))
    assert drop_blank(read(path, source)) == TEXTS


def test_gzip_of_json_with_a_bom(tmp_path: Path) -> None:
    path = write(tmp_path / "a.gz", gzip.compress(("\ufeff" + CONTENT["json"]).encode()))
    assert read(path, "json") == TEXTS


@pytest.mark.parametrize("sample_by", ["line", "paragraph", "document"])
@pytest.mark.parametrize("source", CONTENT)
@settings(deadline=None, max_examples=60)
@given(share=st.floats(0, 1, exclude_max=True))
@example(share=0.999)
def test_gzip_that_is_cut_off(source: str, sample_by: str, share: float, folder: Path) -> None:
    content = gzip.compress(CONTENT[source].encode())
    length = max(2, int(share * len(content)))
    path = write(folder / "cut.gz", content[:length])
    items = read(path, source, sample_by=sample_by)
    assert_one_bad_row(items, path, len(items), "the compressed file ends in the middle")
    if sample_by == "line":
        assert texts_of(items) == TEXTS[: len(texts_of(items))]


@pytest.mark.parametrize("at", [2, 12, 40, -8, -1], ids=["method", "start", "data", "checksum", "length"])
def test_gzip_with_a_wrong_byte(at: int, tmp_path: Path) -> None:
    content = bytearray(gzip.compress(CONTENT["text"].encode()))
    content[at] ^= 0xFF
    path = write(tmp_path / "a.gz", bytes(content))
    bad = find_bad_row([str(path)], DataConfig(source="text"))
    assert bad is not None
    assert bad.file == str(path)


# === Several files ===


def test_the_first_bad_row_of_several_files(tmp_path: Path) -> None:
    good = write(tmp_path / "good.txt", "a\nb\n")
    bad = write(tmp_path / "bad.txt", b"a\n\xff\n\xff\n")
    worse = write(tmp_path / "worse.txt", b"\xff\n")
    data = DataConfig(source="text")
    assert find_bad_row([str(good)], data) is None
    found = find_bad_row([str(good), str(bad), str(worse)], data)
    assert found == BadRow(str(bad), 2, "not UTF-8 at character 1")
    assert str(found) == f"{bad}, row 2: not UTF-8 at character 1"


@pytest.mark.parametrize("source", ["text", "json", "csv", "parquet"])
def test_a_file_that_is_not_there(source: str, tmp_path: Path) -> None:
    path = tmp_path / "none"
    assert_one_bad_row(read(path, source), path, 1, "No such file")


def test_descriptions() -> None:
    row = BadRow("a.txt", 7, "not UTF-8 at character 1")
    assert describe_bad_row(row) == "1 bad row was left out: a.txt, row 7: not UTF-8 at character 1"
    many = describe_bad_row(row._replace(num_rows=1234))
    assert many == "1,234 bad rows were left out of a.txt; the first is row 7: not UTF-8 at character 1"
