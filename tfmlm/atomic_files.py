"""Files that get their name when they are whole: a kill, or a full disk, leaves the old one or none."""

from __future__ import annotations

import os
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
