"""`tfmlm doctor` in real environments, right and wrong."""

import os
import subprocess
import sys

import pytest
from packaging.requirements import Requirement

from tfmlm.cli.doctor import _check_package, examine
from tfmlm.cli.main import main


def test_a_sound_environment_is_sound(capsys: pytest.CaptureFixture[str]) -> None:
    exit_code = main(["doctor"])
    printed = capsys.readouterr().out
    assert exit_code == 0, printed
    assert "WRONG" not in printed
    for subject in ("python", "tensorflow", "transformers", "Keras", "devices"):
        assert subject in printed


def test_keras_3_is_wrong_and_the_remedy_is_named() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tfmlm", "doctor"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"TF_USE_LEGACY_KERAS": "0"},
    )
    assert done.returncode == 1
    assert "WRONG" in done.stdout
    assert "set TF_USE_LEGACY_KERAS=1" in done.stdout


def test_a_missing_package_and_another_version_are_wrong() -> None:
    missing = _check_package(Requirement("no-such-package>=1"))
    assert missing.is_wrong
    assert "pip install 'no-such-package>=1'" in str(missing)
    other = _check_package(Requirement("transformers==5.0"))
    assert other.is_wrong
    assert "not ==5.0" in str(other)


def test_every_requirement_is_examined() -> None:
    subjects = {finding.subject for finding in examine()}
    assert {"tf-keras", "datasets", "huggingface-hub", "numpy"} <= subjects
