"""Reads files row by row, so that a row that cannot be read has a name: its file and its number."""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, repeat, zip_longest
from pathlib import Path
from typing import Any, NamedTuple, TextIO, cast

import pyarrow as pa
from datasets import Features, Value
from pyarrow import parquet

from tfmlm.config import DataConfig
from tfmlm.errors import UserError, first_line

# === Columns ===


_STRINGS = (pa.string(), pa.large_string())


class NoTextError(ValueError):
    """A row does not hold a configured column, or something else than text in it."""


class NoColumnError(NoTextError):
    """A row does not hold a configured column, which may only mean that it is empty there."""


def split_column_names(data: DataConfig) -> list[str]:
    """The dotted names in `data.text_column`."""
    return [name.strip() for name in data.text_column.split(",")]


def select_texts(table: pa.Table, names: list[str]) -> list[str]:
    """Joins the named columns of each row, lists at any depth included, by a space.

    Args:
        table: rows with columns of text, see `check_columns`.
        names: dotted names.

    Returns:
        The texts that are not blank, in order.
    """
    is_plain = len(names) == 1 and names[0] in table.column_names
    if is_plain and table.schema.field(names[0]).type in _STRINGS:
        texts = table.column(names[0]).to_pylist()
    else:
        texts = [join_columns(row, names) for row in table.to_pylist()]
    return [text for text in texts if text and not text.isspace()]


def join_columns(row: dict[str, Any], names: list[str]) -> str:
    """The text of one row.

    Raises:
        NoTextError: a column does not exist in this row or holds something else than text.
    """
    return " ".join(part for name in names for part in _collect(row, name, name))


def check_columns(features: Features, data: DataConfig) -> None:
    """Checks that the configured columns exist and hold text.

    Raises:
        UserError: one does not; the message lists the columns.
    """
    for name in split_column_names(data):
        feature = _find_feature(features, name)
        columns = f"the columns are: {', '.join(_list_names(features))}"
        if feature is None:
            raise UserError(f"data.text_column {name!r} does not exist; {columns}")
        if feature not in (Value("string"), Value("large_string")):
            kind = feature.dtype if isinstance(feature, Value) else "columns of its own"
            raise UserError(f"data.text_column {name!r} holds {kind}, not text; {columns}")


def _find_feature(feature: Any, name: str) -> Any:
    """What lies at a dotted name, lists passed through; None if nothing does."""
    while hasattr(feature, "feature"):
        feature = feature.feature
    if not name:
        return feature
    if not isinstance(feature, dict):
        return None
    found = (_find_feature(feature[key], rest) for key, rest in _match_keys(feature, name))
    return next((match for match in found if match is not None), None)


def _list_names(feature: Any, prefix: str = "") -> Iterator[str]:
    """Dotted names of all columns that are no structs."""
    while hasattr(feature, "feature"):
        feature = feature.feature
    if isinstance(feature, dict):
        for key in feature:
            yield from _list_names(feature[key], f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix


def _collect(value: Any, rest: str, name: str) -> Iterator[str]:
    """The non-empty strings at a dotted name of a row, in order."""
    if value is None:
        return
    if isinstance(value, list):
        for item in value:
            yield from _collect(item, rest, name)
    elif isinstance(value, dict):
        matches = _match_keys(value, rest)
        if not matches:
            raise NoColumnError(f"no column {name!r} (the columns are: {', '.join(value)})")
        for key, further in matches:
            yield from _collect(value[key], further, name)
    elif not isinstance(value, str) or rest:
        raise NoTextError(f"column {name!r} holds {value!r}, not text")
    elif value:
        yield value


def _match_keys(mapping: dict[str, Any], name: str) -> list[tuple[str, str]]:
    """Keys that the name may begin with, and the rest of it; a key may itself hold dots."""
    return [
        (key, name.removeprefix(key).removeprefix("."))
        for key in mapping
        if name == key or (name.startswith(f"{key}.") and name != f"{key}.")
    ]


# === Rows ===


_BATCH_ROWS = 1000


class BadRow(NamedTuple):
    """Rows that cannot be read, or that do not hold the configured columns of text.

    Attributes:
        file: the path.
        row: number of the first such row, from 1: a line of text or JSON, a record of CSV with the header
            as the first, a row of Parquet.
        reason: what is wrong.
        num_rows: how many rows are lost.
        is_whole: whether the first is a good row that has no such column.
    """

    file: str
    row: int
    reason: str
    num_rows: int = 1
    is_whole: bool = False

    def __str__(self) -> str:
        return f"{self.file}, row {self.row}: {self.reason}"


def read_rows(file: str, data: DataConfig) -> Iterator[str | BadRow]:
    """Reads the texts of a file in order; a `BadRow` stands where rows cannot be read.

    Args:
        file: a path; gzip is seen by its first bytes.
        data: the kind of file, the columns, and what one text of a text file is.
    """
    row = 0
    try:
        for row, item in enumerate(_READERS[data.source](file, data), start=1):
            yield item._replace(file=file, row=row) if isinstance(item, BadRow) else item
    except (OSError, EOFError, zlib.error, pa.ArrowException) as error:
        yield BadRow(file, row + 1, _describe(error))


def describe_bad_row(row: BadRow) -> str:
    """A sentence on the rows of a file that were left out; `row` is the first of them."""
    if row.num_rows == 1:
        return f"1 bad row was left out: {row}"
    return f"{row.num_rows:,} bad rows were left out of {row.file}; the first is row {row.row}: {row.reason}"


def find_bad_row(files: list[str], data: DataConfig) -> BadRow | None:
    """The first row of the files that cannot be read; failing that, the first that has no such column."""
    first_whole: BadRow | None = None
    for file in files:
        for item in read_rows(file, data):
            if isinstance(item, BadRow):
                if not item.is_whole:
                    return item
                first_whole = first_whole or item
    return first_whole


def _describe(error: Exception) -> str:
    if isinstance(error, EOFError):
        return "the compressed file ends in the middle"
    return first_line(error)


def _bad(reason: str, is_whole: bool = False) -> BadRow:
    """A bad row whose file and number `read_rows` fills in."""
    return BadRow("", 0, reason, is_whole=is_whole)


# === Formats: each yields a text or a bad row for every row ===


def _read_text(file: str, data: DataConfig) -> Iterator[str | BadRow]:
    with _open_text(file, encoding="utf-8") as lines:  # `datasets` keeps a byte order mark here
        yield from map(_check_unicode, _SAMPLERS[data.sample_by](lines))


def _read_json(file: str, data: DataConfig) -> Iterator[str | BadRow]:
    names = split_column_names(data)
    with _open_text(file) as lines:
        num_blank, first = next(((n, line) for n, line in enumerate(lines) if line.strip()), (0, ""))
        if first.lstrip().startswith("["):
            rows: Iterable[dict[str, Any] | str | BadRow] = _parse_array(first + lines.read())
        else:
            rows = map(_parse_object, chain(repeat("", num_blank), [first], lines))
        for row in rows:
            yield row if isinstance(row, BadRow | str) else _to_text(row, names)


def _read_csv(file: str, data: DataConfig) -> Iterator[str | BadRow]:
    names = split_column_names(data)
    with _open_text(file, newline="") as lines:
        rows = _read_records(lines)
        header: list[str] | BadRow = []
        for header in rows:  # empty lines may come before it
            yield header if isinstance(header, BadRow) else ""
            if header:
                break
        if isinstance(header, BadRow):
            return
        columns = _number_repeated(header)
        for row in rows:
            if isinstance(row, BadRow):
                yield row
            elif len(row) > len(header):
                yield _bad(f"{len(row)} fields, and the header has {len(header)}")
            else:
                yield _to_text(dict(zip_longest(columns, row)), names)


def _number_repeated(header: list[str]) -> list[str]:
    """Names of which a repeated one stands for its first column, as `datasets` has it."""
    counts = [header[:index].count(name) for index, name in enumerate(header)]
    return [f"{name}.{count}" if count else name for name, count in zip(header, counts, strict=True)]


def _read_records(lines: TextIO) -> Iterator[list[str] | BadRow]:
    """The records of a CSV file; the reader goes on with the line after a broken one."""
    csv.field_size_limit(2**31 - 1)  # a text may be a book
    records = csv.reader(lines, strict=True)
    while True:
        try:
            yield next(records)
        except StopIteration:
            return
        except csv.Error as error:
            yield _bad(f"not valid CSV: {error}")


def _read_parquet(file: str, data: DataConfig) -> Iterator[str | BadRow]:
    names = split_column_names(data)
    with parquet.ParquetFile(file) as table:
        columns = table.schema_arrow.names
        wanted = [column for column in columns if any(f"{name}.".startswith(f"{column}.") for name in names)]
        for batch in table.iter_batches(_BATCH_ROWS):
            for row in _to_rows(batch.select(wanted)):
                yield row if isinstance(row, BadRow) else _to_text(dict.fromkeys(columns) | row, names)


def _to_rows(batch: pa.RecordBatch) -> list[dict[str, Any] | BadRow]:
    """The rows of a batch, each on its own if there is one that Python cannot hold, such as a far date."""
    try:
        return cast(list[dict[str, Any] | BadRow], batch.to_pylist())
    except (ValueError, OverflowError) as error:
        if batch.num_rows == 1:
            kind = "not UTF-8" if isinstance(error, UnicodeDecodeError) else "not readable"
            return [_bad(f"{kind}: {_describe(error)}")]
        return [row for number in range(batch.num_rows) for row in _to_rows(batch.slice(number, 1))]


_READERS: dict[str, Callable[[str, DataConfig], Iterator[str | BadRow]]] = {
    "csv": _read_csv,
    "json": _read_json,
    "parquet": _read_parquet,
    "text": _read_text,
}


def _open_text(file: str, newline: str | None = None, encoding: str = "utf-8-sig") -> TextIO:
    """Opens a file whose broken bytes come through as lone surrogates, which `_check_unicode` finds."""
    with Path(file).open("rb") as start:
        is_gzip = start.read(2) == b"\x1f\x8b"
    opener = gzip.open if is_gzip else open
    return cast(TextIO, opener(file, "rt", encoding=encoding, errors="surrogateescape", newline=newline))


def _check_unicode(text: str) -> str | BadRow:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return _bad(f"not UTF-8 at character {error.start + 1}")
    return text


def _to_text(row: dict[str, Any], names: list[str]) -> str | BadRow:
    try:
        return _check_unicode(join_columns(row, names))
    except NoTextError as error:
        return _bad(str(error), is_whole=isinstance(error, NoColumnError))


def _parse_object(line: str) -> dict[str, Any] | str | BadRow:
    if not line.strip():
        return ""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return _bad(f"not valid JSON: {_describe(error)}")
    return row if isinstance(row, dict) else _bad("not a JSON object")


def _parse_array(text: str) -> list[dict[str, Any] | str | BadRow]:
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        return [_bad(f"not a valid JSON list: {_describe(error)}")]
    return [_to_object(row) for row in rows]


def _to_object(row: Any) -> dict[str, Any] | BadRow:
    """An item of a JSON list; a string stands for a column `text`, as `datasets` has it."""
    if isinstance(row, str):
        return {"text": row}
    return row if isinstance(row, dict) else _bad("not a JSON object")


# === What one text of a text file is ===


def _sample_lines(lines: TextIO) -> Iterator[str]:
    return (line.removesuffix("\n") for line in lines)


def _sample_paragraphs(lines: TextIO) -> Iterator[str]:
    """Paragraphs end at an empty line, as `datasets` has it."""
    paragraph: list[str] = []
    for line in lines:
        if line == "\n" and paragraph and paragraph[-1].endswith("\n"):
            yield "".join(paragraph).removesuffix("\n")
            paragraph = []
        else:
            paragraph.append(line)
    yield "".join(paragraph)


def _sample_document(lines: TextIO) -> Iterator[str]:
    yield lines.read()


_SAMPLERS: dict[str, Callable[[TextIO], Iterator[str]]] = {
    "document": _sample_document,
    "line": _sample_lines,
    "paragraph": _sample_paragraphs,
}
