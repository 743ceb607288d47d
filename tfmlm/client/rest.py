"""`Predict` over TensorFlow Serving's REST interface."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, TypeVar

import urllib3
from urllib3.exceptions import HTTPError, SSLError

from tfmlm.client import failures
from tfmlm.client.address import Address
from tfmlm.client.attempts import PassingError, ask_until
from tfmlm.client.options import ClientOptions
from tfmlm.errors import UserError
from tfmlm.retry_after import read_retry_after

_PASSING = (429, 502, 503)
"""Answers that another attempt may better. 504 is none: the server has tried for as long as it may."""
_ADVICE = {
    401: failures.FORBIDDEN,
    403: failures.FORBIDDEN,
    404: failures.UNKNOWN,
    413: failures.TOO_LARGE,
    504: failures.SLOW,
    **dict.fromkeys(_PASSING, failures.BUSY),
}
_KEPT_CONNECTIONS = 32
"""Threads that find an open connection; more than these open one each time."""

_Result = TypeVar("_Result")


class RestTransport:
    """Keeps connections open; threads may share it."""

    def __init__(self, address: Address, options: ClientOptions, token: str | None) -> None:
        self._address = address
        self._options = options
        self._token = token
        self._headers = {"Content-Type": "application/json"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        settings: dict[str, Any] = {"maxsize": _KEPT_CONNECTIONS, "retries": False}
        if address.is_encrypted:
            settings["ssl_context"] = _make_ssl_context(options)
        scheme = "https" if address.is_encrypted else "http"
        self._pool = urllib3.connection_from_url(f"{scheme}://{address.authority}", **settings)

    def predict(self, signature_name: str, inputs: Mapping[str, Any], deadline: float) -> Mapping[str, Any]:
        """Asks, and again while that may help; see `Transport.predict`."""
        body = json.dumps({"signature_name": signature_name, "inputs": inputs}).encode()
        return ask_until(deadline, self._address, self._options, lambda: self._ask(body, deadline))

    def close(self) -> None:
        """Closes the connections."""
        self._pool.close()

    def _ask(self, body: bytes, deadline: float) -> Mapping[str, Any]:
        try:
            status, headers, answer = _finish_by(deadline, lambda: self._post(body, deadline))
        except TimeoutError:
            raise failures.late(self._address, self._options.timeout_seconds) from None
        except HTTPError as error:
            if failure := failures.other_protocol(self._address, str(error)):
                raise failure from None
            if isinstance(error, SSLError):
                raise failures.untrusted(self._address, str(error), self._token) from None
            raise PassingError(failures.out_of_reach(self._address, str(error), self._token)) from None
        if status == 200:
            return self._read_outputs(answer)
        failure = self._refuse(status, answer)
        if status in _PASSING:
            raise PassingError(failure, read_retry_after(headers))
        raise failure

    def _post(self, body: bytes, deadline: float) -> tuple[int, Mapping[str, str], bytes]:
        response = self._pool.urlopen(
            "POST",
            f"{self._address.rest_path}:predict",
            body=body,
            headers=self._headers,
            redirect=False,  # it would take the token to whomever the answer names
            timeout=max(deadline - time.monotonic(), 0.001),
        )
        return response.status, response.headers, response.data

    def _read_outputs(self, answer: bytes) -> Mapping[str, Any]:
        content = _parse(answer)
        outputs = content.get("outputs") if isinstance(content, dict) else None
        if not isinstance(outputs, dict):
            raise UserError(
                f"{self._address} answered something else than TensorFlow Serving's JSON; check the address"
            )
        return outputs

    def _refuse(self, status: int, answer: bytes) -> UserError:
        content = _parse(answer)
        is_error = isinstance(content, dict) and "error" in content
        message = str(content["error"]) if is_error else answer.decode("utf-8", "replace")
        advice = failures.advise_misfit(message) if status == 400 else _ADVICE.get(status, failures.OTHER)
        return failures.refused(self._address, f"HTTP {status}", message, advice, self._token)


def _finish_by(deadline: float, work: Callable[[], _Result]) -> _Result:
    """Runs `work` in a thread that is left alone at the deadline.

    A socket's timeout starts anew with each byte and does not cover the look-up of a name, so a slow enough
    server would hold the caller for ever. The thread costs some 0.1 ms.

    Raises:
        TimeoutError: it was not done.
    """
    future: Future[_Result] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - the caller gets it
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future.result(max(deadline - time.monotonic(), 0))


def _make_ssl_context(options: ClientOptions) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cadata=options.read_ca_file())
    except ssl.SSLError as error:
        raise UserError(f"ca_file {str(options.ca_file)!r} is damaged: {error}; give a PEM file") from error


def _parse(answer: bytes) -> Any:
    """The JSON value, None if it is none."""
    try:
        return json.loads(answer)
    except ValueError:
        return None
