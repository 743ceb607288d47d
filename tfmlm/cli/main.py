"""The `tfmlm` command: parses arguments, calls one function, and ends in an exit code.

Nothing heavy is imported before a command needs it. It is argparse's, because overrides may follow
options and Apache Beam's flags are kept as they are, which the larger libraries do not do together.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import traceback
from collections.abc import Sequence

from tfmlm import __version__
from tfmlm.cli import (
    completion,
    config,
    doctor,
    evaluate,
    export,
    init,
    predict,
    prepare,
    push,
    query,
    report,
    score,
    serve,
    train,
)
from tfmlm.errors import (
    PreemptedError,
    UserError,
    WorkerLostError,
    describe_full_disk,
    first_line,
    in_one_line,
)

_COMMANDS = (
    *(train, init, prepare, evaluate, report, predict, score, query, export, serve, push, config),
    doctor,
)


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
    """True for what is meant as an option; as for argparse, neither `-` nor a text with a space is."""
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
    for command in _COMMANDS:
        command.add_parser(commands)
    completion.add_parser(commands, make_parser)
    add_debug(parser, commands)
    return parser


# === Exit codes ===

_GOES_ON = "goes on from the last checkpoint"


def add_debug(
    parser: argparse.ArgumentParser, commands: argparse._SubParsersAction[argparse.ArgumentParser]
) -> None:
    """Lets `--debug` stand before and after the name of every command."""
    parser.set_defaults(debug=False)
    for each in (parser, *commands.choices.values()):
        each.add_argument(
            "--debug",
            action="store_true",
            default=argparse.SUPPRESS,  # else a command's default would undo what stands before its name
            help="show where in the program an error comes from",
        )


def run_command(options: argparse.Namespace) -> int:
    """Runs the parsed command.

    Returns:
        The exit code: what the command gives, 2 if what the user gave is wrong or a disk is full, 70 if tfmlm
        is wrong, 75 if another worker of the run is gone, 130 if it was interrupted, 141 if nobody reads what
        it prints, 143 if it was told to end.
    """
    try:
        _check_streams()
        exit_code = _call(options)
        sys.stdout.flush()
    except (UserError, PreemptedError, WorkerLostError) as error:
        if options.debug:
            traceback.print_exception(error)
        return _end_with_a_line(error)
    except KeyboardInterrupt:
        more = f"; the same command {_GOES_ON}" if _goes_on(options) else ""
        print(f"\ntfmlm: interrupted{more}", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # What is still in the buffer would fail again when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except Exception as error:  # noqa: BLE001 - all that no one has foreseen
        lacking = describe_full_disk(
            error, f"the same command {_GOES_ON}" if _goes_on(options) else "run the same command again"
        ) or _describe_memory(error)
        if lacking is None or options.debug:
            traceback.print_exception(error)
        if lacking is not None:
            return _end_with_a_line(UserError(lacking))
        print("tfmlm: this is a bug in tfmlm; please report it with the lines above", file=sys.stderr)
        return os.EX_SOFTWARE
    return exit_code


def _call(options: argparse.Namespace) -> int:
    try:
        return int(options.command(options))
    except BaseException as error:
        # The tokenizers library is of Rust, which panics where a regular expression fails on a text.
        if type(error).__name__ == "PanicException":
            raise UserError(
                f"tokenizer fails on a text ({first_line(error)}); mend its tokenizer.json, or use another"
            ) from error
        raise


def _check_streams() -> None:
    """Refuses a standard output that is closed (`>&-`), into whose number the next open file would come."""
    for number, flags in ((0, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.dup2(os.open(os.devnull, flags), number)
    sys.stdin = sys.stdin or os.fdopen(0)
    sys.stderr = sys.stderr or os.fdopen(2, "w")
    if sys.stdout is None:
        raise UserError("the standard output is closed; give it a file or a terminal, or >/dev/null")


_OF_MEMORY = re.compile("cannot allocate|failed to map|can't start new thread|std::bad_alloc|OOM when", re.I)
"""What the system and the libraries say where memory, or `ulimit -v`, does not suffice."""


def _describe_memory(error: Exception) -> str | None:
    if not isinstance(error, MemoryError) and not _OF_MEMORY.search(str(error)):
        return None
    return (
        f"there is not enough memory ({first_line(error)}); use a smaller model, batch or block, or raise "
        "the limit (ulimit -v)"
    )


def _goes_on(options: argparse.Namespace) -> bool:
    """True for a command that takes up what it has begun; only that of training does."""
    return getattr(options, "goes_on", False)


def _end_with_a_line(error: Exception) -> int:
    print(f"tfmlm: {in_one_line(error)}", file=sys.stderr)
    if isinstance(error, PreemptedError):
        return 128 + signal.SIGTERM
    return os.EX_TEMPFAIL if isinstance(error, WorkerLostError) else 2
