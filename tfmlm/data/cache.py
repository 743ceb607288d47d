"""Folders that are made once and found again by a fingerprint of everything that went into them."""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import xxhash
from filelock import FileLock, Timeout

from tfmlm.atomic_files import begin_shared_folder, write_atomically
from tfmlm.errors import FULL_DISK_NUMBERS, UserError, reason_of

_LOGGER = logging.getLogger(__name__)

_SUMS_NAME = ".sums.json"
"""Stamp and hash of each file of a cached folder, by name; written last."""

_READ_BYTES = 2**22
_END_BYTES = 2**16

_SETTLED_SECONDS = 2.0
"""A file that was changed as lately as this may be changed again without another time."""


def cache_dir() -> Path:
    """`TFMLM_CACHE`, or `tfmlm` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("TFMLM_CACHE") or Path(base, "tfmlm"))


def make_once(name: str, write: Callable[[Path], object]) -> Path:
    """Returns the cached folder `name`, written first if it is not there or damaged.

    Of several processes one writes, and the others wait for it.

    Args:
        name: of the folder, which must hold the fingerprint of its contents' origin.
        write: makes the folder at the path that it is given. It gets its name only when it is whole, so an
            interrupted run, or two at once, leave no broken cache.

    Raises:
        UserError: the cache cannot be written.
    """
    folder = cache_dir() / name
    try:
        if not _is_whole(folder):
            with _holding(folder):
                if not _is_whole(folder):
                    _write_folder(folder, write)
    except OSError as error:
        # An error of what `write` reads is not the cache's.
        if error.errno not in FULL_DISK_NUMBERS and not _names_a_file_in(folder.parent, error):
            raise
        raise UserError(
            f"cache {str(folder.parent)!r} cannot be written: {reason_of(error)}; make room, or set "
            "TFMLM_CACHE to another folder"
        ) from error
    return folder


@contextmanager
def _holding(folder: Path) -> Iterator[None]:
    """Keeps other processes, on other machines too, from making the same folder at the same time."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        _LOGGER.info("waiting for another process, which makes %s", folder)
        lock.acquire()
    except NotImplementedError:  # a file system without locks: both make it, and the first one's stays
        pass
    try:
        yield
    finally:
        lock.release()


def _write_folder(folder: Path, write: Callable[[Path], object]) -> None:
    if folder.exists():
        _LOGGER.warning("cached file %s is damaged, and is made again", _find_damaged(folder))
        shutil.rmtree(folder, ignore_errors=True)
    with begin_shared_folder(folder) as unfinished:
        write(unfinished)
        sums = {name: [_stamp(path), _hash(path)] for name, path in _list_files(unfinished).items()}
        (unfinished / _SUMS_NAME).write_text(json.dumps(sums), encoding="utf-8")


def _is_whole(folder: Path) -> bool:
    """True if every file is as it was written: blocks that a disk has altered would be trained on.

    A file whose size, time and ends are the same is not read, which would take a second a gigabyte.
    """
    return folder.exists() and _find_damaged(folder) is None


def _find_damaged(folder: Path) -> Path | None:
    """The first file that is not as it was written."""
    sums_file = folder / _SUMS_NAME
    try:
        sums: dict[str, list[Any]] = json.loads(sums_file.read_text(encoding="utf-8"))
        files = _list_files(folder)
        for name in sorted({*sums, *files}):
            if name not in sums or name not in files:
                return folder / name
            stamp, digest = sums[name]
            if _stamp(files[name]) != stamp and _hash(files[name]) != digest:
                return files[name]
    except (OSError, ValueError, TypeError):
        return sums_file
    return None


def _list_files(folder: Path) -> dict[str, Path]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != _SUMS_NAME)
    return {path.relative_to(folder).as_posix(): path for path in files}


def hash_once(path: Path) -> str:
    """A hash of a file, which is kept with a stamp of it, so that the next start need not read it whole.

    Raises:
        OSError: the file cannot be read.
    """
    kept = cache_dir() / "hashes" / f"{xxhash.xxh3_128_hexdigest(os.fsencode(path.resolve()))}.json"
    stamp = _stamp(path)
    with suppress(OSError, ValueError, TypeError):
        kept_stamp, digest = json.loads(kept.read_text(encoding="utf-8"))
        if kept_stamp == stamp:
            return str(digest)
    digest = _hash(path)
    if time.time() - path.stat().st_mtime > _SETTLED_SECONDS:
        with suppress(OSError):  # where nothing can be kept it is read again
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(kept, json.dumps([stamp, digest]))
    return digest


def _stamp(path: Path) -> list[int | str]:
    """Size, time of the last change, and a hash of both ends."""
    status = path.stat()
    with path.open("rb") as file:
        digest = xxhash.xxh3_128(file.read(_END_BYTES))
        file.seek(max(0, status.st_size - _END_BYTES))
        digest.update(file.read(_END_BYTES))
    return [status.st_size, status.st_mtime_ns, digest.hexdigest()]


def _hash(path: Path) -> str:
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while part := file.read(_READ_BYTES):
            digest.update(part)
    return digest.hexdigest()


def _names_a_file_in(folder: Path, error: OSError) -> bool:
    return isinstance(error.filename, str | os.PathLike) and Path(error.filename).is_relative_to(folder)
