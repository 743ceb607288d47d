"""The mark of tests that read CSV: the reader of datasets leaves files open."""

from collections.abc import Callable

import pytest


def reads_csv(test: Callable[..., None]) -> Callable[..., None]:
    ignored = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
    return pytest.mark.usefixtures("left_open")(ignored(test))
