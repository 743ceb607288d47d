"""The exceptions that end a command with a single line instead of a traceback, and that line."""

from __future__ import annotations

import errno
import os
import re
import unicodedata

from tfmlm.urls import hide_secrets_in


class UserError(Exception):
    """Something the user gave is wrong. The message says what was received and what to do."""


class PreemptedError(Exception):
    """The process was told to end (SIGTERM). The message says what is saved and how to go on."""


class WorkerLostError(Exception):
    """Another worker of the same run is gone, and this one cannot go on alone."""


_LONGEST_LINE = 400
"""Characters; transformers lists all its model types in one line."""


_OF_THE_GRAPH = re.compile(r"^\{\{function_node .*?\}\} ?| \[Op:\w+\]( name: ?)?$")
"""Where in a graph TensorFlow found what it says: nothing that a user can do something about."""


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its kind if it has none; the start of it if it is very long."""
    line = _OF_THE_GRAPH.sub("", (str(error).splitlines() or [type(error).__name__])[0])
    return line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}…"


def reason_of(error: Exception) -> str:
    """Why a file could not be read or written: the system's own words, or the first line of a library's."""
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else first_line(error)


def in_one_line(error: Exception) -> str:
    """The error's text in one line, without what could command a terminal, and without the secrets of URLs.

    File names, rows of data and answers of servers are part of messages, and may hold anything.
    """
    return escape_controls(hide_secrets_in(" ".join(str(error).splitlines())), keep="")


# === What a terminal is given ===


def escape_controls(text: str, keep: str = "\n") -> str:
    """The text with escapes for what could command a terminal or hide there: controls, directions, no width.

    Args:
        text: it may hold anything, for it comes from files and servers too.
        keep: characters that stay as they are.
    """
    if text.isprintable():
        return text
    return "".join(
        letter
        if letter.isprintable() or letter in keep or unicodedata.category(letter) == "Zs"
        else letter.encode("unicode_escape").decode()
        for letter in text
    )


# === A disk that is full ===


FULL_DISK_NUMBERS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""The system's errors of a disk that is full or read-only."""


def describe_full_disk(error: Exception, then: str) -> str | None:
    """Tells of a full disk in one line.

    Args:
        error: whatever ended a command. TensorFlow, pyarrow and the libraries in Rust put the system's words
            into errors of their own, which have no number.
        then: what to do when there is room, such as `run the same command again`.

    Returns:
        One line; None if the error is of another kind.
    """
    own = error.errno if isinstance(error, OSError) else None
    number = next(
        (each for each in FULL_DISK_NUMBERS if each == own or os.strerror(each) in str(error)), None
    )
    if number is None:
        return None
    name = getattr(error, "filename", None)
    what = f"{os.fsdecode(name)!r}" if isinstance(name, str | bytes) else "a file"
    advice = "give folders that can be written" if number == errno.EROFS else "make room"
    return f"{what} cannot be written: {os.strerror(number)}; {advice}, and {then}"
