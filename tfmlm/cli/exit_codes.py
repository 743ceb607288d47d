"""What a command ends in: an exit code, and for an error one line on the error stream."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback

from tfmlm.errors import PreemptedError, UserError, WorkerLostError, in_one_line
from tfmlm.full_disk import describe_full_disk

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
        exit_code: int = options.command(options)
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
        full = describe_full_disk(
            error, f"the same command {_GOES_ON}" if _goes_on(options) else "run the same command again"
        )
        if full is None or options.debug:
            traceback.print_exception(error)
        if full is not None:
            return _end_with_a_line(UserError(full))
        print("tfmlm: this is a bug in tfmlm; please report it with the lines above", file=sys.stderr)
        return os.EX_SOFTWARE
    return exit_code


def _goes_on(options: argparse.Namespace) -> bool:
    """Whether the command takes up what it has begun; only that of training does."""
    return getattr(options, "goes_on", False)


def _end_with_a_line(error: Exception) -> int:
    print(f"tfmlm: {in_one_line(error)}", file=sys.stderr)
    if isinstance(error, PreemptedError):
        return 128 + signal.SIGTERM
    return os.EX_TEMPFAIL if isinstance(error, WorkerLostError) else 2
