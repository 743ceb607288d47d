"""Files on other machines, by the drivers of fsspec: `s3://`, `gs://`, `https://` and whatever else it knows.

Whatever a driver raises ends in one line, and so does a file that ends before its length: a connection that
breaks must not look like the end of the text. What may pass is tried again by the drivers, and not here.
"""

from __future__ import annotations

import io
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

import fsspec
import xxhash
from fsspec.config import apply_config
from fsspec.utils import glob_translate

from tfmlm.errors import UserError, first_line
from tfmlm.urls import hide_secrets, hide_secrets_in, lacks_secrets

_WEB = ("http", "https")

_WILDCARD = re.compile("[*?[]")

_IDENTITIES = (
    *("md5hash", "content-md5", "content_md5", "etag", "digest", "checksum", "generation", "sha"),
    *("last-modified", "lastmodified", "last_modified", "mtime", "modified", "updated", "modify"),
)
"""What file systems call a hash, a version or the time of the last change of a file; the surest first."""

_BUFFER_BYTES = 2**18


# === Names ===


def find_remote_files(pattern: str, suffixes: tuple[str, ...]) -> list[str]:
    """The URLs that one with wildcards, or a folder, stands for, sorted; that of a file is itself.

    Args:
        pattern: a URL. HTTP lists nothing, so that there it must be that of a file.
        suffixes: of the files that a folder stands for.

    Raises:
        UserError: the file system cannot be reached, or there is no such file.
    """
    if lacks_secrets(pattern):
        raise UserError(
            f"{pattern} is without its secret, which is never written down; give the whole URL in "
            "data.train_files and data.validation_files again"
        )
    with _explained(pattern):
        fs, path = _connect(pattern)
        if _is_web(fs):
            _check_web(pattern, fs, path)
            return [pattern]
        fs.invalidate_cache()  # files may have come since this process last looked
        if _WILDCARD.search(path) and not fs.isfile(path):
            found = list(_glob(fs, path))
        elif fs.info(path)["type"] == "directory":
            found = [name for name in _walk(fs, path) if name.endswith(suffixes)]
        else:
            return [pattern]
    return _name_found(pattern, path, found)


def _glob(fs: Any, path: str) -> Iterator[str]:
    start = _WILDCARD.split(path)[0]
    folder, rest = start.rpartition("/")[0], path[start.rfind("/") + 1 :]
    return filter(re.compile(glob_translate(path)).match, _walk(fs, folder, "**" in path, rest.count("/")))


def _walk(fs: Any, folder: str, is_endless: bool = True, depth: int = 0) -> Iterator[str]:
    """Files below a folder; those of fsspec itself leave out what cannot be listed, without a word."""
    for info in fs.ls(folder, detail=True):
        name = info["name"]
        if info["type"] == "directory":
            if (is_endless or depth) and name.rstrip("/") != folder.rstrip("/"):
                yield from _walk(fs, name, is_endless, depth - 1)
        elif not name.endswith("/"):  # in a bucket, an object that stands for the folder
            yield name


def _check_web(url: str, fs: Any, path: str) -> None:
    if re.search("[*[]", re.sub(r"^\w+://[^/]*|[?#].*", "", url)):
        raise UserError(f"{hide_secrets(url)} has wildcards, and HTTP lists no files; name each of them")
    # A server answers the URL of a folder with a page about it.
    if str(fs.info(path).get("url", path)).endswith("/"):
        raise UserError(f"{hide_secrets(url)} is a folder, and HTTP lists no files; name each of them")


def _name_found(pattern: str, path: str, found: list[str]) -> list[str]:
    """The same beginning as the user's, which may hold a host; a driver's own names are without."""
    url = pattern.rstrip("/")
    if found and not url.endswith(path):
        raise UserError(f"{hide_secrets(pattern)} cannot be listed; name each of its files")
    return sorted(url.removesuffix(path) + name for name in found)


# === Identity ===


def identify_remote_file(url: str) -> str:
    """What tells the present version of a file from others, without reading it where that can be.

    Relied on is what the file system tells: a hash of the contents or an ETag, or else the time of the last
    change, which over HTTP is one of whole seconds; with it goes the length. Where it tells none of these,
    the file is read.

    Raises:
        UserError: the file cannot be reached.
    """
    with _explained(url):
        fs, path = _connect(url)
        info = {key.lower(): value for key, value in fs.info(path).items()}
    known = next((f"{name} {info[name]}" for name in _IDENTITIES if info.get(name)), None)
    return f"{url} {info['size']} {known}" if known else _hash(url)


def _hash(url: str) -> str:
    digest = xxhash.xxh3_128()
    with open_remote_file(url) as file:
        while part := file.read(_BUFFER_BYTES):
            digest.update(part)
    return digest.hexdigest()


# === Contents ===


def open_remote_file(url: str) -> BinaryIO:
    """Opens a file for reading, at any place.

    Raises:
        UserError: it cannot be read; reading it raises the same, as soon as that turns out.
    """
    return cast(BinaryIO, io.BufferedReader(_RemoteFile(url), _BUFFER_BYTES))


class _RemoteFile(io.RawIOBase):
    """A file of a driver, at a place of its own: in memory, two readers of a file are given the same one."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self._place = 0
        with _explained(url):
            self._fs, self._path = _connect(url)
            self._file = self._fs.open(self._path, "rb")
            size = getattr(self._file, "size", None)
            self._size = self._fs.size(self._path) if size is None else size
        if self._size is None:
            raise UserError(
                f"{hide_secrets(url)} cannot be read: the server does not say how long it is, so a broken "
                "connection would look like its end; copy it to this machine"
            )

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), self._size - self._place)
        if wanted <= 0:
            return 0
        with _explained(self._url, f" after {self._place:,} of {self._size:,} bytes"):
            part = self._read(wanted)
            if not part:
                raise EOFError("it ends there")
        buffer[: len(part)] = part
        self._place += len(part)
        return len(part)

    def _read(self, num_bytes: int) -> bytes:
        try:
            self._file.seek(self._place)
            return bytes(self._file.read(num_bytes))
        except ValueError:
            # A server that sends no part of a file but its beginning.
            if not _is_web(self._fs) or isinstance(self._file, io.BufferedRandom):
                raise
            self._file = tempfile.TemporaryFile()  # noqa: SIM115
            self._fs.get_file(self._path, self._file)
            return self._read(num_bytes)

    def close(self) -> None:
        if not self.closed and hasattr(self, "_file"):
            self._file.close()
        super().close()


# === Drivers ===


def _connect(url: str) -> tuple[Any, str]:
    """The file system, of which fsspec keeps one for each process, a fork too, and the file's name in it."""
    options = {name: _web_options(name) for name in _WEB if f"{name}://" in url}
    if url.startswith("zip://"):
        options["zip"] = {"skip_instance_cache": True}  # else a new archive of the same name is not seen
    fs, path = fsspec.url_to_fs(url, **options)
    return fs, path


def _web_options(name: str) -> dict[str, Any]:
    """Proxies and `.netrc` count, and nothing is compressed on the way, which would change lengths."""
    own: dict[str, Any] = apply_config(fsspec.get_filesystem_class(name), {})
    return own | {
        "headers": {"Accept-Encoding": "identity"} | own.get("headers", {}),
        "client_kwargs": {"trust_env": True} | own.get("client_kwargs", {}),
    }


def _is_web(fs: Any) -> bool:
    return "http" in fs.protocol


@contextmanager
def _explained(url: str, where: str = "") -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # each driver has the errors of its own library
        shown = hide_secrets(url)
        reason = hide_secrets_in(_reason_of(error).replace(url, shown))
        raise UserError(f"{shown} cannot be read{where}: {reason}; {_advise(url, error)}") from error


def _reason_of(error: Exception) -> str:
    # Over HTTP every failure to open a file is said to be a file that is not there.
    cause = error.__cause__ if isinstance(error, FileNotFoundError) and error.__cause__ else error
    if hasattr(cause, "status") and hasattr(cause, "message"):
        return f"{cause.status} {cause.message}"
    if isinstance(cause, TimeoutError):
        return "no answer in time"
    return "no such file" if cause is error and isinstance(error, FileNotFoundError) else first_line(cause)


def _advise(url: str, error: Exception) -> str:
    scheme = url.partition("://")[0]
    if isinstance(error, ImportError):
        missing = getattr(error.__cause__ or error, "name", None)
        return f"pip install {missing}" if missing and missing in str(error) else "install its driver"
    if scheme == "zip":
        return "fetch the archive again, or unpack it"
    return (
        "check data.train_files and data.validation_files, the connection, and the credentials for "
        f"{scheme}:// in this environment"
    )
