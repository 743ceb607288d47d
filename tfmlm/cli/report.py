"""The command `tfmlm report`: one page about one run or several."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `report` to the other commands."""
    report = commands.add_parser("report", help="write one HTML page that shows runs side by side")
    report.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folder, finished or not")
    report.add_argument(
        "--output", type=Path, default=Path("report.html"), metavar="FILE", help="default report.html"
    )
    report.set_defaults(command=_report)


def _report(options: argparse.Namespace) -> int:
    from tfmlm.report_page.page import write_report

    write_report(options.runs, options.output)
    print(options.output)
    return 0
