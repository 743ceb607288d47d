"""Attempts: what may pass is asked again until the deadline, over REST and gRPC alike."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from tfmlm.client import failures
from tfmlm.client.address import Address
from tfmlm.client.options import ClientOptions
from tfmlm.errors import UserError

Answer = TypeVar("Answer")


class PassingError(Exception):
    """An attempt failed in a way that another may not: `Predict` changes nothing, so it may be sent again.

    Attributes:
        failure: what to say if no attempt is left.
        wait_seconds: how long the server wants to be left alone; None if it does not say.
    """

    def __init__(self, failure: UserError, wait_seconds: float | None = None) -> None:
        super().__init__()
        self.failure = failure
        self.wait_seconds = wait_seconds


def ask_until(deadline: float, address: Address, options: ClientOptions, ask: Callable[[], Answer]) -> Answer:
    """Asks, and again while that may help and the deadline leaves time.

    Args:
        deadline: of `time.monotonic`.
        address: who is asked.
        options: how many attempts, and the waits between them.
        ask: one attempt; it raises PassingError if another one may help.

    Raises:
        UserError: no attempt brought an answer.
    """
    attempt = 0
    while True:
        wait = _back_off(attempt, options)
        attempt += 1
        try:
            return ask()
        except PassingError as passing:
            failure = passing.failure
            wait = wait if passing.wait_seconds is None else passing.wait_seconds
        if time.monotonic() >= deadline:
            failure = failures.late(address, options.timeout_seconds)
        if attempt == options.max_attempts or time.monotonic() + wait >= deadline:
            raise failure  # outside the handler: the errors of libraries may quote what the server said
        time.sleep(wait)


def _back_off(attempt: int, options: ClientOptions) -> float:
    """Seconds to wait; the chance in them keeps many clients from coming back at the same moment."""
    longest = min(options.max_backoff_seconds, options.backoff_seconds * 2.0**attempt)
    return float(longest * random.uniform(0.8, 1.2))  # noqa: S311 - not a secret
