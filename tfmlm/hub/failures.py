"""What went wrong between this machine and the Hub: a line for people, and whether it may pass."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import NamedTuple

import requests
from huggingface_hub import get_token
from huggingface_hub.errors import OfflineModeIsEnabled
from urllib3.exceptions import InvalidHeader
from urllib3.util import Retry

from tfmlm.errors import first_line

FAILURES = (OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError)
"""What `huggingface_hub` raises: its own errors are `OSError`, a failed LFS upload is a `RuntimeError`, and
an answer that is none of the Hub's ends in one of the others."""

_PASSING_STATUSES = {408, 409, 412, 425, 429}
"""Besides 5xx: a busy repository, a commit that came between, too many requests."""

_PASSING = (
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
    requests.exceptions.JSONDecodeError,  # a proxy's page instead of an answer
)
_ADVICE = {
    401: "set HF_TOKEN to a token that may write, or run `hf auth login`",
    403: "the token may not write to it; choose another hub.repo_id or a token with write access",
    404: "check hub.repo_id and hub.revision",
    429: "the Hub wants fewer requests",
}
_LONGEST_WISH = 21_600.0
"""Seconds: six hours, as newer urllib3 has it. No clock can wait for everything that a header may ask."""

_TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_TOKEN")
_SIGNED_PART = re.compile(r"\?\S*")
"""Addresses of LFS objects are signed: who has the query may write the object."""


class Failure(NamedTuple):
    """A failed request.

    Attributes:
        reason: one line, without a token.
        is_passing: whether it is worth trying again.
        asked_seconds: how long the Hub asks to wait (`Retry-After`), six hours at most; 0 if it does not.
    """

    reason: str
    is_passing: bool
    asked_seconds: float


def describe_failure(error: Exception) -> Failure:
    """Judges an error of `huggingface_hub` by the response or the broken connection that it comes from."""
    if isinstance(error, OfflineModeIsEnabled):
        return Failure("HF_HUB_OFFLINE is set; unset it", False, 0)
    causes = list(_list_causes(error))
    response = _find_response(causes)
    # A signed address that has run out is refused for good; the next attempt asks for a new one.
    is_upload = isinstance(error, RuntimeError)
    if response is None:
        is_passing = is_upload or any(isinstance(each, _PASSING) for each in causes)
        return Failure(hide_secrets(first_line(causes[-1] if is_upload else error)), is_passing, 0)
    status = response.status_code
    advice = _ADVICE.get(status)
    if status == 401 and not get_token():
        advice = f"there is no token; {advice}"
    message = getattr(error, "server_message", None) or first_line(error)
    reason = hide_secrets(f"{status} {response.reason}: {message.splitlines()[0]}")
    return Failure(
        f"{reason}; {advice}" if advice else reason,
        is_upload or status in _PASSING_STATUSES or status >= 500,
        _read_retry_after(response),
    )


def hide_secrets(text: str) -> str:
    """Takes tokens and the signed part of addresses out of a message of the Hub or of a library."""
    for token in (get_token(), *map(os.environ.get, _TOKEN_VARIABLES)):
        if token and token.strip():
            text = text.replace(token.strip(), "<token>")
    return _SIGNED_PART.sub("?...", text)


def _list_causes(error: Exception) -> Iterator[Exception]:
    cause: BaseException | None = error
    while isinstance(cause, Exception):
        yield cause
        cause = cause.__cause__


def _find_response(causes: list[Exception]) -> requests.Response | None:
    found = (each.response for each in causes if isinstance(each, requests.RequestException))
    return next((response for response in found if response is not None), None)


def _read_retry_after(response: requests.Response) -> float:
    try:
        asked = Retry().parse_retry_after(response.headers.get("Retry-After", "0"))
    except (InvalidHeader, ValueError, OverflowError):  # the last two are of dates and of endless numbers
        return 0
    return float(min(asked, _LONGEST_WISH))
