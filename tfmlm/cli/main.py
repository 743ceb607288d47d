"""The `tfmlm` command: parses arguments, calls one function, prints; nothing heavy is imported before."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from tfmlm import __version__
from tfmlm.cli.about import add_completion, add_config, add_doctor
from tfmlm.cli.exit_codes import add_debug, run_command
from tfmlm.cli.model import add_evaluate, add_export, add_push
from tfmlm.cli.query import add_query
from tfmlm.cli.report import add_report
from tfmlm.cli.serve import add_serve
from tfmlm.cli.texts import add_predict, add_score
from tfmlm.cli.train import add_prepare, add_train


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
        The exit code: 0, 1 if `doctor` found something wrong, or one of `run_command`.
    """
    return run_command(_parse(arguments))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parses; overrides and texts may also follow options, and `prepare` keeps the flags it does not know."""
    parser = make_parser()
    options, rest = parser.parse_known_args(arguments)
    more = next((name for name in ("overrides", "texts") if hasattr(options, name)), None)
    flags = [argument for argument in rest if more is None or _is_flag(argument)]
    if flags and not hasattr(options, "beam_flags"):
        parser.error(f"unrecognized arguments: {' '.join(flags)}")
    if more:
        getattr(options, more).extend(argument for argument in rest if argument not in flags)
    options.beam_flags = flags
    return options


def _is_flag(argument: str) -> bool:
    """Whether it is meant as an option; as for argparse, neither `-` nor a text with a space is."""
    name = argument.partition("=")[0]
    return name.startswith("-") and name != "-" and " " not in name


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="tfmlm",
        description="Masked language models with TensorFlow, from text to TensorFlow Serving.",
        epilog="Overrides such as data.block_size=64 win over the file. `tfmlm config` lists every key.",
    )
    parser.add_argument("--version", action="version", version=f"tfmlm {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    add_train(commands)
    add_prepare(commands)
    add_evaluate(commands)
    add_report(commands)
    add_predict(commands)
    add_score(commands)
    add_query(commands)
    add_export(commands)
    add_serve(commands)
    add_push(commands)
    add_config(commands)
    add_doctor(commands)
    add_completion(commands, make_parser)
    add_debug(parser, commands)
    return parser
