"""How much memory the requests of all clients take together."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tfmlm.preview.signatures import Arrays
from tfmlm.preview.status import Code, ServingError


class Memory:
    """Bytes that requests hold, as they come and while they wait; threads share it.

    Args:
        max_bytes: of all together at most.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self._lock = threading.Lock()

    def take(self, num_bytes: int) -> None:
        """Counts bytes.

        Raises:
            ServingError: there would be too many; they are not counted.
        """
        with self._lock:
            if self._num_bytes + num_bytes > self._max_bytes:
                raise ServingError(
                    Code.RESOURCE_EXHAUSTED,
                    f"the requests that wait hold {self._num_bytes} bytes, and {self._max_bytes} are held "
                    "at most; try again later",
                )
            self._num_bytes += num_bytes

    def give_back(self, num_bytes: int) -> None:
        """Counts bytes no longer."""
        with self._lock:
            self._num_bytes -= num_bytes

    @contextmanager
    def account(self) -> Iterator[Account]:
        """An account for the time of one request, at whose end all of its bytes are given back."""
        account = Account(self)
        try:
            yield account
        finally:
            self.give_back(account.num_bytes)


class Account:
    """The bytes of one request.

    Attributes:
        num_bytes: that it holds.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self.num_bytes = 0

    def take(self, num_bytes: int) -> None:
        """Counts bytes.

        Raises:
            ServingError: there would be too many.
        """
        self._memory.take(num_bytes)
        self.num_bytes += num_bytes


def count_bytes(arrays: Arrays) -> int:
    """Bytes of arrays, the strings in them included."""
    return sum(
        array.nbytes + (sum(map(sys.getsizeof, array.flat)) if array.dtype == object else 0)
        for array in arrays.values()
    )
