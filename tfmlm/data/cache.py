"""Folders that are made once and found again by a fingerprint of everything that went into them."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import xxhash

from tfmlm.atomic_files import begin_shared_folder
from tfmlm.errors import FULL_DISK_NUMBERS, UserError, reason_of

_LOGGER = logging.getLogger(__name__)

_SUMS_NAME = ".sums.json"
"""Hashes of the files of a cached folder, by name; written last."""

_READ_BYTES = 2**22


def cache_dir() -> Path:
    """`TFMLM_CACHE`, or `tfmlm` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("TFMLM_CACHE") or Path(base, "tfmlm"))


def make_once(name: str, write: Callable[[Path], object]) -> Path:
    """Returns the cached folder `name`, written first if it is not there or damaged.

    Finding it reads it whole, about a second a gigabyte: blocks that a disk has altered would be trained on.

    Args:
        name: of the folder, which must hold the fingerprint of its contents' origin.
        write: makes the folder at the path that it is given. It gets its name only when it is whole, so an
            interrupted run, or two at once, leave no broken cache.

    Raises:
        UserError: the cache cannot be written.
    """
    folder = cache_dir() / name
    if folder.exists():
        damaged = _find_damaged(folder)
        if damaged is None:
            return folder
        _LOGGER.warning("cached file %s is damaged, and is made again", damaged)
        shutil.rmtree(folder, ignore_errors=True)
    try:
        with begin_shared_folder(folder) as unfinished:
            write(unfinished)
            (unfinished / _SUMS_NAME).write_text(json.dumps(_hash_files(unfinished)), encoding="utf-8")
    except OSError as error:
        # An error of what `write` reads is not the cache's.
        if error.errno not in FULL_DISK_NUMBERS and not _names_a_file_in(folder.parent, error):
            raise
        raise UserError(
            f"cache {str(folder.parent)!r} cannot be written: {reason_of(error)}; make room, or set "
            "TFMLM_CACHE to another folder"
        ) from error
    return folder


def _find_damaged(folder: Path) -> Path | None:
    """The first file that is not as it was written."""
    sums_file = folder / _SUMS_NAME
    try:
        expected = json.loads(sums_file.read_text(encoding="utf-8"))
        found = _hash_files(folder)
    except (OSError, ValueError):
        return sums_file
    differing = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
    return folder / differing[0] if differing else None


def _hash_files(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != _SUMS_NAME]
    return {path.relative_to(folder).as_posix(): _hash(path) for path in files}


def _hash(path: Path) -> str:
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while part := file.read(_READ_BYTES):
            digest.update(part)
    return digest.hexdigest()


def _names_a_file_in(folder: Path, error: OSError) -> bool:
    return isinstance(error.filename, str | os.PathLike) and Path(error.filename).is_relative_to(folder)
