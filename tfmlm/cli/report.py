"""The command `tfmlm report`: one page about one run or several."""

from __future__ import annotations

import argparse
import posixpath
import tempfile
from pathlib import Path

from tfmlm.cli.shared import show, start_libraries
from tfmlm.urls import is_url


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `report` to the other commands."""
    report = commands.add_parser("report", help="write one HTML page that shows runs side by side")
    report.add_argument("runs", nargs="+", metavar="RUN", help="run folder, finished or not, here or remote")
    report.add_argument(
        "--output", type=Path, default=Path("report.html"), metavar="FILE", help="default report.html"
    )
    report.set_defaults(command=_report)


def _report(options: argparse.Namespace) -> int:
    from tfmlm.report_page.page import write_report

    with tempfile.TemporaryDirectory() as scratch:
        write_report(
            [_bring(name, Path(scratch, str(i))) for i, name in enumerate(options.runs)], options.output
        )
    show(str(options.output))
    return 0


def _bring(name: str, scratch: Path) -> Path:
    """The run folder, of a remote one a copy of what the page shows."""
    if not is_url(name):
        return Path(name)
    start_libraries()
    from tfmlm.remote_folders import explained_remote_errors
    from tfmlm.remote_run import bring_records

    address = name.rstrip("/")
    with explained_remote_errors(address):
        bring_records(address, scratch / posixpath.basename(address))
    return scratch / posixpath.basename(address)
