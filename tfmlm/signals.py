"""Signals that are taken over for a while and then given back, however the while ends."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from tfmlm.errors import PreemptedError


class StopFlag:
    """A request to stop.

    Attributes:
        stop_requested: true once a signal has come. A plain attribute, because a handler runs amid whatever
            the main thread does: an `Event` has a lock, which the main thread may hold just then.
    """

    stop_requested = False


@contextmanager
def noting_stop_signals(*numbers: signal.Signals) -> Iterator[StopFlag]:
    """Only notes these signals, instead of what they would do.

    One that a library has swallowed in `ending_when_told` is noted as well.
    """
    flag = StopFlag()
    flag.stop_requested = any(getattr(signal.getsignal(each), "stop_requested", False) for each in numbers)

    def note(number: int, frame: FrameType | None) -> None:
        del number, frame
        flag.stop_requested = True

    with handling_signals(note, *numbers):
        yield flag


@contextmanager
def ending_when_told() -> Iterator[None]:
    """Lets SIGTERM end the block as Ctrl-C would, wherever it comes, instead of the process as it is.

    Raises:
        PreemptedError: it came.
    """
    end = _EndOnce()
    try:
        with handling_signals(end, signal.SIGTERM):
            yield
    except PreemptedError:
        raise
    except BaseException as error:
        if end.stop_requested:  # whatever a library has made of it
            raise PreemptedError("told to end; the same command goes on from what is saved") from error
        raise


class _EndOnce(StopFlag):
    """A handler that raises once; another signal must not interrupt the tidying up."""

    def __call__(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if not self.stop_requested:
            self.stop_requested = True
            raise _Told


class _Told(BaseException):
    """No `Exception`: like `KeyboardInterrupt`, it is not for whoever tries something else after an error."""


def renew_handlers(*numbers: signal.Signals) -> None:
    """Puts Python's own handlers back where a library has taken a signal for itself, past Python."""
    if threading.current_thread() is threading.main_thread():
        for number in numbers:
            handler = signal.getsignal(number)
            if handler is not None:
                signal.signal(number, handler)


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
