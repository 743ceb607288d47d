"""Files and folders that get their name when they are whole.

A kill, or a full disk, leaves the old one or none. For files on a remote file system there is
`atomic_remote_files`, and for the versions of an export, which get their number at the end, `export_layout`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def begin_file(path: Path) -> Iterator[Path]:
    """Gives a temporary name beside `path`, which becomes `path` when the block ends well.

    Whatever the block raises, `path` is as it was before, and nothing stays of the new file.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield unfinished
        unfinished.replace(path)
    except BaseException:
        # Where a folder on the way is a file, there is nothing to remove either.
        with suppress(OSError):
            unfinished.unlink()
        raise


def write_atomically(path: Path, text: str) -> None:
    """Writes a text file as a whole.

    Raises:
        OSError: it cannot be written.
    """
    with begin_file(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


@contextmanager
def begin_folder(path: Path) -> Iterator[Path]:
    """Gives an empty folder beside `path`, which takes its place when the block ends well.

    Only one process may do so at a time. What one that was killed has left of `path` is removed.

    Raises:
        OSError: the folder cannot be made. Whatever is raised, `path` is as it was before.
    """
    unfinished, old = path.with_name(f".{path.name}"), path.with_name(f".{path.name}.old")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        yield unfinished
        # Two renames and not a removal first: a kill leaves the old folder whole, or none, but no half.
        shutil.rmtree(old, ignore_errors=True)
        if path.exists():
            path.rename(old)
        unfinished.rename(path)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        if old.exists() and not path.exists():
            old.rename(path)
        raise


@contextmanager
def begin_shared_folder(path: Path) -> Iterator[Path]:
    """Gives a name beside `path` for a folder to make, which becomes `path` when the block ends well.

    Several processes may do so at once: the folder of the first stays, for others may read it already.

    Raises:
        OSError: the folder cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".writing-") as scratch:
        unfinished = Path(scratch, path.name)
        yield unfinished
        try:
            unfinished.replace(path)
        except OSError:
            if not path.is_dir():
                raise


def take_over(source: Path, target: Path) -> None:
    """Makes what stays as it is now: links what is in a folder, for it never changes and may only be removed.

    A single file, which may go on growing, is copied.

    Raises:
        OSError: it is gone, or there is no room.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, copy_function=_link)
    else:
        shutil.copy2(source, target)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # some file systems have no links
        shutil.copy2(source, target)
