"""The command `tfmlm export`: a model folder in, a SavedModel out."""

from __future__ import annotations

import argparse

from tfmlm.cli.shared import add_trained_model, show, start_libraries


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `export` to the other commands."""
    export = commands.add_parser("export", help="write a SavedModel of a run or a model folder")
    add_trained_model(export)
    export.set_defaults(command=_export)


def _export(options: argparse.Namespace) -> int:
    start_libraries()
    from tfmlm.inference.loading import load_trained
    from tfmlm.run import export_run

    export = export_run(*load_trained(options.model, options.overrides))
    show("\n".join([export.address, *(f"note: {note}" for note in export.notes)]))
    return 0
