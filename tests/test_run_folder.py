"""A run folder belongs to one process at a time, and is free again when its block ends."""

import os
from pathlib import Path

import pytest
from filelock import BaseFileLock

from tfmlm.errors import UserError
from tfmlm.run_folder import holding_run_folder


def fail_in(folder: Path) -> None:
    with holding_run_folder(folder):
        raise ZeroDivisionError


def test_a_held_folder_is_refused_with_its_holder(tmp_path: Path) -> None:
    with (
        holding_run_folder(tmp_path / "run"),
        pytest.raises(UserError, match=f"is being written by process {os.getpid()} on "),
        holding_run_folder(tmp_path / "run"),
    ):
        pytest.fail("two hold it")


def test_the_block_itself_frees_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not the collection of garbage, which some day frees whatever is left."""
    monkeypatch.setattr(BaseFileLock, "__del__", lambda lock: None)
    with pytest.raises(ZeroDivisionError):
        fail_in(tmp_path / "run")
    with holding_run_folder(tmp_path / "run"):
        pass
    with holding_run_folder(tmp_path / "run"):
        pass


def test_another_folder_is_another_lock(tmp_path: Path) -> None:
    with holding_run_folder(tmp_path / "run"), holding_run_folder(tmp_path / "other"):
        pass
