"""The folder of an export, `NAME/VERSION/`: its versions, the next number, and what lies in a version."""

from __future__ import annotations

import errno
import logging
import shutil
import time
import uuid
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from tfmlm.errors import UserError

logger = logging.getLogger("tfmlm.export_layout")

EXTRA_DIR = "assets.extra"
"""TensorFlow Serving leaves alone what lies in it, but for the warm-up requests."""

TOKENIZER_DIR = f"{EXTRA_DIR}/tokenizer"
"""The tokenizer, as a Hugging Face folder."""

DESCRIPTION_FILE = f"{EXTRA_DIR}/export.json"
"""Tells clients which model it is, and what it takes."""

WARMUP_FILE = f"{EXTRA_DIR}/tf_serving_warmup_requests"
"""Where TensorFlow Serving looks for requests to run before a version is served."""

BATCHING_FILE = "batching_params.pbtxt"
"""Where TensorFlow Serving looks, if it runs with --enable_per_model_batching_parameters."""

_MAX_VERSION = 2**63 - 1
"""TensorFlow Serving's version numbers have 64 bits."""

_UNFINISHED = ".unfinished-"
_ABANDONED_SECONDS = 24 * 3600.0


def list_versions(folder: Path) -> list[int]:
    """Numbers of the versions that TensorFlow Serving would find in an export's folder.

    Those are the folders that an integer names, written the plain way, with a SavedModel in them.

    Raises:
        OSError: the folder cannot be read.
    """
    numbers = read_versions([path.name for path in folder.iterdir()], str(folder))
    return [number for number in numbers if (folder / str(number) / "saved_model.pb").is_file()]


def begin_version(folder: Path) -> Path:
    """A new folder for a version that is being written; TensorFlow Serving, which takes numbers, sees it not.

    What exports that were killed have left for a day is removed.

    Raises:
        OSError: the folder cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(f"{_UNFINISHED}*"):
        if time.time() - left.stat().st_mtime > _ABANDONED_SECONDS:
            shutil.rmtree(left, ignore_errors=True)
    unfinished = folder / f"{_UNFINISHED}{uuid.uuid4().hex}"
    unfinished.mkdir()  # not `mkdtemp`, whose folder the server's user could not read
    return unfinished


def add_version(finished: Path, folder: Path) -> Path:
    """Gives a finished version, which lies in the same folder, the next number; several may do so at once.

    Returns:
        Where it lies now.

    Raises:
        OSError: it cannot be renamed.
        UserError: there is no next number.
    """
    while True:
        number = find_next_version([path.name for path in folder.iterdir()], str(folder))
        try:
            return finished.rename(folder / str(number))
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # another export took the number meanwhile
                raise


def find_next_version(names: Iterable[str], where: str) -> int:
    """The number after whatever has one, so that nothing that lies there is in the way.

    Args:
        names: of what lies in an export's folder.
        where: the folder, for messages.

    Raises:
        UserError: there is no next number.
    """
    number = max(read_versions(names, where), default=0) + 1
    if number > _MAX_VERSION:
        raise UserError(f"{where!r} has the last number as a version, {_MAX_VERSION}; rename it")
    return number


def read_versions(names: Iterable[str], where: str) -> list[int]:
    """The numbers among the names in an export's folder, those that are integers, written the plain way.

    Args:
        names: of what lies there.
        where: the folder, for a warning.
    """
    plain = [name for name in names if name.isascii() and name.isdigit() and str(int(name)) == name]
    for name in plain:
        if int(name) > _MAX_VERSION:
            _warn_of(f"{where}/{name}")
    return [int(name) for name in plain if int(name) <= _MAX_VERSION]


@cache
def _warn_of(version: str) -> None:
    """Once, for the server lists a folder every second."""
    logger.warning("%s is no version: its number is larger than %d", version, _MAX_VERSION)
