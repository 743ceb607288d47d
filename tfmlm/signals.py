"""Signals that are taken over for a while and then given back, however the while ends."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class StopFlag:
    """A request to stop.

    Attributes:
        stop_requested: true once a signal has come. A plain attribute, because a handler runs amid whatever
            the main thread does: an `Event` has a lock, which the main thread may hold just then.
    """

    stop_requested = False


@contextmanager
def noting_stop_signals(*numbers: signal.Signals) -> Iterator[StopFlag]:
    """Only notes these signals, instead of what they would do."""
    flag = StopFlag()

    def note(number: int, frame: FrameType | None) -> None:
        del number, frame
        flag.stop_requested = True

    with handling_signals(note, *numbers):
        yield flag


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
