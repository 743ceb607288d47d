"""TensorFlow Serving's REST interface, the page and the description, as an ASGI application."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
import zlib
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar, TypeVarTuple
from urllib.parse import unquote

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tfmlm.preview.hosts import HostGuard
from tfmlm.preview.json_bounds import check_json
from tfmlm.preview.json_tensors import decode_json, encode_outputs, read_inputs, read_signature_name
from tfmlm.preview.memory import Account, Memory
from tfmlm.preview.metrics import METRICS_PATH, Metrics, to_microseconds
from tfmlm.preview.openapi import describe_rest
from tfmlm.preview.options import ServeOptions
from tfmlm.preview.servable import Servable
from tfmlm.preview.service import PredictionService
from tfmlm.preview.status import Code, ServingError, invalid, shorten
from tfmlm.preview.versions import ModelSpec, Versions

logger = logging.getLogger("tfmlm.preview")

Given = TypeVarTuple("Given")
Result = TypeVar("Result")

_CHOICE = r"(?i:(?:/versions/(?P<version>[0-9]+)|/labels/(?P<label>[^/:]+))?)"
_POST_PATH = re.compile(
    r"(?i:/v1/models)/(?P<name>[^/:]+)" + _CHOICE + ":(?P<method>classify|regress|predict)"
)
_GET_PATH = re.compile(
    r"(?i:/v1/models)(?:/(?P<name>[^/:]+))?" + _CHOICE + "(?:/(?P<metadata>(?i:metadata)))?"
)
"""TensorFlow Serving's own: of the path as it was sent, with the query, and in small or capital letters."""

_MAX_INT64 = 2**63 - 1

_LARGE_BODY_BYTES = 64 * 2**10
_LARGE_ANSWER_VALUES = 2**14

_GZIP = 16 + zlib.MAX_WBITS
_NO_GZIP = "the body is not in gzip, or not all of it, as its Content-Encoding says"

_BODY_SECONDS = 30.0
"""How long a client may take to send its request."""


def make_app(versions: Versions, options: ServeOptions, memory: Memory) -> Starlette:
    """The application.

    Args:
        versions: what is served.
        options: settings of the server.
        memory: what requests may hold.
    """
    description = describe_rest(options)

    async def describe(_request: Request) -> Response:
        return JSONResponse(description)

    async def tell_health(_request: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def tell_readiness(_request: Request) -> Response:
        is_ready = versions.is_ready
        return JSONResponse({"status": "ready" if is_ready else "stopping"}, 200 if is_ready else 503)

    async def show_metrics(_request: Request) -> Response:
        return Response(versions.metrics.render(), headers={"Content-Type": "text/plain"})

    api = _CountedApi(_ModelApi(versions, options, memory), versions.metrics)
    routes: list[BaseRoute] = [
        Route("/v1/{path:path}", api),
        Route("/V1/{path:path}", api),
        Route(METRICS_PATH, show_metrics),
        Route("/openapi.json", describe),
        Route("/healthz", tell_health),
        Route("/readyz", tell_readiness),
        *make_page_routes(versions, options.name),
    ]
    app = Starlette(
        routes=routes,
        exception_handlers={HTTPException: _answer_http_error, Exception: _answer_failure},
        middleware=[Middleware(_SecurityHeaders), Middleware(HostGuard, options)],
    )
    app.router.redirect_slashes = False
    return app


class _SecurityHeaders:
    """The page may load only what this server serves, nothing old, and stand in no other page.

    No answer is read as another type.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    (b"content-security-policy", b"default-src 'self'; frame-ancestors 'none'"),
                    (b"x-content-type-options", b"nosniff"),
                    (b"referrer-policy", b"no-referrer"),
                    (b"cache-control", b"no-cache"),
                ]
            await send(message)

        await self._app(scope, receive, send_with_headers)


async def _answer_http_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)


async def _answer_failure(_request: Request, error: Exception) -> Response:
    logger.error("a request failed", exc_info=error)
    return JSONResponse({"error": "internal error; the server's log has more"}, 500)


_CODES = {
    200: "OK",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
"""Codes by which requests are counted; any other status is that of a wrong request."""


class _CountedApi:
    """Counts requests, and how long those took that were answered."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start = time.monotonic()
        status = 499  # of a client that has gone and is sent nothing

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        except HTTPException as error:
            status = error.status_code
            raise
        except Exception:
            status = 500
            raise
        finally:
            self._count(_read_target(Request(scope)), status, time.monotonic() - start)

    def _count(self, target: str, status: int, seconds: float) -> None:
        posted = _POST_PATH.fullmatch(target)
        match = posted or _GET_PATH.fullmatch(target)
        name = self._metrics.choose_name(unquote(match["name"] or "") if match else "")
        self._metrics.request_count.add(name, _CODES.get(status, "INVALID_ARGUMENT"))
        if status == 200:
            method = posted["method"] if posted else ""
            self._metrics.request_latency.observe(to_microseconds(seconds), name, method, "REST")


def _read_target(request: Request) -> str:
    """Path and query as they were sent."""
    target: str = request.scope["raw_path"].decode("latin-1")
    query = request.scope["query_string"].decode("latin-1")
    return f"{target}?{query}" if query else target


class _ModelApi:
    """Everything below /v1."""

    def __init__(self, versions: Versions, options: ServeOptions, memory: Memory) -> None:
        self._versions = versions
        self._options = options
        self._memory = memory
        self._service = PredictionService(versions, options, memory, _make_unknown_signature)
        # One, for all threads share Python's lock: with several, the others wait for all of them.
        self._large_worker = ThreadPoolExecutor(1, thread_name_prefix="tfmlm-large")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            response = await self._answer(request)
        except ServingError as error:
            # A lone surrogate may be in the message, and is in no UTF-8.
            message = error.message.encode("utf-8", "replace").decode()
            response = JSONResponse({"error": message}, error.code.http_status)
        except ClientDisconnect:
            return
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        path = _read_target(request)
        posted, got = _POST_PATH.fullmatch(path), _GET_PATH.fullmatch(path)
        allowed = "POST" if posted else "GET"
        malformed = shorten(f"Malformed request: {request.method} {path}")
        match = posted or got
        if match and match["name"] and request.method != allowed:
            return JSONResponse({"error": malformed}, 405, headers={"Allow": allowed})
        if posted:
            spec = _read_spec(posted)
            with self._memory.account() as account:
                work = self._run(spec, posted["method"], await self._read_body(request, account))
                return await _finish(request, work, self._options.max_seconds)
        if got and request.method == "GET":
            return self._describe(_read_spec(got), got["metadata"] == "metadata")
        raise invalid(malformed)

    async def _read_body(self, request: Request, account: Account) -> bytes:
        limit = self._options.max_body_bytes
        too_large = HTTPException(413, f"the request is larger than {limit} bytes")
        if int(request.headers.get("content-length", "0")) > limit:
            raise too_large
        body = bytearray()
        num_received = 0
        gunzip = zlib.decompressobj(_GZIP) if "gzip" in request.headers.get("content-encoding", "") else None
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                async for chunk in request.stream():
                    num_received += len(chunk)
                    # One byte more than is taken shows that there is more, without making it.
                    part = gunzip.decompress(chunk, limit + 1 - len(body)) if gunzip else chunk
                    account.take(len(part))
                    body += part
                    if max(num_received, len(body)) > limit:
                        raise too_large
        except zlib.error as error:
            raise invalid(_NO_GZIP) from error
        except TimeoutError as error:
            raise HTTPException(408, f"the request did not arrive within {_BODY_SECONDS:.0f} s") from error
        if gunzip and (not gunzip.eof or gunzip.unused_data):
            raise invalid(_NO_GZIP)
        return bytes(body)

    async def _run(self, spec: ModelSpec, method: str, body: bytes) -> Response:
        is_large = len(body) > _LARGE_BODY_BYTES
        await self._do(is_large, check_json, body, self._options.max_texts)
        request = await self._do(is_large, decode_json, body)
        with self._service.begin(spec, read_signature_name(request), method) as prediction:
            signature = prediction.signature
            inputs, in_rows = await self._do(is_large, read_inputs, request, signature)
            waiting = prediction.submit(inputs)
            del body, request, inputs  # some times as large as what waits
            outputs = await asyncio.wrap_future(waiting)
        is_large = sum(output.size for output in outputs.values()) > _LARGE_ANSWER_VALUES
        answer = await self._do(is_large, encode_outputs, outputs, in_rows)
        return Response(answer, media_type="application/json")

    async def _do(self, is_large: bool, work: Callable[[*Given], Result], *given: *Given) -> Result:
        """Works at once, or in a thread if that may take long, so that other requests go on."""
        if not is_large:
            return work(*given)
        return await asyncio.get_running_loop().run_in_executor(self._large_worker, work, *given)

    def _describe(self, spec: ModelSpec, is_metadata: bool) -> Response:
        if is_metadata:
            with self._versions.lease(spec) as version:
                number, metadata = version.servable.number, version.servable.metadata_json
            model_spec = {"name": spec.name, "signature_name": "", "version": str(number)}
            return _json({"model_spec": model_spec, "metadata": {"signature_def": metadata}})
        statuses = [
            {
                "version": str(status.number),
                "state": status.state.name,
                "status": {
                    "error_code": "UNKNOWN" if status.error else "OK",
                    "error_message": status.error,
                },
            }
            for status in self._versions.list_statuses(spec)
        ]
        return _json({"model_version_status": statuses})


async def _finish(request: Request, work: Coroutine[Any, Any, Response], seconds: float) -> Response:
    """Works until it is done, the client is gone or the time is over.

    Raises:
        ClientDisconnect: nobody waits for the answer.
        ServingError: it took too long, or the work failed.
    """

    async def wait_until_gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    answer, gone = asyncio.ensure_future(work), asyncio.ensure_future(wait_until_gone())
    try:
        await asyncio.wait((answer, gone), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return answer.result()
        if gone.done():
            raise ClientDisconnect
        raise ServingError(Code.DEADLINE_EXCEEDED, f"the answer was not ready within {seconds} s")
    finally:
        answer.cancel()  # what waits to be run leaves its queue
        gone.cancel()


def _json(value: Any) -> Response:
    return Response(json.dumps(value, indent=1, ensure_ascii=False), media_type="application/json")


def _read_spec(match: re.Match[str]) -> ModelSpec:
    number = None
    if match["version"] is not None:
        number = int(match["version"].lstrip("0")[:20] or "0")
        if number > _MAX_INT64:
            raise invalid(f"Failed to convert version: {match['version'][:40]} to numeric.")
    if match["name"] is None:
        raise invalid("Missing model name in request.")
    label = match["label"]
    return ModelSpec(unquote(match["name"]), number, None if label is None else unquote(label))


def _make_unknown_signature(name: str) -> ServingError:
    return invalid(f'Serving signature name: "{name}" not found in signature def')


# === Page ===


_PAGE_DIR = Path(__file__).parent / "page"


def make_page_routes(versions: Versions, name: str) -> list[BaseRoute]:
    """Routes of the page: `/`, what it loads below `/page`, and `/page/model.json`.

    Args:
        versions: what is served.
        name: name of the model.
    """

    async def show_page(_request: Request) -> Response:
        return FileResponse(_PAGE_DIR / "index.html")

    async def describe_model(_request: Request) -> Response:
        described = [_describe_version(servable) for servable in versions.list_servables()]
        return JSONResponse({"name": name, "versions": described})

    return [
        Route("/", show_page),
        Route("/page/model.json", describe_model),
        Mount("/page", StaticFiles(directory=_PAGE_DIR)),
    ]


def _describe_version(servable: Servable) -> dict[str, Any]:
    """Describes a version; the number is a string, since JavaScript's numbers end at 2^53."""
    mask_token = servable.description.get("mask_token")
    return {
        "version": str(servable.number),
        "mask_token": mask_token,
        "max_length": servable.max_length,
        "top_k": servable.description.get("top_k"),
        "text_signature": "text" in servable.signatures and mask_token is not None,
    }
