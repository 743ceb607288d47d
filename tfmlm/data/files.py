"""Reads files row by row, so that a row that cannot be read has a name: its file and its number.

Where a quick way gives the same rows as reading them one by one, it is taken, and left where it does not.
"""

from __future__ import annotations

import csv
import io
import json
import re
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial, reduce
from itertools import chain, count, islice, repeat, zip_longest
from pathlib import Path
from types import NoneType
from typing import Any, BinaryIO, NamedTuple, TextIO, TypeAlias, TypeVar, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv
from pyarrow import parquet

from tfmlm.config import DataConfig
from tfmlm.data.arrow_files import UnreadBatch, iterate_batches, read_schema
from tfmlm.data.compressed import READ_ERRORS, cut_rows, open_bytes
from tfmlm.data.remote_files import open_remote_file
from tfmlm.errors import UserError, first_line
from tfmlm.urls import hide_secrets, is_url

# === Columns ===


_STRINGS = (pa.string(), pa.large_string(), pa.string_view())

_KINDS = {pa.float16(): "float16", pa.float32(): "float32", pa.float64(): "float64"}
"""Names of types that Arrow calls by those of C."""


class NoTextError(ValueError):
    """A row does not hold a configured column, or something else than text in it."""


class NoColumnError(NoTextError):
    """A row does not hold a configured column, which may only mean that it is empty there."""


def split_column_names(data: DataConfig) -> list[str]:
    """The dotted names in `data.text_column`."""
    return [name.strip() for name in data.text_column.split(",")]


def join_columns(row: dict[str, Any], names: list[str], skip_missing: bool = False) -> str:
    """The text of one row.

    Args:
        row: values by column.
        names: dotted names.
        skip_missing: whether columns that this row does not have are empty, as long as others hold text.

    Raises:
        NoTextError: a column does not exist in this row or holds something else than text.
    """
    parts = [part for name in names for part in _collect(row, name, name)]
    texts = [part for part in parts if isinstance(part, str)]
    errors = [part for part in parts if not isinstance(part, str)]
    if skip_missing and texts:
        errors = [error for error in errors if not isinstance(error, NoColumnError)]
    if errors:
        raise errors[0]
    return " ".join(texts)


def check_columns(schema: pa.Schema, data: DataConfig) -> None:
    """Checks that the configured columns exist and hold text.

    Raises:
        UserError: one does not; the message lists the columns.
    """
    row = pa.struct(list(schema))
    for name in split_column_names(data):
        found = _find_type(row, name)
        columns = f"the columns are: {', '.join(_list_names(row))}"
        if found is None:
            raise UserError(f"data.text_column {name!r} does not exist; {columns}")
        if found not in _STRINGS:
            kind = "columns of its own" if pa.types.is_struct(found) else _KINDS.get(found, found)
            raise UserError(f"data.text_column {name!r} holds {kind}, not text; {columns}")


def holds_value(schema: pa.Schema, data: DataConfig) -> bool:
    """Whether one of the configured columns that are there holds anything but nulls, or one is not there."""
    row = pa.struct(list(schema))
    return any(_find_type(row, name) != pa.null() for name in split_column_names(data))


def list_text_columns(schema: pa.Schema) -> tuple[list[str], list[str]]:
    """Dotted names of the columns that hold text, lists of it included, and of all columns."""
    row = pa.struct(list(schema))
    names = list(_list_names(row))
    return [name for name in names if _find_type(row, name) in _STRINGS], names


def _find_type(of: pa.DataType, name: str) -> pa.DataType | None:
    """What lies at a dotted name, lists passed through; None if nothing does."""
    of = _pass_lists(of)
    if not name:
        return of
    if not pa.types.is_struct(of):
        return None
    types = {field.name: field.type for field in of}
    found = (_find_type(types[key], rest) for key, rest in _match_keys(types, name))
    return next((match for match in found if match is not None), None)


def _list_names(of: pa.DataType, prefix: str = "") -> Iterator[str]:
    """Dotted names of all columns that are no structs."""
    of = _pass_lists(of)
    if pa.types.is_struct(of):
        for field in of:
            yield from _list_names(field.type, f"{prefix}.{field.name}" if prefix else field.name)
    else:
        yield prefix


def _pass_lists(of: pa.DataType) -> pa.DataType:
    """What the lists, or the dictionary, of a column hold."""
    while hasattr(of, "value_type"):
        of = of.value_type
    return of


def _collect(value: Any, rest: str, name: str) -> Iterator[str | NoTextError]:
    """The non-empty strings at a dotted name of a row, in order, and errors where there is something else."""
    if value is None:
        return
    if isinstance(value, list):
        for item in value:
            yield from _collect(item, rest, name)
    elif isinstance(value, dict):
        matches = _match_keys(value, rest)
        if not matches:
            yield NoColumnError(f"no column {name!r} (the columns are: {', '.join(value)})")
        for key, further in matches:
            yield from _collect(value[key], further, name)
    elif not isinstance(value, str) or rest:
        yield NoTextError(f"column {name!r} holds {value!r}, not text")
    elif value:
        yield value


def _match_keys(mapping: Iterable[str], name: str) -> list[tuple[str, str]]:
    """Keys that the name may begin with, and the rest of it; a key may itself hold dots."""
    return [
        (key, name.removeprefix(key).removeprefix("."))
        for key in mapping
        if name == key or (name.startswith(f"{key}.") and name != f"{key}.")
    ]


# === Rows ===


TEXTS_A_BATCH = 1000
"""As many as the Hugging Face guide gives `map`: enough to keep the tokenizer's threads busy."""

_BATCH_BYTES = 1 << 27
"""The most that Arrow decodes of Parquet at once, if a page has no more."""

_BATCH_LETTERS = 1 << 22
"""Characters of the texts of a batch, but for the last of them: long texts must not add up to memory."""

_CHUNK_BYTES = 1 << 20

_FIRST_ROWS = 10_000
"""Rows of JSON among which one must hold the configured column."""


class BadRow(NamedTuple):
    """Rows that cannot be read, or that do not hold the configured columns of text.

    Attributes:
        file: the path, or the URL without secrets.
        row: number of the first such row, from 1: a line of text or JSON, a record of CSV with the header
            as the first, a row of Parquet, Arrow or a dataset.
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


Batch: TypeAlias = list[str | BadRow]
"""One item for every row."""

Row = TypeVar("Row", str, str | BadRow)


def read_rows(file: str, data: DataConfig) -> Iterator[str | BadRow]:
    """Reads the texts of a file in order; a `BadRow` stands where rows cannot be read.

    Args:
        file: a path or a URL; gzip, bzip2 and xz are seen by their first bytes.
        data: the kind of file, the columns, and what one text of a text file is.
    """
    return chain.from_iterable(read_batches(file, data))


def read_batches(file: str, data: DataConfig) -> Iterator[Batch]:
    """The same as `read_rows`, in lists of about a thousand or a megabyte.

    Raises:
        UserError: a remote file cannot be reached, which is no bad row.
    """
    num_rows = 0
    name = hide_secrets(file)
    try:
        for batch in _READERS[data.source](file, data):
            yield name_bad_rows(batch, name, num_rows + 1)
            num_rows += len(batch)
    except READ_ERRORS as error:
        yield [BadRow(name, num_rows + 1, _describe(error))]


def name_bad_rows(batch: Batch, file: str, first_row: int) -> Batch:
    """Gives the bad rows of a batch the name of their file, and their numbers.

    Args:
        batch: follows others.
        file: as `BadRow` has it.
        first_row: number of the first item.
    """
    if BadRow not in map(type, batch):
        return batch
    return [
        item._replace(file=file, row=row) if isinstance(item, BadRow) else item
        for row, item in enumerate(batch, first_row)
    ]


def make_batches(rows: Iterator[Row]) -> Iterator[list[Row]]:
    """Batches of `TEXTS_A_BATCH`, or fewer long ones; the last may be what came before an error."""
    batch: list[Row] = []
    num_letters = 0
    try:
        for row in rows:
            batch.append(row)
            num_letters += len(row)
            if len(batch) == TEXTS_A_BATCH or num_letters >= _BATCH_LETTERS:
                yield batch
                batch, num_letters = [], 0
    except READ_ERRORS:
        yield batch
        raise
    yield batch


def describe_bad_row(row: BadRow) -> str:
    """A sentence on the rows of a file that were left out; `row` is the first of them."""
    if row.num_rows == 1:
        return f"1 bad row was left out: {row}"
    return f"{row.num_rows:,} bad rows were left out of {row.file}; the first is row {row.row}: {row.reason}"


def find_bad_row(files: list[str], data: DataConfig) -> BadRow | None:
    """The first row of the files that cannot be read or has no such column."""
    rows = chain.from_iterable(read_rows(file, data) for file in files)
    return next((row for row in rows if isinstance(row, BadRow)), None)


def find_schema(file: str, data: DataConfig) -> pa.Schema | None:
    """The columns of a file, as far as its first rows tell; None if none of these can be read."""
    try:
        return _SCHEMAS[data.source](file, data)
    except (*READ_ERRORS, RecursionError):
        return None


def _describe(error: Exception) -> str:
    if isinstance(error, EOFError):
        return "the compressed file ends in the middle"
    return first_line(error)


def _bad(reason: str, is_whole: bool = False) -> BadRow:
    """A bad row whose file and number `read_batches` fills in."""
    return BadRow("", 0, reason, is_whole=is_whole)


# === Formats: each yields a text or a bad row for every row ===


def _read_text(file: str, data: DataConfig) -> Iterator[Batch]:
    most = data.max_text_bytes
    cut_at = None if data.sample_by == "document" else most
    with _open_text(file, cut_at, encoding="utf-8") as lines:  # a byte order mark is text here
        texts = _SAMPLERS[data.sample_by](lines, most)
        yield from make_batches(map(_check_text, texts, repeat(most)))


def _read_json(file: str, data: DataConfig) -> Iterator[Batch]:
    to_text = partial(
        _to_text,
        names=split_column_names(data),
        most=data.max_text_bytes,
        skip_missing=data.on_bad_rows == "error",
    )
    yield from make_batches(map(to_text, _read_objects(file, data.max_text_bytes, data.field)))


def _read_objects(file: str, most: int, field: str | None) -> Iterator[dict[str, Any] | str | BadRow]:
    if field is not None:
        with _open_text(file) as letters:
            yield from _parse_array(letters, most, field)
        return
    with _open_text(file, most) as lines:
        num_blank, first = next(((n, line) for n, line in enumerate(lines) if line.strip()), (0, ""))
        if not first.lstrip().startswith("["):
            rows = chain(repeat("", num_blank), [first], lines)
            yield from map(_parse_object, rows, repeat(most))
            return
    with _open_text(file) as letters:
        yield from _parse_array(letters, most)


def _read_csv(file: str, data: DataConfig) -> Iterator[Batch]:
    names, most = split_column_names(data), data.max_text_bytes
    with open_bytes(file) as content:
        end = len(BOM_UTF8) if content.read(len(BOM_UTF8)) == BOM_UTF8 else 0
        content.seek(end)
        columns: list[str] = []
        for part in _read_plain_csv(content, names):
            columns, end = part.columns, end + part.num_bytes
            yield _check_lengths(part.texts, most)
        content.seek(end)
        with _decode(cut_rows(content, most), newline="") as lines:
            yield from make_batches(_read_any_csv(lines, columns, names, most))


def _check_lengths(texts: Batch, most: int) -> Batch:
    """Texts of a chunk, which are long only where little is allowed."""
    if most >= 2 * _CHUNK_BYTES:
        return texts
    return [text if isinstance(text, BadRow) else _check_text(text or "", most) for text in texts]


def _read_any_csv(lines: TextIO, columns: list[str], names: list[str], most: int) -> Iterator[str | BadRow]:
    """Reads records one by one; the first is the header, if the columns are not known yet."""
    rows = _read_records(lines, most)
    while not columns:  # empty lines may come before the header
        row = next(rows, None)
        if row is None:
            return
        yield row if isinstance(row, BadRow) else ""
        if isinstance(row, BadRow):
            return
        columns = _number_repeated(row)
    for row in rows:
        if isinstance(row, BadRow):
            yield row
        elif len(row) > len(columns):
            yield _bad(f"{len(row)} fields, and the header has {len(columns)}")
        else:
            yield _to_text(dict(zip_longest(columns, row)), names, most)


def _number_repeated(header: list[str]) -> list[str]:
    """Names of which a repeated one stands for its first column, as pandas has it."""
    counts = [header[:index].count(name) for index, name in enumerate(header)]
    return [f"{name}.{before}" if before else name for name, before in zip(header, counts, strict=True)]


class _LinesOfRecords:
    """Lines of CSV, of which no more than `most` characters are given for one record.

    Of a longer record the rest is passed over, to the line in which its last quote closes.
    """

    def __init__(self, lines: Iterable[str], most: int) -> None:
        self._lines = iter(lines)
        self._most = most
        self._num_letters = 0
        self._num_quotes = 0

    def begin_record(self) -> None:
        self._num_letters = self._num_quotes = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._count(next(self._lines))
        if self._num_letters > self._most:
            while self._num_quotes % 2 and self._count(next(self._lines, "")):
                pass
            raise csv.Error(_describe_longest(self._most))
        return line

    def _count(self, line: str) -> str:
        self._num_letters += len(line)
        self._num_quotes += line.count('"')
        return line


def _read_records(lines: Iterable[str], most: int) -> Iterator[list[str] | BadRow]:
    """The records of a CSV file; the reader goes on with the line after a broken one."""
    csv.field_size_limit(2**31 - 1)  # a text may be a book
    of_records = _LinesOfRecords(lines, most)
    records = csv.reader(of_records, strict=True)
    while True:
        of_records.begin_record()
        try:
            yield next(records)
        except StopIteration:
            return
        except csv.Error as error:
            yield _bad(f"not valid CSV: {error}")


_QUOTE = ord('"')

_BESIDE_QUOTES = np.isin(np.arange(256), list(b',"\r\n'))
"""Bytes that may stand before a quote that opens and after one that closes."""


class _PlainRecords(NamedTuple):
    """Records of CSV about which Arrow and Python agree.

    Attributes:
        columns: by the header of the file.
        num_bytes: that these records take.
        texts: one a record; the header's is empty.
    """

    columns: list[str]
    num_bytes: int
    texts: Batch


def _read_plain_csv(content: BinaryIO, names: list[str]) -> Iterator[_PlainRecords]:
    """Reads records by Arrow, five times as fast as by Python, as long as they are plain.

    Arrow reads on where a quote is followed by more, and tells of no row what is wrong with it.
    """
    columns: list[str] = []
    rest = b""
    while True:
        try:
            more = content.read(_CHUNK_BYTES)
        except READ_ERRORS:
            return  # what was read before this comes again, by row
        chunk = rest + more
        end = _find_end_of_plain(chunk, is_whole=not more)
        plain, rest = memoryview(chunk)[:end], chunk[end:]
        is_first = not columns
        if is_first:
            text = io.StringIO(str(plain, errors="surrogateescape"), newline="")
            header = next(_read_records(text, len(plain)), None)
            columns = _number_repeated(header) if isinstance(header, list) else []
        texts = _parse_plain_csv(plain, columns, names)
        if not texts:
            return
        yield _PlainRecords(columns, end, ["", *texts[1:]] if is_first else texts)


def _find_end_of_plain(chunk: bytes, is_whole: bool) -> int:
    """Where the last record of a chunk ends in which every quote opens, closes or doubles; 0 in any other.

    Args:
        chunk: begins with a record.
        is_whole: whether the file ends with it, so that the last record needs no end of line.
    """
    letters = np.frombuffer(chunk, np.uint8)
    quotes = np.flatnonzero(letters == _QUOTE)
    opening, closing = quotes[::2], quotes[1::2]  # a doubled quote closes, and opens again
    before, after = letters[opening[opening > 0] - 1], letters[closing[closing < len(chunk) - 1] + 1]
    if not (_BESIDE_QUOTES[before].all() and _BESIDE_QUOTES[after].all()):
        return 0
    if is_whole:
        return 0 if len(quotes) % 2 else len(chunk)
    end = len(chunk)
    while (end := chunk.rfind(b"\n", 0, end)) >= 0:
        num_before = int(np.searchsorted(quotes, end))
        if num_before % 2 == 0:
            return end + 1
        end = int(quotes[num_before - 1])
    return 0


def _parse_plain_csv(records: memoryview, columns: list[str], names: list[str]) -> Batch:
    """The texts of records, none if the names or one of the records are not plain."""
    if any(_match_keys(columns, name) != [(name, "")] for name in names):
        return []
    numbers = list(map(str, range(len(columns))))
    wanted = [str(columns.index(name)) for name in names]
    # Arrow is fastest in small blocks, but refuses a record in more than two of them, and after a block that
    # ends with "\r" it loses a "\n", within quotes too.
    sizes = (size for size in count(len(records) // 8 + 1) if ord("\r") not in records[size - 1 :: size])
    for block_size in (next(sizes), len(records) + 1):
        with suppress(pa.ArrowException, ValueError):
            table = arrow_csv.read_csv(
                pa.BufferReader(records),
                read_options=arrow_csv.ReadOptions(
                    use_threads=False, block_size=block_size, column_names=numbers
                ),
                parse_options=arrow_csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
                convert_options=arrow_csv.ConvertOptions(
                    include_columns=list(dict.fromkeys(wanted)),
                    column_types=dict.fromkeys(wanted, pa.string()),
                ),
            )
            parts = [table.column(number).to_pylist() for number in wanted]
            if len(parts) == 1:
                return cast(Batch, parts[0])
            return [" ".join(filter(None, row)) for row in zip(*parts, strict=True)]
    return []


def _read_parquet(file: str, data: DataConfig) -> Iterator[Batch]:
    names = split_column_names(data)
    # A second reader of the file, for both are at places of their own.
    with _open_parquet(file) as table, _open_bytes_of(file) as content:
        columns = table.schema_arrow.names
        wanted = list_wanted(columns, names)
        empty = dict.fromkeys(columns)
        are_strings = all(table.schema_arrow.field(column).type in _STRINGS for column in wanted)
        for group in range(table.num_row_groups):
            size = _measure_group(table.metadata.row_group(group), wanted, content)
            if size.average > data.max_text_bytes + _PAGE_HEADERS_BYTES:
                yield [_bad(_describe_longest(data.max_text_bytes))] * size.num_rows
                continue
            longest = size.longest_repeated
            if longest * TEXTS_A_BATCH > _BATCH_BYTES and are_strings:
                longest = sum(_find_longest_repeated(content, group, column) for column in wanted)
            if size.num_bytes > _BATCH_BYTES:
                longest = max(longest, data.max_text_bytes)
            num_rows = max(1, min(TEXTS_A_BATCH, _BATCH_BYTES // max(1, longest)))
            for batch in table.iter_batches(num_rows, row_groups=[group], columns=wanted):
                for part in _halve(batch.select(wanted)):
                    yield _to_texts(part, names, empty, data.max_text_bytes)


def list_wanted(columns: list[str], names: list[str]) -> list[str]:
    """The columns that dotted names may mean.

    Raises:
        pa.ArrowInvalid: one of them is there twice.
    """
    wanted = [column for column in columns if any(f"{name}.".startswith(f"{column}.") for name in names)]
    repeated = next((column for column in wanted if columns.count(column) > 1), None)
    if repeated is not None:
        raise pa.ArrowInvalid(f"column {repeated!r} is there more than once")
    return wanted


class _GroupSize(NamedTuple):
    """What is known of a row group of Parquet before it is read.

    Attributes:
        num_rows: in it.
        num_bytes: of its columns of text, decompressed.
        longest_repeated: more bytes than the longest text has that stands in the file once and may be that of
            every row.
    """

    num_rows: int
    num_bytes: int
    longest_repeated: int

    @property
    def average(self) -> float:
        """Bytes of a row."""
        return self.num_bytes / max(1, self.num_rows)


def _measure_group(group: Any, wanted: list[str], content: BinaryIO) -> _GroupSize:
    chunks = [group.column(number) for number in range(group.num_columns)]
    chunks = [chunk for chunk in chunks if chunk.path_in_schema.split(".")[0] in wanted]
    num_bytes = sum(chunk.total_uncompressed_size for chunk in chunks)
    dictionaries = [chunk.dictionary_page_offset for chunk in chunks if chunk.dictionary_page_offset]
    longest = max((_read_page_size(content, place) for place in dictionaries), default=0)
    return _GroupSize(group.num_rows, num_bytes, min(longest, num_bytes))


def _find_longest_repeated(content: BinaryIO, group: int, column: str) -> int:
    """Bytes of the longest text that a column of strings holds once for several rows.

    The first row is enough: Arrow gives the whole dictionary with it.
    """
    table = parquet.ParquetFile(content, read_dictionary=[column])
    first = next(table.iter_batches(1, row_groups=[group], columns=[column])).column(0)
    return pc.max(pc.binary_length(first.dictionary)).as_py() or 0


_PAGE_HEADERS_BYTES = 2**14
"""What the headers of a column's pages take, beside its values."""

_PAGE_HEADER_BYTES = 16

_INT32_FIELD = 0x15
"""Of Thrift's compact protocol: the next field, an int32."""


def _read_page_size(content: BinaryIO, place: int) -> int:
    """Bytes of a page once it is decompressed: the second field of its header, after its type.

    https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift
    """
    content.seek(place)
    header = content.read(_PAGE_HEADER_BYTES)
    if len(header) < _PAGE_HEADER_BYTES or header[0] != _INT32_FIELD or header[2] != _INT32_FIELD:
        raise pa.ArrowInvalid("a page of it begins with no header")
    number = 0
    for shift, byte in enumerate(header[3:8]):
        number |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:
            break
    return number >> 1  # zigzag, of a number that is not negative


def _read_arrow(file: str, data: DataConfig) -> Iterator[Batch]:
    for batch in iterate_batches(file):
        if isinstance(batch, UnreadBatch):
            yield from make_batches(repeat(_bad(batch.reason), batch.num_rows))
        else:
            yield from read_record_batch(batch, data)
        del batch  # before the next one is decompressed


def read_record_batch(batch: pa.RecordBatch, data: DataConfig) -> Iterator[Batch]:
    """The texts of Arrow's rows, in parts that do not take much memory.

    Args:
        batch: of any size, from a file that nobody has checked.
        data: the columns, and the longest text.

    Raises:
        pa.ArrowInvalid: the batch is broken as a whole.
    """
    batch.validate()
    names, most = split_column_names(data), data.max_text_bytes
    empty = dict.fromkeys(batch.schema.names)
    batch = batch.select(list_wanted(batch.schema.names, names))
    num_rows = TEXTS_A_BATCH
    if any(map(_may_repeat, batch.schema.types)):  # then a row may come to as much as the whole
        num_rows = max(1, min(num_rows, _BATCH_BYTES // max(1, batch.nbytes)))
    for first in range(0, batch.num_rows, num_rows):
        for part in _halve(batch.slice(first, num_rows)):
            is_long = part.num_rows == 1 and part.nbytes > 4 * most + _PAGE_HEADERS_BYTES
            yield (
                [_bad(_describe_longest(most))]
                if is_long
                else _to_texts(part, names, empty, most, check=True)
            )


def _may_repeat(of: pa.DataType) -> bool:
    """Whether one text in memory may stand in many rows of a column."""
    if pa.types.is_dictionary(of) or pa.types.is_run_end_encoded(of):
        return True
    views = (pa.types.is_string_view, pa.types.is_binary_view, pa.types.is_list_view)
    if any(is_view(of) for is_view in views) or pa.types.is_large_list_view(of):
        return True
    return any(_may_repeat(of.field(number).type) for number in range(of.num_fields))


def _halve(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """The batch in halves of halves, until none but single rows is large, for Python's copies come on top."""
    if batch.num_rows <= 1 or batch.nbytes <= _BATCH_BYTES // 4:
        yield batch
        return
    middle = batch.num_rows // 2
    yield from _halve(batch.slice(0, middle))
    yield from _halve(batch.slice(middle))


def _to_texts(
    batch: pa.RecordBatch, names: list[str], empty: dict[str, Any], most: int, check: bool = False
) -> Batch:
    """The texts of a batch, each on its own if there is one that Python cannot hold, such as a far date.

    Args:
        batch: the columns that the names may mean.
        names: dotted names.
        empty: a row of all columns.
        most: bytes of a text.
        check: whether the lists and texts in it may lie elsewhere than in its memory.
    """
    try:
        if check:
            batch.validate(full=True)
        if len(names) == 1 and batch.schema.names == names and batch.schema.types[0] in _STRINGS:
            texts = [text or "" for text in batch.column(0).to_pylist()]
            return texts if batch.nbytes <= most else [_check_text(text, most) for text in texts]
        return [_to_text(empty | row, names, most) for row in batch.to_pylist()]
    except (ValueError, OverflowError) as error:
        if batch.num_rows == 1:
            kind = "not UTF-8" if isinstance(error, UnicodeDecodeError) else "not readable"
            return [_bad(f"{kind}: {_describe(error)}")]
        rows = (batch.slice(number, 1) for number in range(batch.num_rows))
        return [text for row in rows for text in _to_texts(row, names, empty, most, check)]


_READERS: dict[str, Callable[[str, DataConfig], Iterator[Batch]]] = {
    "arrow": _read_arrow,
    "csv": _read_csv,
    "json": _read_json,
    "parquet": _read_parquet,
    "text": _read_text,
}


def _open_text(
    file: str, cut_at: int | None = None, encoding: str = "utf-8-sig", newline: str | None = None
) -> TextIO:
    """Opens a file as lines, of which no more than one byte over `cut_at` is read."""
    content = open_bytes(file)
    return _decode(content if cut_at is None else cut_rows(content, cut_at), encoding, newline)


def _open_bytes_of(file: str) -> BinaryIO:
    return open_remote_file(file) if is_url(file) else Path(file).open("rb")


@contextmanager
def _open_parquet(file: str) -> Iterator[parquet.ParquetFile]:
    """Arrow itself reads what lies on this machine, without Python."""
    if not is_url(file):
        with parquet.ParquetFile(file) as table:
            yield table
        return
    with open_remote_file(file) as content, parquet.ParquetFile(content) as table:
        yield table


def _decode(content: BinaryIO, encoding: str = "utf-8", newline: str | None = None) -> TextIO:
    """Lines whose broken bytes come through as lone surrogates, which `_check_unicode` finds."""
    lines = io.TextIOWrapper(content, encoding=encoding, errors="surrogateescape", newline=newline)
    # Its 8 KB would each be a call of Python that cuts rows.
    setattr(lines, "_CHUNK_SIZE", 1 << 17)  # noqa: B010
    return lines


def _check_text(text: str, most: int) -> str | BadRow:
    try:
        return text if len(text.encode()) <= most else _bad(_describe_longest(most))
    except UnicodeEncodeError as error:
        if _is_longer(text, most):
            return _bad(_describe_longest(most))
        return _bad(f"not UTF-8 at character {error.start + 1}")


def _is_longer(text: str, most: int) -> bool:
    """Whether a text has more than `most` bytes; ask only where it may have, for counting takes time."""
    return len(text.encode("utf-8", "surrogatepass")) > most


def _describe_longest(most: int) -> str:
    return f"it has more than {most:,} bytes (data.max_text_bytes)"


def _to_text(
    row: dict[str, Any] | str | BadRow, names: list[str], most: int, skip_missing: bool = False
) -> str | BadRow:
    if not isinstance(row, dict):
        return row
    try:
        text = row.get(names[0]) if _is_plain(names) else None
        return _check_text(text if isinstance(text, str) else join_columns(row, names, skip_missing), most)
    except NoTextError as error:
        return _bad(str(error), is_whole=isinstance(error, NoColumnError))
    except RecursionError as error:
        return _bad(_describe(error))


def _is_plain(names: list[str]) -> bool:
    """Whether they are a single one, which can only be a column's own."""
    return len(names) == 1 and "." not in names[0]


_decode_object = json.JSONDecoder().raw_decode
"""A third faster than `json.loads`, which looks for blanks on both sides."""


def _parse_object(line: str, most: int) -> dict[str, Any] | str | BadRow:
    if len(line) * 4 > most and _is_longer(line, most):
        return _bad(_describe_longest(most))
    if not line or line.isspace():
        return ""
    try:
        row, end = _decode_object(line) if line[0] == "{" else (None, 0)
        if line[end:] != "\n":
            row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return _bad(f"not valid JSON: {_describe(error)}")
    return row if isinstance(row, dict) else _bad("not a JSON object")


_BLANKS = re.compile(r"[ \t\n\r]*")

_LONGEST_WORD_OF_JSON = 16
"""Characters, and more, of what may be cut at the end of a chunk without being a string: `-Infinity`."""


def _parse_array(letters: TextIO, most: int, field: str | None = None) -> Iterator[dict[str, Any] | BadRow]:
    """The items of a JSON list one by one, up to the end or to what is wrong.

    Args:
        letters: the file.
        most: bytes of an item, so that no more than that is held.
        field: of the object that the file is, which holds the list; the file is the list if there is none.
    """
    items = _ItemsOfArray(letters, most)
    try:
        for row in items.take_list() if field is None else items.take_field(field):
            yield _to_object(row)
        items.expect_end()
    except (ValueError, RecursionError) as error:
        what = "not a valid JSON list" if field is None else f"data.field {field!r} cannot be read"
        yield _bad(f"{what}: {_describe(error)}")


_IN_STRING = re.compile(r'[^"\\]*')
_WORD = re.compile(r'[^\s,:"\[\]{}]*')

_FIELDS_SHOWN = 20


class _ItemsOfArray:
    """Reads a JSON list, or what lies around it, a chunk at a time."""

    def __init__(self, letters: TextIO, most: int) -> None:
        self._letters = letters
        self._most = most
        self._text = ""
        self._place = 0

    def take_list(self) -> Iterator[Any]:
        """The items of the list that comes next."""
        self._expect("[")
        if self._peek() == "]":
            self._place += 1
            return
        yield self._take_item()
        while self._expect(",]") == ",":
            yield self._take_item()

    def take_field(self, name: str) -> Iterator[Any]:
        """The items of the list in a field of the object that comes next; other fields are passed over."""
        others: list[str] = []
        is_found = False
        end = self._expect("{")
        if self._peek() == "}":
            end = self._expect("}")
        while end != "}":
            found = self._take_item() if self._peek() == '"' else self._expect('"')
            self._expect(":")
            if found != name:
                others.append(found)
                del others[_FIELDS_SHOWN:]
                self._skip_value()
            elif is_found:
                raise ValueError("it is there twice")
            elif self._peek() != "[":
                raise ValueError("it holds no list")
            else:
                is_found = True
                yield from self.take_list()
            end = self._expect(",}")
        if not is_found:
            raise ValueError(f"there is no such field (the fields are: {', '.join(others)})")

    def expect_end(self) -> None:
        """Raises ValueError if there is more."""
        if self._peek():
            raise ValueError("more follows its end")

    def _skip_value(self) -> None:
        """Passes over a value of any size, as far as brackets and quotes tell where it ends."""
        depth = 0
        while True:
            letter = self._peek()
            if letter in "[{":
                depth += 1
            elif letter in "]}":
                depth -= 1
            if not letter or depth < 0 or (depth == 0 and letter in ",:"):
                raise ValueError(f"{letter!r} stands where a value must" if letter else "it ends early")
            if letter == '"':
                self._skip_string()
            elif letter in "[]{},:":
                self._place += 1
            else:
                self._skip_all(_WORD)
            if depth == 0:
                return

    def _skip_string(self) -> None:
        self._place += 1
        while self._skip_all(_IN_STRING) != '"':
            self._place += 2  # a backslash, and what it stands before
            if self._place > len(self._text):
                self._place = len(self._text)
                self._read_more()
                self._place += 1
        self._place += 1

    def _skip_all(self, letters: re.Pattern[str]) -> str:
        """Passes over such letters; the next one."""
        while True:
            skipped = letters.match(self._text, self._place)
            assert skipped
            self._place = skipped.end()
            if self._place < len(self._text):
                return self._text[self._place]
            if not self._read_more():
                raise ValueError("it ends early")

    def _read_more(self) -> bool:
        chunk = self._letters.read(_CHUNK_BYTES)
        self._text, self._place = self._text[self._place :] + chunk, 0
        return bool(chunk)

    def _peek(self) -> str:
        """The next letter that is not blank; "" at the end."""
        while True:
            blanks = _BLANKS.match(self._text, self._place)
            assert blanks
            self._place = blanks.end()
            if self._place < len(self._text):
                return self._text[self._place]
            if not self._read_more():
                return ""

    def _expect(self, letters: str) -> str:
        letter = self._peek()
        if not letter or letter not in letters:
            raise ValueError(
                f"{letter!r} stands where one of {letters!r} must" if letter else "it ends early"
            )
        self._place += 1
        return letter

    def _take_item(self) -> Any:
        self._peek()
        while True:
            try:
                item, end = _decode_object(self._text, self._place)
                # A number may go on in the next chunk.
                if end < len(self._text) or not self._read_more():
                    self._place = min(end, len(self._text))
                    return item
            except json.JSONDecodeError as error:
                is_cut = error.msg.startswith("Unterminated") or (
                    error.pos >= len(self._text) - _LONGEST_WORD_OF_JSON
                )
                if not is_cut or not self._read_more():
                    raise
            if _is_longer(self._text[self._place : -_CHUNK_BYTES], self._most):
                raise ValueError(f"an item of it: {_describe_longest(self._most)}")


def _to_object(row: Any) -> dict[str, Any] | BadRow:
    """An item of a JSON list; a string stands for a column `text`, as `datasets` has it."""
    if isinstance(row, str):
        return {"text": row}
    return row if isinstance(row, dict) else _bad("not a JSON object")


# === Columns of each format ===


def _find_schema_of_text(file: str, data: DataConfig) -> pa.Schema | None:
    with _open_text(file, data.max_text_bytes, encoding="utf-8") as lines:
        return pa.schema({"text": pa.string()}) if next(lines, None) is not None else None


def _find_schema_of_json(file: str, data: DataConfig) -> pa.Schema | None:
    """That of all the first rows only if a column is without a text, as it is for the message alone."""
    names = split_column_names(data)
    missing = set(names)
    example: dict[str, Any] = {}
    for row in islice(_read_objects(file, data.max_text_bytes, data.field), _FIRST_ROWS):
        if isinstance(row, dict):
            missing -= {
                name for name in missing if any(isinstance(p, str) for p in _collect(row, name, name))
            }
            if not missing:
                return pa.schema([(name, pa.string()) for name in names])
            example = _merge(example, row)
    return pa.schema(list(_infer_type(example))) if example else None


def _merge(known: Any, value: Any) -> Any:
    """An example of both: what is null or missing in the one is taken from the other."""
    if isinstance(known, dict) and isinstance(value, dict):
        return {key: _merge(known.get(key), value.get(key)) for key in known | value}
    if isinstance(known, list) and isinstance(value, list):
        return [reduce(_merge, known + value, None)]
    return value if known is None else known


def _infer_type(value: Any) -> pa.DataType:
    if isinstance(value, dict):
        return pa.struct([(key, _infer_type(item)) for key, item in value.items()])
    if isinstance(value, list):
        return pa.list_(_infer_type(reduce(_merge, value, None)))
    return _JSON_TYPES[type(value)]


_JSON_TYPES = {
    str: pa.string(),
    bool: pa.bool_(),
    int: pa.int64(),
    float: pa.float64(),
    NoneType: pa.null(),
}


def _find_schema_of_csv(file: str, data: DataConfig) -> pa.Schema | None:
    with _open_text(file, data.max_text_bytes, newline="") as lines:
        rows = filter(None, _read_records(lines, data.max_text_bytes))
        header, first = next(rows, None), next(rows, None)
    if not isinstance(header, list) or first is None:
        return None
    return pa.schema([(name, pa.string()) for name in _number_repeated(header)])


def _find_schema_of_parquet(file: str, data: DataConfig) -> pa.Schema | None:
    del data
    with _open_parquet(file) as table:
        return table.schema_arrow if table.metadata.num_rows else None


def _find_schema_of_arrow(file: str, data: DataConfig) -> pa.Schema | None:
    del data
    return read_schema(file)


_SCHEMAS: dict[str, Callable[[str, DataConfig], pa.Schema | None]] = {
    "arrow": _find_schema_of_arrow,
    "csv": _find_schema_of_csv,
    "json": _find_schema_of_json,
    "parquet": _find_schema_of_parquet,
    "text": _find_schema_of_text,
}


# === What one text of a text file is ===


def _sample_lines(lines: TextIO, most: int) -> Iterator[str]:
    del most  # no line is longer
    return (line.removesuffix("\n") for line in lines)


def _sample_paragraphs(lines: TextIO, most: int) -> Iterator[str]:
    """Paragraphs end at an empty line, as `datasets` has it; of a long one, enough to tell is kept."""
    paragraph: list[str] = []
    num_letters = 0
    for line in lines:
        if line == "\n" and paragraph:
            yield "".join(paragraph).removesuffix("\n")
            paragraph, num_letters = [], 0
        elif num_letters <= most + 1:
            paragraph.append(line)
            num_letters += len(line)
    yield "".join(paragraph)


def _sample_document(lines: TextIO, most: int) -> Iterator[str]:
    yield lines.read(most + 1)


_SAMPLERS: dict[str, Callable[[TextIO, int], Iterator[str]]] = {
    "document": _sample_document,
    "line": _sample_lines,
    "paragraph": _sample_paragraphs,
}
