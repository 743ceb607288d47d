"""Opens files that may be compressed, and bounds how much of a row is read.

A megabyte of gzip may hold a gigabyte without a line's end. So nothing reads a row before it is cut: one byte
over the limit is left of it, by which the reader tells that it was longer.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa

from tfmlm.data.remote_files import open_remote_file
from tfmlm.errors import UserError
from tfmlm.urls import hide_secrets, is_url

READ_ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError, pa.ArrowException)
"""Of a file that cannot be read, or of which a part cannot."""

CHUNK_BYTES = 1 << 20

COMPRESSED_SUFFIXES = ("", ".gz", ".gzip", ".bz2", ".xz", ".lzma", ".zst", ".zstd", ".lz4")
"""Ends of the names of files that can be read, as those that a folder stands for may have them."""

# === Kinds ===

_START_BYTES = 262

_TAR_NAME = slice(257, 262)
"""Where a tar archive says `ustar`."""

_ADVICE = "unpack it, or pack it again as .gz or .zst"

_UNREADABLE = {
    re.compile(rb"PK(\x03\x04|\x05\x06|\x07\x08)"): "a zip archive; give it a name that ends with .zip",
    re.compile(rb"7z\xbc\xaf\x27\x1c"): f"a 7z archive; {_ADVICE}",
    re.compile(rb"Rar!\x1a\x07"): f"a rar archive; {_ADVICE}",
    re.compile(rb"\x1f[\x9d\xa0]"): f"compressed by compress (.Z); {_ADVICE}",
    re.compile(rb"LZIP"): f"compressed by lzip; {_ADVICE}",
    re.compile(rb"\x89LZO\x00"): f"compressed by lzop; {_ADVICE}",
    re.compile(rb"\x02\x21\x4c\x18"): f"compressed by an old lz4; {_ADVICE}",
    re.compile(rb"\xff\x06\x00\x00sNaPpY"): f"compressed by snappy; {_ADVICE}",
    re.compile(rb"PAR1"): "Parquet; set data.source=parquet",
    re.compile(rb"ARROW1\x00\x00|FEA1|\xff{4}[\x00-\xff]{3}\x00\x10\x00\x00\x00"): (
        "Arrow; set data.source=arrow"
    ),
}
"""By the first bytes of a file, which are in no text: what it is, and what to do."""

_BROTLI_SUFFIX = ".br"
"""Its first bytes tell nothing."""


def open_bytes(file: str) -> BinaryIO:
    """Opens a file for reading, decompressed.

    Args:
        file: a path or a URL; gzip, bzip2, xz, zstd and lz4 are seen by their first bytes.

    Raises:
        UserError: it is of a kind that is not read, and none of its rows would be one.
        OSError: it cannot be opened.
    """
    with _open_as_it_is(file) as content:
        start = content.read(_START_BYTES)
    _refuse_unreadable(start, file)
    decompress = next(
        (decompress for magic, decompress in _DECOMPRESSORS.items() if magic.match(start)), None
    )
    if decompress is None:
        return _open_as_it_is(file)
    # Reading finds what is broken again, and says where.
    with suppress(*READ_ERRORS), decompress(file) as content:
        _refuse_unreadable(content.read(_START_BYTES), file)
    return decompress(file)


def _refuse_unreadable(start: bytes, file: str) -> None:
    kind = next((kind for magic, kind in _UNREADABLE.items() if magic.match(start)), None)
    if start[_TAR_NAME] == b"ustar":
        kind = f"a tar archive; {_ADVICE}"
    if file.endswith(_BROTLI_SUFFIX):
        kind = f"compressed by brotli; {_ADVICE}"
    if kind:
        raise UserError(f"{hide_secrets(file)} is {kind}")


def _open_as_it_is(file: str) -> BinaryIO:
    return open_remote_file(file) if is_url(file) else Path(file).open("rb")


def _open_by_library(open_compressed: Callable[[Any], Any]) -> Callable[[str], BinaryIO]:
    return lambda file: cast(BinaryIO, open_compressed(open_remote_file(file) if is_url(file) else file))


class _ArrowStream(io.RawIOBase):
    """A file that Arrow decompresses, which goes back only to its start."""

    def __init__(self, file: str, codec: str) -> None:
        super().__init__()
        self._file = file
        self._codec = codec
        self._begin()

    def _begin(self) -> None:
        self._compressed = _open_as_it_is(self._file)
        self._stream = pa.CompressedInputStream(pa.PythonFile(self._compressed, "r"), self._codec)
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        assert whence == io.SEEK_SET
        if offset < self._place:
            self._compressed.close()
            self._begin()
        while self._place < offset and self.readinto(bytearray(min(CHUNK_BYTES, offset - self._place))):
            pass
        return self._place

    def readinto(self, buffer: Any) -> int:
        part = self._stream.read(len(buffer))
        buffer[: len(part)] = part
        self._place += len(part)
        return len(part)

    def close(self) -> None:
        if not self.closed:
            self._compressed.close()
        super().close()


def _open_by_arrow(codec: str) -> Callable[[str], BinaryIO]:
    return lambda file: cast(BinaryIO, io.BufferedReader(_ArrowStream(file, codec), CHUNK_BYTES))


_DECOMPRESSORS: dict[re.Pattern[bytes], Callable[[str], BinaryIO]] = {
    re.compile(rb"\x1f\x8b"): _open_by_library(gzip.open),
    re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)"): _open_by_library(bz2.open),
    re.compile(rb"\xfd7zXZ\x00|\x5d\x00\x00"): _open_by_library(lzma.open),
    re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"): _open_by_arrow("zstd"),
    re.compile(rb"\x04\x22\x4d\x18"): _open_by_arrow("lz4"),
}
"""By the first bytes of a file, which are in no text."""

# === Rows ===


def cut_rows(content: BinaryIO, most: int) -> BinaryIO:
    """The same bytes, without what is more than `most` + 1 of them in a line."""
    return cast(BinaryIO, io.BufferedReader(_CutRows(content, most + 1), CHUNK_BYTES))


class _CutRows(io.RawIOBase):
    """Cuts lines, which end as for `open`; closing it closes what it reads.

    Of a line with an odd number of quotes in the part that goes one is kept: CSV may go on in the next line.
    """

    def __init__(self, content: BinaryIO, most: int) -> None:
        super().__init__()
        self._content = content
        self._most = most
        self._length = 0  # of the line that was begun
        self._num_quotes = 0  # in the part of it that went

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            # No more than is there at once: what comes before an error must not be lost with it.
            part = self._content.read1(len(buffer))  # type: ignore[attr-defined]
            if not part:
                return 0
            buffer[: len(part)] = part
            kept = self._cut(buffer, part)
            if kept:
                return kept

    def _cut(self, buffer: Any, chunk: bytes) -> int:
        """Removes from the chunk in the buffer what is too much of the line that goes on in it."""
        num_bytes = len(chunk)
        last_end = _find_last_end(chunk)
        length = self._length
        self._length = num_bytes - 1 - last_end if last_end >= 0 else length + num_bytes
        if length + num_bytes <= self._most:
            return num_bytes
        of_line = num_bytes if last_end < 0 else _find_first_end(chunk)
        kept = max(0, min(of_line, self._most - length))
        if kept < of_line:
            self._num_quotes += chunk.count(b'"', kept, of_line)
            quote = b'"' if last_end >= 0 and self._num_quotes % 2 else b""
            chunk = chunk[:kept] + quote + chunk[of_line:]
            buffer[: len(chunk)] = chunk
        if last_end >= 0:
            self._num_quotes = 0
        return len(chunk)

    def close(self) -> None:
        if not self.closed:
            self._content.close()
        super().close()


def _find_last_end(chunk: bytes) -> int:
    newline = chunk.rfind(b"\n")
    return max(newline, chunk.rfind(b"\r", newline + 1))


def _find_first_end(chunk: bytes) -> int:
    newline = chunk.find(b"\n")
    first = chunk.find(b"\r", 0, newline if newline >= 0 else len(chunk))
    return first if first >= 0 else newline
