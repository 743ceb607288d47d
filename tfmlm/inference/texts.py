"""Texts from arguments, the standard input or a file, and lines out into a file."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, TypeVar

from tfmlm.atomic_files import begin_file
from tfmlm.errors import UserError

T = TypeVar("T")

_LONGEST_LINE_BYTES = 2**24
"""So that memory does not grow with a line; no model takes a text of a thousandth of it."""

_LONGEST_SHOWN = 60
"""Characters of a text in a message."""


@dataclass(frozen=True)
class GivenText:
    """A text.

    Attributes:
        text: the text itself.
        place: where it stands, such as `texts.txt row 3`; "" if it was an argument.
    """

    text: str
    place: str

    @property
    def name(self) -> str:
        """Its name in a message."""
        if self.place:
            return self.place
        shown = self.text[:_LONGEST_SHOWN] + ("…" if len(self.text) > _LONGEST_SHOWN else "")
        return f"text {shown!r}"


def read_texts(arguments: Sequence[str], input_file: Path | None) -> Iterator[GivenText]:
    """The texts of a command, one at a time, so that a file may be larger than memory.

    Args:
        arguments: texts, or `-` alone for the lines of the standard input.
        input_file: a text a line, or, if it ends with `.jsonl`, a JSON object with the field `text` a line.

    Returns:
        The texts; reading them raises `UserError` where a row cannot be read.

    Raises:
        UserError: there are no texts, or more than one of the three, or there is no such file.
    """
    if input_file is not None:
        if arguments:
            raise UserError("texts and --input are both given; give one of them")
        if not input_file.exists() or input_file.is_dir():
            raise UserError(f"--input {str(input_file)!r} is not a file; give a file of texts")
        return _read_file(input_file)
    if not arguments:
        raise UserError("there are no texts; give some, - for the standard input, or --input FILE")
    if "-" not in arguments:
        return (check_unicode(GivenText(text, "")) for text in arguments)
    if len(arguments) > 1:
        raise UserError("texts and - for the standard input are both given; give one of them")
    return read_stdin()


def read_stdin() -> Iterator[GivenText]:
    """The lines of the standard input.

    Raises:
        UserError: a line is not UTF-8.
    """
    return _read_lines(sys.stdin.buffer, "standard input")


def _read_file(path: Path) -> Iterator[GivenText]:
    try:
        with path.open("rb") as file:
            for row in _read_lines(file, str(path)):
                yield _take_field(row) if path.suffix == ".jsonl" else row
    except OSError as error:
        raise UserError(f"--input {str(path)!r} cannot be read: {error.strerror}") from error


def _read_lines(file: IO[bytes], name: str) -> Iterator[GivenText]:
    # As bytes: only \n ends a line, and a line that is not UTF-8 can be named.
    lines = iter(lambda: file.readline(_LONGEST_LINE_BYTES + 1), b"")
    for number, line in enumerate(lines, start=1):
        place = f"{name} row {number}"
        if len(line) > _LONGEST_LINE_BYTES:
            raise UserError(f"{place} has more than {_LONGEST_LINE_BYTES:,} bytes; shorten it")
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{place} is not UTF-8 (byte {error.start}); convert it") from error
        yield GivenText(text.removesuffix("\n").removesuffix("\r"), place)


def _take_field(row: GivenText) -> GivenText:
    try:
        fields = json.loads(row.text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{row.place} is not JSON ({error}); write one object a line") from error
    text = fields.get("text") if isinstance(fields, dict) else None
    if not isinstance(text, str):
        raise UserError(f"{row.place} has no field `text` with a string; write one")
    return check_unicode(GivenText(text, row.place))


def check_unicode(text: GivenText) -> GivenText:
    """Refuses a text with a lone surrogate: no tokenizer takes it, and no file can hold it.

    JSON can write half of a pair; in an argument it stands for a byte that is not UTF-8.

    Raises:
        UserError: it has one.
    """
    try:
        text.text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{text.name} is not Unicode: character {error.start + 1} is a lone surrogate; convert or mend it"
        ) from None
    return text


def check_length(text: GivenText, num_tokens: int, max_length: int) -> None:
    """Refuses a text that is too long for a model.

    Args:
        text: the text.
        num_tokens: its tokens, special ones included.
        max_length: the most that the model takes.

    Raises:
        UserError: it has more.
    """
    if num_tokens > max_length:
        raise UserError(f"{text.name} has {num_tokens} tokens and the model takes {max_length}; shorten it")


def check_finite(scores: Iterable[float]) -> None:
    """Refuses answers that are no numbers.

    Raises:
        UserError: a score is NaN or infinite.
    """
    if not all(map(math.isfinite, scores)):
        raise UserError(
            "the model's scores are not finite: its weights are damaged or have diverged; train anew"
        )


def take_batches(values: Iterable[T], most: int) -> Iterator[list[T]]:
    """Cuts a stream into lists of `most` values; the last has those that are left."""
    remaining = iter(values)
    while batch := list(islice(remaining, most)):
        yield batch


def write_lines(path: Path, lines: Iterable[str]) -> int:
    """Writes lines as they come, under a temporary name that becomes `path` when all are written.

    Returns:
        How many there were.

    Raises:
        UserError: the file cannot be written. Whatever is raised, `path` is as it was before.
    """
    if path.is_dir():
        raise UserError(f"--output {str(path)!r} is a folder; give a file")
    num_lines = 0
    try:
        with begin_file(path) as unfinished, unfinished.open("w", encoding="utf-8") as file:
            for line in lines:
                file.write(line + "\n")
                num_lines += 1
    except OSError as error:
        raise UserError(f"--output {str(path)!r} cannot be written: {error.strerror}") from error
    return num_lines
