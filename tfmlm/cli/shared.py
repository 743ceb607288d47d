"""Shared by several commands: overrides of the configuration, texts in, lines out, and the libraries."""

from __future__ import annotations

import argparse
import resource
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tfmlm.errors import UserError, escape_controls
from tfmlm.inference.texts import write_lines
from tfmlm.results import Candidate

_ADDRESS_SPACE = 3 * 2**30
"""Bytes that the libraries and their threads take, most of which they never touch."""


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """Adds the settings `section.key=value`."""
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="settings that win")


def add_trained_model(parser: argparse.ArgumentParser) -> None:
    """Adds the argument `model`, as `inference.loading.load_trained` takes it, and overrides."""
    parser.add_argument("model", help="run or model folder, here or remote (gs://)")
    add_overrides(parser)


def start_libraries() -> None:
    """Loads TensorFlow and the rest, which takes seconds: call it after the arguments have been checked.

    Raises:
        UserError: `ulimit -v` leaves too little, with which TensorFlow would abort somewhere.
    """
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY and limit < _ADDRESS_SPACE:
        raise UserError(
            f"ulimit -v is {limit // 1024} here, and TensorFlow needs {_ADDRESS_SPACE // 1024} or more; "
            "raise it"
        )
    from tfmlm.library_logging import quieten_libraries, show_progress_lines

    quieten_libraries()
    show_progress_lines()


def add_texts(parser: argparse.ArgumentParser, meaning: str) -> None:
    """Adds the ways in which texts are given, and answers written."""
    parser.add_argument("texts", nargs="*", metavar="TEXT", help=f"{meaning}; - reads lines")
    parser.add_argument(
        "--input", type=Path, metavar="FILE", help="a text a line, or .jsonl with a field `text`"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the JSON lines into a file")
    parser.add_argument("--json", action="store_true", help="print one JSON line a text")


def show(text: str) -> None:
    """Prints text for people, at once."""
    print(escape_controls(text), flush=True)


def note(text: str) -> None:
    """Prints a line for people to the error stream."""
    print(f"tfmlm: {escape_controls(text, keep='')}", file=sys.stderr)


def deliver(lines: Iterable[str], output: Path | None) -> None:
    """Prints each line when it is there, or writes them all into a file."""
    if output:
        show(f"{write_lines(output, lines):,} texts -> {output}")
        return
    for line in lines:
        show(line)


def describe_new_words(tokens_before: float, tokens_after: float, num_new: float) -> str:
    """What new words in the vocabulary save."""
    return (
        f"{num_new:,.0f} new, {tokens_before:,.1f} tokens a held-out text before, {tokens_after:,.1f} after"
    )


def describe_masks(text: str, masks: Sequence[Sequence[Candidate]]) -> Iterator[str]:
    """A text and, for each of its masks, the candidates with their probabilities."""
    yield escape_controls(text, keep="")
    for number, candidates in enumerate(masks, start=1):
        words = ", ".join(
            f"{escape_controls(candidate['token_str'].strip(), keep='')} {candidate['score']:.0%}"
            for candidate in candidates
        )
        yield f"  {f'{number}. ' if len(masks) > 1 else ''}{words}"
