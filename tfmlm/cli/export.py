"""The command `tfmlm export`: any model in, a SavedModel out."""

from __future__ import annotations

import argparse

from tfmlm.cli.shared import add_overrides, show, start_libraries


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `export` to the other commands."""
    export = commands.add_parser("export", help="write a SavedModel of a run, a model folder or a Hub id")
    export.add_argument("model", help="run, model folder, here or remote (gs://), or Hub id")
    add_overrides(export)
    export.set_defaults(command=_export)


def _export(options: argparse.Namespace) -> int:
    start_libraries()
    from tfmlm.inference.loading import find_exportable
    from tfmlm.run import export_model

    export = export_model(find_exportable(options.model, options.overrides))
    show("\n".join([export.address, *(f"note: {note}" for note in export.notes)]))
    return 0
