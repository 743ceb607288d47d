"""Starts the preview server, and stops it when it is told to."""

from __future__ import annotations

import ipaddress
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from tfmlm.errors import UserError
from tfmlm.preview.connections import TimedConnection
from tfmlm.preview.grpc import add_services, make_grpc_server
from tfmlm.preview.memory import Memory
from tfmlm.preview.options import ServeOptions
from tfmlm.preview.rest import make_app
from tfmlm.preview.versions import Versions
from tfmlm.signals import StopFlag, noting_stop_signals

logger = logging.getLogger("tfmlm.preview")

_BACKLOG = 1024
_MAX_CONNECTIONS = 1024
_LOOK_SECONDS = 0.1
"""Between two looks at whether the server is told to stop."""


@dataclass(frozen=True)
class Running:
    """The addresses of a server that is ready, and what it serves.

    Attributes:
        name: of the model.
        versions: that are served, newest first.
        rest_url: without a path.
        grpc_address: host and port.
        is_local: whether only this machine can reach it.
    """

    name: str
    versions: list[int]
    rest_url: str
    grpc_address: str
    is_local: bool


def serve(folder: Path, options: ServeOptions, on_ready: Callable[[Running], None]) -> int:
    """Serves an export until SIGTERM or SIGINT, then finishes what is in flight.

    Args:
        folder: `saved_models/NAME`.
        options: settings.
        on_ready: called once, when requests are answered.

    Returns:
        The exit code, 0, or 1 if the REST server ended by itself.

    Raises:
        UserError: the folder has no version that loads, or a port is taken.
    """
    with (
        noting_stop_signals(signal.SIGTERM, signal.SIGINT) as told_to_stop,
        _listen(options.host, options.port, "--port") as listener,
    ):
        return _serve_until(told_to_stop, listener, folder, options, on_ready)


def _serve_until(
    told_to_stop: StopFlag,
    listener: socket.socket,
    folder: Path,
    options: ServeOptions,
    on_ready: Callable[[Running], None],
) -> int:
    grpc_server = make_grpc_server(options)
    grpc_port = _bind_grpc(grpc_server, options)
    versions = Versions(folder, options)
    versions.start()
    memory = Memory(options.max_waiting_bytes)
    add_services(grpc_server, versions, options, memory)
    rest_server = _make_rest_server(make_app(versions, options, memory), options)
    rest_thread = threading.Thread(
        target=rest_server.run, kwargs={"sockets": [listener]}, name="tfmlm-rest", daemon=True
    )
    port = listener.getsockname()[1]
    rest_thread.start()
    grpc_server.start()
    on_ready(
        Running(
            options.name,
            versions.list_numbers(),
            f"http://{_join(options.host, port)}",
            _join(options.host, grpc_port),
            ipaddress.ip_address(listener.getsockname()[0]).is_loopback,
        )
    )
    while rest_thread.is_alive() and not told_to_stop.stop_requested:
        rest_thread.join(_LOOK_SECONDS)
    is_ended = not rest_thread.is_alive()
    versions.stop_taking()
    _finish(versions, rest_server, rest_thread, grpc_server, options.grace_seconds)
    logger.info("stopped")
    return 1 if is_ended else 0


def _finish(
    versions: Versions,
    rest_server: uvicorn.Server,
    rest_thread: threading.Thread,
    grpc_server: Any,
    grace: float,
) -> None:
    """Lets both servers finish what they have begun, for as long as the grace lasts.

    Meanwhile REST goes on to take connections, and tells probes that it is not ready.
    """
    deadline = time.monotonic() + grace
    grpc_stopped = grpc_server.stop(grace)
    versions.wait_until_unused(grace)
    rest_server.should_exit = True
    rest_thread.join(max(0.0, deadline - time.monotonic()) + 1)
    grpc_stopped.wait(max(0.0, deadline - time.monotonic()) + 1)


def _make_rest_server(app: ASGIApp, options: ServeOptions) -> uvicorn.Server:
    return uvicorn.Server(
        uvicorn.Config(
            app,
            http=TimedConnection,
            lifespan="off",
            log_config=None,
            log_level=logging.CRITICAL,
            access_log=False,
            server_header=False,
            limit_concurrency=_MAX_CONNECTIONS,
            timeout_graceful_shutdown=max(1, round(options.grace_seconds)),
            ws="none",
        )
    )


def _listen(host: str, port: int, flag: str) -> socket.socket:
    """A socket that listens; connections wait until the model is loaded."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise UserError(f"cannot listen on {_join(host, port)}: {reason}; set {flag} or --host") from error
    # Connections inherit it. asyncio sets it only where the protocol is given; without it an answer in two
    # packets waits 40 ms for the client to acknowledge the first.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _bind_grpc(server: Any, options: ServeOptions) -> int:
    # gRPC writes to the terminal and gives no reason when it cannot listen, so a socket tries before it.
    _listen(options.host, options.grpc_port, "--grpc-port").close()
    address = _join(options.host, options.grpc_port)
    try:
        port: int = server.add_insecure_port(address)
    except RuntimeError as error:
        raise UserError(f"cannot listen on {address}; set --grpc-port or --host") from error
    return port


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
