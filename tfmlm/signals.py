"""Signals that are taken over for a while and then given back, however the while ends."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Notice:
    """Whether a signal has come.

    Attributes:
        has_come: a plain attribute, because a handler runs in the midst of whatever the main thread does: an
            `Event` has a lock, which the main thread may hold just then.
    """

    has_come = False


@contextmanager
def noting_signals(*numbers: signal.Signals) -> Iterator[Notice]:
    """Only notes these signals, instead of what they would do."""
    notice = Notice()

    def note(number: int, frame: FrameType | None) -> None:
        del number, frame
        notice.has_come = True

    with handling_signals(note, *numbers):
        yield notice


@contextmanager
def handling_signals(
    handler: Callable[[int, FrameType | None], object], *numbers: signal.Signals
) -> Iterator[None]:
    """Lets a function handle these signals; only the main thread may, in another one nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    old_handlers = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old_handler in old_handlers.items():
            # None stands for a handler that is not Python's and that Python cannot put back.
            signal.signal(number, signal.SIG_DFL if old_handler is None else old_handler)
