"""One commit to the Hub: a folder, tried again while that may help."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import requests
from huggingface_hub import HfApi, configure_http_backend, constants
from requests.adapters import HTTPAdapter

from tfmlm.config import HubConfig
from tfmlm.hub.failures import FAILURES, describe_failure

_LOGGER = logging.getLogger(__name__)
_LONGEST_PAUSE = 60.0
"""Seconds; pauses double from one second to this."""

_Answer = TypeVar("_Answer")


class PushError(Exception):
    """The Hub did not take it. The message is one line without a token."""


@dataclass(frozen=True)
class Upload:
    """What one commit holds.

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


def upload_patiently(
    upload: Upload,
    hub: HubConfig,
    sleep: Callable[[float], object] = time.sleep,
    may_go_on: Callable[[], bool] = lambda: True,
) -> str:
    """Uploads, and again as `ask_patiently` does.

    Returns:
        The address of the repository.

    Raises:
        PushError: the Hub refused it or could not be reached.
    """
    return ask_patiently(lambda: _upload_once(upload, hub), upload.name, hub, sleep, may_go_on)


def ask_patiently(
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
