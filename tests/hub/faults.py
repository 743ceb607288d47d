"""Faults that requests to a test's own Hub meet, to order."""

import re
import socket
import struct
from dataclasses import dataclass, field
from threading import Event


@dataclass
class Fault:
    """What a request meets instead of, or before, its answer.

    Attributes:
        pattern: of `METHOD /path`.
        times: requests that meet it; all when None.
        status: the answer; the usual one when None.
        headers: of the answer.
        message: of the answer; `{token}` becomes the token that was sent.
        cut_after: cut the connection after so many bytes of the body.
        hold: wait for this, at most a minute.
        seconds: wait so long.
    """

    pattern: str
    times: int | None = None
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    message: str = "no"
    cut_after: int | None = None
    hold: Event | None = None
    seconds: float = 0.0
    met: int = 0


def meet_fault(faults: list[Fault], request: str) -> Fault | None:
    """The first fault that this request meets, counted."""
    for fault in faults:
        if re.search(fault.pattern, request) and (fault.times is None or fault.met < fault.times):
            fault.met += 1
            return fault
    return None


class CutError(Exception):
    """The connection was cut on purpose."""


def cut(connection: socket.socket) -> None:
    """Ends the connection at once."""
    # With zero linger the client is reset, as by a broken line, and not told of an end.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.shutdown(socket.SHUT_RDWR)
    raise CutError
