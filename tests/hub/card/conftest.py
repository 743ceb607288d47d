"""One finished run, whose card the tests read, and copies of it to change."""

import shutil
from pathlib import Path

import pytest

from tests.finished import Finished
from tfmlm.config import Config


@pytest.fixture(scope="package")
def config(word_run: Finished) -> Config:
    return word_run.config


@pytest.fixture(scope="package")
def run_dir(word_run: Finished) -> Path:
    """A finished run, whose card nobody has changed."""
    return word_run.run_dir


@pytest.fixture
def copy_dir(run_dir: Path, tmp_path: Path) -> Path:
    return shutil.copytree(run_dir, tmp_path / "copy", ignore=shutil.ignore_patterns("checkpoints"))
