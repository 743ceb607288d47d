"""What takes long to make is made once in a test run, by the worker that asks first; all only read it."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

Files = dict[str, list[int]]
"""Size in bytes and time of the last change, by path."""


def make_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder of this name, which `make` has filled, where it stays: runs hold their own path."""
    folder = _find_place(factory) / name
    record = folder.with_suffix(".json")
    with FileLock(folder.with_suffix(".lock")):
        if not record.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a worker that failed here
            folder.mkdir()
            make(folder)
            record.write_text(json.dumps(_list_files(folder)))
    return folder


def assert_only_read(factory: pytest.TempPathFactory) -> None:
    """No test has changed what others read."""
    for record in _find_place(factory).glob("*.json"):
        assert _list_files(record.with_suffix("")) == json.loads(record.read_text()), record.stem


def _find_place(factory: pytest.TempPathFactory) -> Path:
    """A folder that the workers of one test run have in common."""
    base = factory.getbasetemp()
    place = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "made-once"
    place.mkdir(exist_ok=True)
    return place


def _list_files(folder: Path) -> Files:
    # A command that reads a run holds the lock beside it.
    paths = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return {str(path.relative_to(folder)): [(s := path.stat()).st_size, s.st_mtime_ns] for path in paths}
