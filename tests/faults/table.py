"""What becomes of a small disk while a test runs."""

import subprocess
from pathlib import Path
from typing import NamedTuple, Protocol

import pytest


def make_room(disk: Path) -> None:
    """From now on it has 60 MB."""
    subprocess.run(["mount", "-o", "remount,size=60m", str(disk)], check=True)


def make_read_only(disk: Path) -> None:
    """From now on nothing can be written there."""
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)


DONE_AGAIN = "steps since the last checkpoint, done again: the same bits"
"""What is lost where a run goes on from its last checkpoint."""

HEADER = "| what happened | exit code | what the person saw | lost |\n|---|---|---|---|"


class Row(NamedTuple):
    """A fault that a test has brought about.

    Attributes:
        fault: what happened.
        exit_code: of the command, or of the process.
        saw: the last line, or the one that matters.
        lost: what was lost.
    """

    fault: str
    exit_code: str
    saw: str
    lost: str


class NoteFault(Protocol):
    """Notes a fault for the table."""

    def __call__(self, fault: str, exit_code: int | None, saw: str, lost: str = "nothing") -> None: ...


def make_row(folder: Path, fault: str, exit_code: int | None, saw: str, lost: str) -> Row:
    """A row without the test's own folder in it."""
    line = saw.strip().removeprefix("tfmlm: ").replace(f"{folder}/", "").replace(str(folder), ".")
    fence = "``" if "`" in line else "`"
    code = "-" if exit_code is None else str(exit_code)
    return Row(fault, code, f"{fence}{line}{fence}", lost)


def write_table(reports: list[pytest.TestReport]) -> str:
    """The faults of these reports as a table in Markdown, in the order of the tests."""
    rows = [row for report in reports for name, row in report.user_properties if name == "fault"]
    return "\n".join([HEADER, *("| " + " | ".join(str(cell) for cell in row) + " |" for row in rows)])
