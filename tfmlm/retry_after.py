"""The header `Retry-After`, in which a server asks to wait."""

from __future__ import annotations

from collections.abc import Mapping

from urllib3.exceptions import InvalidHeader
from urllib3.util import Retry

_LONGEST_SECONDS = 21_600.0
"""Six hours, as newer urllib3 has it. No clock can wait for everything that a header may ask."""


def read_retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, six hours at most; None if the header is not there or cannot be read."""
    asked = headers.get("Retry-After")
    if asked is None:
        return None
    try:
        return float(min(Retry().parse_retry_after(asked), _LONGEST_SECONDS))
    except (InvalidHeader, ValueError, OverflowError):  # the last two are of dates and of endless numbers
        return None
