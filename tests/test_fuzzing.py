"""The driver of `make fuzz` stops in time, and lets no finding pass."""

from collections.abc import Iterator
from itertools import count
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import fuzzing


@pytest.fixture(autouse=True)
def half_a_second(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each look at the clock, one before the first example and one after each, is a hundredth later."""
    looks = count()
    clock = SimpleNamespace(monotonic=lambda: next(looks) / 100, time_ns=lambda: 0)
    monkeypatch.setattr(fuzzing, "time", clock)
    monkeypatch.setattr(fuzzing, "SECONDS", 0.5)
    monkeypatch.setattr(fuzzing, "_tests_of_file", fuzzing.Counter())
    yield
    fuzzing.faulthandler.cancel_dump_traceback_later()


def test_examples_are_tried_until_the_time_is_up(capsys: pytest.CaptureFixture[str]) -> None:
    tried = []

    @fuzzing.fuzzed(num_examples=1, deadline=5000)
    @given(number=st.integers())
    def takes_any_number(number: int) -> None:
        tried.append(number)

    takes_any_number()
    assert len(tried) == 51
    assert capsys.readouterr().out == f"takes_any_number: {len(tried)} examples\n"


def test_what_fails_only_after_a_while_is_found_and_made_simple() -> None:
    tried: list[int] = []

    @fuzzing.fuzzed(num_examples=1, deadline=5000)
    @given(number=st.integers())
    def fails_later(number: int) -> None:
        tried.append(number)
        assert number < 1000 or len(tried) < 30

    with pytest.raises(AssertionError):
        fails_later()
    # The last is the one that is reported. An example that once passed is not tried again: 1000 may be one.
    assert 1000 <= tried[-1] < 1100


def test_the_tests_of_a_file_share_its_time() -> None:
    @fuzzing.fuzzed(num_examples=1, deadline=5000)
    @given(number=st.integers())
    def first(number: int) -> None: ...

    tried = []

    @fuzzing.fuzzed(num_examples=1, deadline=5000)
    @given(number=st.integers())
    def second(number: int) -> None:
        tried.append(number)

    second()
    assert len(tried) == 26
