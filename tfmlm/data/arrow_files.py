"""Reads Arrow's files a record batch at a time: streams, as `datasets` writes them, and Feather.

A local file is mapped into memory, so that of an uncompressed batch only what is looked at is read. A batch
may be compressed, and a megabyte hold a terabyte, so what it would come to is read from its head first.
Layout: https://arrow.apache.org/docs/format/Columnar.html#serialization-and-interprocess-communication-ipc
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import pyarrow as pa
from pyarrow import ipc

from tfmlm.data.remote_files import open_remote_file
from tfmlm.errors import UserError
from tfmlm.urls import hide_secrets, is_url

_FILE_MAGIC = b"ARROW1"
_FEATHER_1_MAGIC = b"FEA1"
_STREAM_START = 8
"""Where in a file, after its magic, the same bytes begin that a stream has."""

_MOST_BYTES = 2**31
"""Of a compressed batch, once it is decompressed; what a writer makes in one piece has some ten megabytes."""

_MOST_ROWS = 2**24
"""Of a batch without a bit for each of them: nobody writes that, and to go through them may take for ever."""


class UnreadBatch(NamedTuple):
    """A batch that is left out.

    Attributes:
        num_rows: in it.
        reason: why.
    """

    num_rows: int
    reason: str


def iterate_batches(file: str) -> Iterator[pa.RecordBatch | UnreadBatch]:
    """The record batches of a file in order, their buffers checked for size and nothing else.

    Args:
        file: a path or a URL.

    Raises:
        UserError: it is of a kind that is not read.
        OSError, pa.ArrowException: it cannot be read, or ends before its end.
    """
    with _opened(file) as source:
        schema_message, schema, messages = _begin(source)
        has_dictionaries = any(map(_has_dictionary, schema.types))
        dictionaries: list[ipc.Message] = []
        num_batches = 0
        place = source.tell()
        for message in messages:
            place = source.tell()
            num_rows, num_bytes = _measure(message)
            if message.type == "dictionary":
                if num_bytes > _MOST_BYTES:
                    raise pa.ArrowInvalid(_describe_large("a dictionary of it", num_bytes))
                dictionaries.append(message)
                continue
            num_batches += 1
            is_large = num_bytes > max(_MOST_BYTES, message.body.size)
            if num_rows > _MOST_ROWS and (is_large or num_rows > 8 * num_bytes):
                raise pa.ArrowInvalid(f"its batch {num_batches} claims {num_rows:,} rows")
            if is_large:
                yield UnreadBatch(num_rows, _describe_large(f"its batch {num_batches}", num_bytes))
            elif has_dictionaries:
                yield _decode_with([schema_message, *dictionaries, message])
            else:
                yield ipc.read_record_batch(message, schema)
        if source.tell() == place:
            raise pa.ArrowInvalid("it ends without the mark of its end, as what was cut short does")
        _check_rest(source, num_batches)


def count_rows(file: str) -> int:
    """Rows of a file, by the heads of its batches.

    Raises:
        UserError, OSError, pa.ArrowException: as for `iterate_batches`.
    """
    with _opened(file) as source:
        _, _, messages = _begin(source)
        return sum(_measure(message)[0] for message in messages if message.type == "record batch")


def read_schema(file: str) -> pa.Schema | None:
    """The columns of a file; None if it holds no row.

    Raises:
        UserError, OSError, pa.ArrowException: as for `iterate_batches`.
    """
    with _opened(file) as source:
        _, schema, messages = _begin(source)
        batches = (message for message in messages if message.type == "record batch")
        return schema if any(_measure(message)[0] for message in batches) else None


@contextmanager
def _opened(file: str) -> Iterator[pa.NativeFile]:
    if not is_url(file):
        with pa.memory_map(file) as mapped:
            _refuse_others(mapped, file)
            yield mapped
        return
    with open_remote_file(file) as content, pa.PythonFile(content, "r") as source:
        _refuse_others(source, file)
        yield source


def _refuse_others(source: pa.NativeFile, file: str) -> None:
    """Refuses what is no Arrow, and puts the place to where a stream begins."""
    start = source.read(_STREAM_START)
    source.seek(_STREAM_START if start.startswith(_FILE_MAGIC) else 0)
    name = hide_secrets(file)
    if start.startswith(_FEATHER_1_MAGIC):
        raise UserError(f"{name} is Feather of version 1; write it again with a pyarrow of today")
    if start.startswith(b"PAR1"):
        raise UserError(f"{name} is Parquet; set data.source=parquet")
    if start.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18")):
        raise UserError(
            f"{name} is compressed as a whole; unpack it, or write Arrow whose batches are compressed"
        )


def _begin(source: pa.NativeFile) -> tuple[ipc.Message, pa.Schema, Iterator[ipc.Message]]:
    messages = ipc.MessageReader.open_stream(source)
    first = next(messages, None)
    if first is None or first.type != "schema":
        raise pa.ArrowInvalid("it begins with no schema")
    schema = ipc.read_schema(first)
    try:
        for of in schema.types:
            _list_fields(of)
        _ = schema.names
    except UnicodeDecodeError as error:
        raise pa.ArrowInvalid("the name of a column is not UTF-8") from error
    return first, schema, messages


def _list_fields(of: pa.DataType) -> list[tuple[str, pa.DataType]]:
    """Names and types of what a type is made of, at any depth."""
    fields = [of.field(number) for number in range(of.num_fields)]
    return [(field.name, field.type) for field in fields] + [
        inner for field in fields for inner in _list_fields(field.type)
    ]


def _has_dictionary(of: pa.DataType) -> bool:
    return any(map(pa.types.is_dictionary, [of, *(inner for _, inner in _list_fields(of))]))


def _decode_with(messages: list[ipc.Message]) -> pa.RecordBatch:
    """The last message, which needs those before it; Arrow takes them as a stream alone."""
    stream = pa.BufferOutputStream()
    for message in messages:
        message.serialize_to(stream)
    return ipc.open_stream(stream.getvalue()).read_next_batch()


def _check_rest(source: pa.NativeFile, num_batches: int) -> None:
    """Refuses what goes on after the mark of its end, or has a footer that tells otherwise."""
    num_further = source.size() - source.tell()
    source.seek(0)
    if source.read(len(_FILE_MAGIC)) == _FILE_MAGIC:
        source.seek(0)
        if ipc.open_file(source).num_record_batches != num_batches:
            raise pa.ArrowInvalid("its footer counts other batches than it holds")
    elif num_further:
        raise pa.ArrowInvalid(f"{num_further:,} bytes follow its end")


# === Heads: tables of flatbuffers, whose fields lie where a second table says ===

_NUM_ROWS, _BUFFERS, _COMPRESSION = 0, 2, 3  # fields of a record batch
_HEADER = 2  # of a message
_DATA = 1  # of a dictionary


def _measure(message: ipc.Message) -> tuple[int, int]:
    """Rows of a record batch, or entries of a dictionary, and bytes that its buffers come to.

    Fields: https://github.com/apache/arrow/blob/main/format/Message.fbs
    """
    head = memoryview(message.metadata)
    try:
        batch = _follow(head, _find_field(head, _follow(head, 0), _HEADER))
        if message.type == "dictionary":
            batch = _follow(head, _find_field(head, batch, _DATA))
        place = _find_field(head, batch, _NUM_ROWS)
        num_rows = _unpack("<q", head, place) if place else 0
        body = memoryview(message.body) if message.body else memoryview(b"")
        if not _find_field(head, batch, _COMPRESSION):
            return num_rows, len(body)
        buffers = _follow(head, _find_field(head, batch, _BUFFERS))
        num_bytes = 0
        for number in range(_unpack("<I", head, buffers)):
            start, length = struct.unpack_from("<qq", head, buffers + 4 + 16 * number)
            if length:
                in_whole = _unpack("<q", body, start)
                num_bytes += length if in_whole < 0 else in_whole  # -1 stands before what is not compressed
    except (struct.error, IndexError) as error:
        raise pa.ArrowInvalid("the head of a batch is broken") from error
    return num_rows, num_bytes


def _find_field(head: memoryview, table: int, number: int) -> int:
    """Where a field of a table lies; 0 if it is not there."""
    places = table - _unpack("<i", head, table)
    slot = 4 + 2 * number
    offset = _unpack("<H", head, places + slot) if slot < _unpack("<H", head, places) else 0
    return table + offset if offset else 0


def _follow(head: memoryview, place: int) -> int:
    return place + _unpack("<I", head, place)


def _unpack(kind: str, content: memoryview, place: int) -> int:
    if place < 0:
        raise IndexError(place)
    return int(struct.unpack_from(kind, content, place)[0])


def _describe_large(what: str, num_bytes: int) -> str:
    return f"{what} takes {num_bytes:,} bytes of memory; write it in smaller batches"
