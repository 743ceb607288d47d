"""A disk that is full, or that cannot be written at all, as one line: no bug, wherever it is met."""

from __future__ import annotations

import errno
import os

NUMBERS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""The system's errors of a disk that is full or read-only."""


def describe_full_disk(error: Exception, then: str) -> str | None:
    """What the person should know.

    Args:
        error: whatever ended a command. TensorFlow, pyarrow and the libraries in Rust put the system's words
            into errors of their own, which have no number.
        then: what to do when there is room, such as `run the same command again`.

    Returns:
        One line; None if the error is of another kind.
    """
    own = error.errno if isinstance(error, OSError) else None
    number = next((each for each in NUMBERS if each == own or os.strerror(each) in str(error)), None)
    if number is None:
        return None
    name = getattr(error, "filename", None)
    what = f"{os.fsdecode(name)!r}" if isinstance(name, str | bytes) else "a file"
    advice = "give folders that can be written" if number == errno.EROFS else "make room"
    return f"{what} cannot be written: {os.strerror(number)}; {advice}, and {then}"
