"""The docstrings of the Python packages in this environment: real text on every machine, no network."""

from __future__ import annotations

import ast
import multiprocessing
import site
import sys
import sysconfig
import warnings
from collections.abc import Sequence
from multiprocessing.pool import Pool
from pathlib import Path
from types import ModuleType

import xxhash
from datasets import Dataset, load_from_disk

from tfmlm.data.cache import make_once

MIN_CHARACTERS = 100
"""Shorter docstrings are mostly one formula such as "See base class." and teach little."""


def load_installed_docs(num_proc: int) -> Dataset:
    """Every distinct docstring of the installed packages, in a stable order, cached until a package changes.

    Args:
        num_proc: parsing processes.

    Returns:
        One string column, `text`, ordered by path and place.
    """
    files = list_source_files()
    fingerprint = xxhash.xxh3_128(str(MIN_CHARACTERS).encode())
    for path in files:
        status = path.stat()
        fingerprint.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    folder = make_once(
        f"docs-{fingerprint.hexdigest()}",
        lambda unfinished: Dataset.from_dict({"text": read_docstrings(files, num_proc)}).save_to_disk(
            unfinished
        ),
    )
    return load_from_disk(folder)


def list_source_files() -> list[Path]:
    """Python files of the installed packages, sorted."""
    folders = {Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")}
    if site.ENABLE_USER_SITE:
        folders.add(Path(site.getusersitepackages()))
    return sorted({path for folder in folders for path in folder.rglob("*.py") if path.is_file()})


def read_docstrings(files: Sequence[Path], num_proc: int = 1) -> list[str]:
    """Docstrings of at least `MIN_CHARACTERS` characters, duplicates dropped, in the order of the files.

    The files are parsed, never imported. A file that this Python cannot parse is passed over.
    """
    if num_proc == 1:
        found = [_parse_docstrings(file) for file in files]
    else:
        with _start_processes(num_proc) as pool:
            found = pool.map(_parse_docstrings, files, chunksize=64)
    return list(dict.fromkeys(text for texts in found for text in texts))


def _start_processes(number: int) -> Pool:
    """Processes that know nothing of the program that starts them.

    They would import its main module again, and a script without `if __name__ == "__main__":` would start
    processes in each of them, for ever.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        # A fork of a process that has started TensorFlow can hang.
        return multiprocessing.get_context("spawn").Pool(number)
    finally:
        sys.modules["__main__"] = main


def _parse_docstrings(path: Path) -> list[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in old packages are not this program's matter
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError, RecursionError):
        return []
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = (ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, documented))
    return [text for text in docstrings if text and len(text) >= MIN_CHARACTERS]
