"""The benchmarks run: every row at its smoke size, all in one process."""

import json
import os
import subprocess
import sys

import pytest

from benchmarks.__main__ import ROWS
from benchmarks.measure import QUICK, Size, run_alone
from tests.folders import CHECKOUT


@pytest.mark.long
def test_every_row_measures_ours_and_a_peer():
    finished = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick", "--json"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    rows = json.loads(finished.stdout)["rows"]
    assert tuple(rows) == ROWS
    for row in rows.values():
        assert row["ours"] > 0
        assert row["peer"] > 0


def find_process(size: Size) -> int:
    return os.getpid()


def test_all_but_the_smoke_measures_in_processes_of_their_own():
    name = f"{__name__}:{find_process.__name__}"
    assert len({os.getpid(), run_alone(name, Size()), run_alone(name, Size())}) == 3
    assert run_alone(name, QUICK) == os.getpid()


def test_an_unknown_row_is_refused_with_the_known_ones():
    finished = subprocess.run(
        [sys.executable, "-m", "benchmarks", "speed"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 2
    assert f"no row speed; the rows are {', '.join(ROWS)}" in finished.stderr
