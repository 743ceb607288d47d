"""Errors with the codes of gRPC, which TensorFlow Serving's REST interface turns into HTTP."""

from __future__ import annotations

from enum import Enum


class Code(Enum):
    """Code of gRPC and the HTTP status for it, as in TensorFlow Serving's `http_server.cc`.

    RESOURCE_EXHAUSTED alone differs: it is 503 here instead of 429, since it means that the queue is full.
    """

    INVALID_ARGUMENT = (3, 400)
    DEADLINE_EXCEEDED = (4, 504)
    NOT_FOUND = (5, 404)
    RESOURCE_EXHAUSTED = (8, 503)
    FAILED_PRECONDITION = (9, 400)
    UNIMPLEMENTED = (12, 501)
    INTERNAL = (13, 500)
    UNAVAILABLE = (14, 503)

    @property
    def http_status(self) -> int:
        """HTTP status."""
        return self.value[1]

    @property
    def number(self) -> int:
        """Number of the code in `tensorflow.error.Code` and gRPC."""
        return self.value[0]


class ServingError(Exception):
    """A request that cannot be answered.

    Attributes:
        code: what kind of error.
        message: one line for the client, shortened.
    """

    def __init__(self, code: Code, message: str) -> None:
        self.code = code
        self.message = shorten(message)
        super().__init__(self.message)


_LONGEST_START, _LONGEST_END = 400, 100


def shorten(message: str) -> str:
    """The message without its middle if it is long: clients choose names in it.

    gRPC has 8 KiB for it, and up to twelve bytes a character; with more, it answers another code.
    """
    if len(message) <= _LONGEST_START + _LONGEST_END:
        return message
    return f"{message[:_LONGEST_START]}…{message[-_LONGEST_END:]}"


def invalid(message: str) -> ServingError:
    """The error for a request that is wrong in itself."""
    return ServingError(Code.INVALID_ARGUMENT, message)
