"""A full disk is no bug: one line, exit code 2, wherever it is met."""

import argparse
import errno
import os
import subprocess
import sys

import pytest
import tensorflow as tf
from safetensors import SafetensorError

from tfmlm.cli.main import run_command

AGAIN = "run the same command again"
GOES_ON = "the same command goes on from the last checkpoint"


def end_with(error: BaseException, **settings: object) -> int:
    def fail(options: argparse.Namespace) -> int:
        raise error

    return run_command(argparse.Namespace(**{"command": fail, "debug": False} | settings))


def of_system(number: int, *name: str) -> OSError:
    return OSError(number, os.strerror(number), *name)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (
            of_system(errno.ENOSPC, "a/metrics.csv"),
            "'a/metrics.csv' cannot be written: No space left on device",
        ),
        (of_system(errno.ENOSPC), "a file cannot be written: No space left on device"),
        (of_system(errno.EDQUOT, "a"), "'a' cannot be written: Disk quota exceeded"),
        (
            tf.errors.ResourceExhaustedError(None, None, "logs/events; No space left on device"),
            "a file cannot be written: No space left on device",
        ),
        (SafetensorError("I/O error: No space left on device (os error 28)"), "No space left on device"),
    ],
)
@pytest.mark.parametrize(("goes_on", "then"), [(False, AGAIN), (True, GOES_ON)])
def test_a_full_disk_is_one_line(
    error: Exception, says: str, goes_on: bool, then: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert end_with(error, goes_on=goes_on) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("tfmlm: ")
    assert line.endswith(f"{says}; make room, and {then}")


def test_a_disk_that_is_only_read_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    assert end_with(of_system(errno.EROFS, "runs")) == 2
    says = "'runs' cannot be written: Read-only file system; give folders that can be written"
    assert capfd.readouterr().err == f"tfmlm: {says}, and {AGAIN}\n"


def test_debug_shows_where(capfd: pytest.CaptureFixture[str]) -> None:
    assert end_with(of_system(errno.ENOSPC), debug=True) == 2
    assert "Traceback" in capfd.readouterr().err


def test_other_errors_of_the_system_stay_bugs(capfd: pytest.CaptureFixture[str]) -> None:
    assert end_with(of_system(errno.EIO, "a")) == os.EX_SOFTWARE
    assert "this is a bug in tfmlm" in capfd.readouterr().err


def test_output_into_a_full_disk() -> None:
    command = f"{sys.executable} -m tfmlm config > /dev/full"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[0].endswith(f"No space left on device; make room, and {AGAIN}")


@pytest.mark.parametrize(("goes_on", "more"), [(False, ""), (True, f"; {GOES_ON}")])
def test_an_interrupted_command_says_only_what_is_so(
    goes_on: bool, more: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert end_with(KeyboardInterrupt(), **({"goes_on": True} if goes_on else {})) == 130
    assert capfd.readouterr().err == f"\ntfmlm: interrupted{more}\n"
