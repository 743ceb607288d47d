"""What several commands need: overrides of the configuration, and the libraries."""

from __future__ import annotations

import argparse


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """Adds the settings `section.key=value`."""
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="settings that win")


def start_libraries() -> None:
    """Loads TensorFlow and the rest, which takes seconds: call it after the arguments have been checked."""
    from tfmlm.library_logging import quieten_libraries, show_progress_lines

    quieten_libraries()
    show_progress_lines()
