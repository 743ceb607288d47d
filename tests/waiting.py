"""Waits for what another thread or process does: until it is done, however slow the machine."""

import time
from collections.abc import Callable

WAIT_SECONDS = 600.0
"""After these it is taken never to come; nothing that the tests wait for takes a tenth of it."""


def wait_until(is_so: Callable[[], object]) -> None:
    """Returns when the condition holds."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not is_so():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
