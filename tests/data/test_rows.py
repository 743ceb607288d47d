"""A bad row has a name, and the good rows around it come through."""

from pathlib import Path

import pytest

from tests.data.source_files import assert_one_bad_row, number_bad_rows, read_file, texts_of, write
from tfmlm.config import DataConfig
from tfmlm.data.files import BadRow, describe_bad_row, find_bad_row

# === Text ===


@pytest.mark.parametrize(
    ("sample_by", "between", "row"), [("line", "\n", 3), ("paragraph", "\n\n", 3), ("document", "\n\n", 1)]
)
def test_bad_bytes_in_text(sample_by: str, between: str, row: int, tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.txt", between.join(["a", "b", "c\udcffd", "e"]).encode(errors="surrogateescape")
    )
    items = read_file(path, "text", sample_by=sample_by)
    assert_one_bad_row(items, path, row, f"not UTF-8 at character {2 if row == 3 else 8}")
    assert texts_of(items) == (["a", "b", "e"] if row == 3 else [])


def test_every_bad_row_is_named_and_no_good_one_is_lost(tmp_path: Path) -> None:
    lines = [b"bad \xff" if number % 3 else f"good {number}".encode() for number in range(3000)]
    items = read_file(write(tmp_path / "a.txt", b"\n".join(lines)), "text")
    assert list(number_bad_rows(items)) == [number + 1 for number in range(3000) if number % 3]
    assert texts_of(items) == [f"good {number}" for number in range(0, 3000, 3)]


def test_a_character_cut_off_at_the_end(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "a\n\u4e2d".encode()[:-1])
    assert_one_bad_row(read_file(path, "text"), path, 2, "not UTF-8 at character 1")


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
    items = read_file(path, "json")
    assert_one_bad_row(items, path, 3 + start.count("\n"), reason)
    assert texts_of(items) == ["a", "b"]


def test_a_bad_first_json_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '\n{"text": 1}\n{"text": "a"}\n')
    items = read_file(path, "json")
    assert_one_bad_row(items, path, 2, "holds 1")
    assert texts_of(items) == ["a"]


def test_surrogate_pairs_are_characters(tmp_path: Path) -> None:
    assert read_file(write(tmp_path / "a.jsonl", r'{"text": "\ud83d\ude00"}'), "json") == ["\U0001f600"]


def test_a_bad_item_of_a_json_list(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", r'[{"text": "a"}, {"text": "\udfff"}, {"text": "b"}]')
    items = read_file(path, "json")
    assert_one_bad_row(items, path, 2, "not UTF-8")
    assert texts_of(items) == ["a", "b"]
    assert number_bad_rows(
        read_file(write(path, '[{"text": "a"}, 3, ["b"], null]'), "json")
    ) == dict.fromkeys([2, 3, 4], "not a JSON object")


def test_a_json_list_that_is_cut_off(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", '[{"text": "a"},\n{"text": "b"}')
    items = read_file(path, "json")
    assert texts_of(items) == ["a", "b"]  # it is read item by item
    assert_one_bad_row(items, path, 3, "not a valid JSON list")


# === CSV ===


def test_csv_rows_are_records_and_the_header_is_the_first(tmp_path: Path) -> None:
    content = 'text,n\n"two\nlines",1\n"say ""so"", yes",2\na,b,c\nshort\nlast,3\n'
    path = write(tmp_path / "a.csv", content)
    items = read_file(path, "csv")
    assert_one_bad_row(items, path, 4, "3 fields, and the header has 2")
    assert texts_of(items) == ["two\nlines", 'say "so", yes', "short", "last"]


def test_a_quote_that_is_followed_by_more(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'text\na\n"b"c"\nd\ne\n')
    items = read_file(path, "csv")
    assert_one_bad_row(items, path, 3, "not valid CSV: ',' expected after '\"'")
    assert texts_of(items) == ["a", "d", "e"]


def test_a_quote_that_nobody_closes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'text\na\n"b\nc\n')
    items = read_file(path, "csv")
    assert_one_bad_row(items, path, 3, "not valid CSV: unexpected end of data")
    assert texts_of(items) == ["a"]


def test_bad_bytes_and_numbers_in_csv(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", b"text\na\xe9\n12\nb\n")
    items = read_file(path, "csv")
    assert_one_bad_row(items, path, 2, "not UTF-8 at character 2")
    assert texts_of(items) == ["12", "b"]


def test_csv_without_the_column(tmp_path: Path) -> None:
    items = read_file(write(tmp_path / "a.csv", "body,n\na,1\nb,2\n"), "csv")
    assert number_bad_rows(items) == dict.fromkeys([2, 3], "no column 'text' (the columns are: body, n)")
    assert read_file(tmp_path / "a.csv", "csv", text_column="body")[1:] == ["a", "b"]


@pytest.mark.parametrize("length", [131_072, 131_073, 1_000_000])
def test_csv_fields_may_be_books(length: int, tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", f'text,n\n{"x" * length},1\n"{"y" * length}",2\n')
    assert read_file(path, "csv")[1:] == ["x" * length, "y" * length]


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
    assert_one_bad_row(read_file(path, source), path, 1, "No such file")


def test_descriptions() -> None:
    row = BadRow("a.txt", 7, "not UTF-8 at character 1")
    assert describe_bad_row(row) == "1 bad row was left out: a.txt, row 7: not UTF-8 at character 1"
    many = describe_bad_row(row._replace(num_rows=1234))
    assert many == "1,234 bad rows were left out of a.txt; the first is row 7: not UTF-8 at character 1"
