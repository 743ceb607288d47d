"""Examples for a property: as many as the suite has time for, or for as long as `make fuzz` says."""

import faulthandler
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import wraps
from typing import Any

from hypothesis import HealthCheck, seed, settings

Test = Callable[..., None]

SECONDS = float(os.environ.get("TFMLM_FUZZ_SECONDS", "0"))
"""For the fuzzed tests of a file together; 0 for the suite's number of examples."""

HANGS_AFTER = 120.0
"""Seconds of one example, or of what follows the last, after which the process ends and says where it was.

Longer than the minute for which TensorFlow may hold up the end of an iterator: the thread that tunes it looks
whether it is cancelled before the flag is set, and then sleeps on.
"""

_tests_of_file: Counter[str] = Counter()


class _TimeIsUpError(BaseException):
    """No `Exception`, which Hypothesis would take for a finding."""


def fuzzed(num_examples: int, deadline: int) -> Callable[[Test], Test]:
    """Goes above `given`; `deadline` is in milliseconds, for each example."""

    def decorate(test: Test) -> Test:
        if not SECONDS:
            return settings(deadline=deadline, max_examples=num_examples)(test)
        _tests_of_file[test.__module__] += 1
        endless = settings(
            deadline=deadline, max_examples=10**9, suppress_health_check=[HealthCheck.too_slow]
        )
        # Without a seed of its own, Hypothesis would take the end of the time for a failure and print one.
        return _stop_in_time(seed(time.time_ns())(endless(test)))

    return decorate


def _stop_in_time(test: Any) -> Test:
    inner = test.hypothesis.inner_test
    count, end, is_failing = 0, 0.0, False

    @wraps(inner)
    def try_example(*args: Any, **kwargs: Any) -> None:
        nonlocal count, is_failing
        count += 1
        _expect_an_end()
        try:
            inner(*args, **kwargs)
        except Exception:
            is_failing = True
            raise
        # A finding is made simple however long that takes.
        if time.monotonic() > end and not is_failing:
            raise _TimeIsUpError

    @wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        nonlocal end
        end = time.monotonic() + SECONDS / _tests_of_file[test.__module__]
        try:
            test(*args, **kwargs)
        except _TimeIsUpError:
            pass
        finally:
            _expect_an_end()  # what TensorFlow leaves behind is taken apart after the last test
            print(f"{test.__name__}: {count} examples")

    test.hypothesis.inner_test = try_example
    return run


def _expect_an_end() -> None:
    faulthandler.dump_traceback_later(HANGS_AFTER, exit=True, file=sys.__stderr__)
