"""One commit to the Hub: a folder, tried again while that may help, and what is said if it fails."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import requests
from huggingface_hub import HfApi, configure_http_backend, constants, get_token
from huggingface_hub.errors import OfflineModeIsEnabled
from requests.adapters import HTTPAdapter

from tfmlm.config import HubConfig
from tfmlm.errors import first_line
from tfmlm.retry_after import read_retry_after

# === Uploads ===


_LOGGER = logging.getLogger(__name__)
_LONGEST_PAUSE = 60.0
"""Seconds; pauses double from one second to this."""

_Answer = TypeVar("_Answer")


class PushError(Exception):
    """The Hub did not take it. The message is one line without a token."""


@dataclass(frozen=True)
class Upload:
    """The contents of one commit.

    Attributes:
        name: for messages, such as `step 40`.
        folder: its files go to the root of the repository; unchanged ones are not sent.
        revision: branch, made if need be; `main` when None.
        replaced: patterns of files in the repository that go if the folder does not hold them.
    """

    name: str
    folder: Path
    revision: str | None
    replaced: tuple[str, ...] = ()


def upload_with_retry(
    upload: Upload,
    hub: HubConfig,
    sleep: Callable[[float], object] = time.sleep,
    may_go_on: Callable[[], bool] = lambda: True,
) -> str:
    """Uploads, and again as `retry_with_backoff` does.

    Returns:
        The address of the repository.

    Raises:
        PushError: the Hub refused it or could not be reached.
    """
    return retry_with_backoff(lambda: _upload_once(upload, hub), upload.name, hub, sleep, may_go_on)


def retry_with_backoff(
    ask: Callable[[], _Answer],
    name: str,
    hub: HubConfig,
    sleep: Callable[[float], object] = time.sleep,
    may_go_on: Callable[[], bool] = lambda: True,
) -> _Answer:
    """Asks the Hub until it answers, waiting as long as it wants and `hub.retry_seconds` in all.

    Args:
        ask: the question, which may be repeated.
        name: what it is about, for messages.
        hub: how long to wait.
        sleep: waits that many seconds.
        may_go_on: asked after each pause.

    Raises:
        PushError: it was refused, or the time is up.
    """
    _set_timeout(hub.timeout_seconds)
    waited = 0.0
    for attempt in count():
        try:
            return ask()
        except FAILURES as error:
            failure = describe_failure(error)
            pause = max(min(2.0**attempt, _LONGEST_PAUSE), failure.asked_seconds)
            waited += pause
            if not failure.is_passing or waited > hub.retry_seconds:
                raise PushError(failure.reason) from error
            _LOGGER.warning("%s: %s; trying again in %.0f s", name, failure.reason, pause)
            sleep(pause)
            if not may_go_on():
                raise PushError(failure.reason) from error
    raise AssertionError


def _upload_once(upload: Upload, hub: HubConfig) -> str:
    assert hub.repo_id
    api = HfApi()
    repository = api.create_repo(hub.repo_id, private=hub.private, exist_ok=True)
    if upload.revision:
        api.create_branch(repository.repo_id, branch=upload.revision, exist_ok=True)
    api.upload_folder(
        folder_path=upload.folder,
        repo_id=repository.repo_id,
        revision=upload.revision,
        commit_message=f"Upload {upload.name}",
        delete_patterns=list(upload.replaced) or None,
    )
    return str(repository)


class _TimeoutAdapter(HTTPAdapter):
    """Ends requests that get no answer; `huggingface_hub` sets no timeout on those that write."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds

    def send(self, request: requests.PreparedRequest, *arguments: Any, **options: Any) -> requests.Response:
        options["timeout"] = options.get("timeout") or self._seconds
        return super().send(request, *arguments, **options)


def _set_timeout(seconds: float) -> None:
    def make_session() -> requests.Session:
        session = requests.Session()
        for scheme in ("http://", "https://"):
            session.mount(scheme, _TimeoutAdapter(seconds))
        return session

    # Offline, the library's own sessions refuse every request.
    if not constants.HF_HUB_OFFLINE:
        configure_http_backend(make_session)


# === Failures ===


FAILURES = (OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError)
"""Raised by `huggingface_hub`: its own errors are `OSError`, a failed LFS upload is a `RuntimeError`, and
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
        read_retry_after(response.headers) or 0.0,
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
