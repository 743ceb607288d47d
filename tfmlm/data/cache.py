"""Files that are made once and found again by a fingerprint of everything that went into them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def cache_dir() -> Path:
    """`TFMLM_CACHE`, or `tfmlm` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("TFMLM_CACHE") or Path(base, "tfmlm"))


def make_once(name: str, write: Callable[[Path], object]) -> Path:
    """Returns the cached file `name`, written first if it is not there.

    Args:
        name: file name, which must hold the fingerprint of its contents' origin.
        write: writes the file at the path that it is given. The file gets its name only when it is whole, so
            an interrupted run, or two at once, leave no broken cache.
    """
    path = cache_dir() / name
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".writing-") as folder:
        unfinished = Path(folder, name)
        write(unfinished)
        try:
            unfinished.replace(path)
        except OSError:  # a folder does not replace the one that another process has finished meanwhile
            if not path.is_dir():
                raise
    return path
