"""What is not read of an answer is kept for a while, and as long as some of it is read."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn
from starlette.responses import Response

from tests.waiting import WAIT_SECONDS, wait_until
from tfmlm.preview import connections

SIZE = 20 * 2**20
"""More than the system buffers for a connection."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[uvicorn.Server, int]]:
    """A server in a thread that answers SIZE bytes, and its port."""
    monkeypatch.setattr(connections, "UNREAD_SECONDS", 1.0)
    running = uvicorn.Server(
        uvicorn.Config(
            Response(b"x" * SIZE),
            http=connections.TimedConnection,
            lifespan="off",
            log_config=None,
            timeout_graceful_shutdown=1,
        )
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
        thread.start()
        yield running, listener.getsockname()[1]
        running.should_exit = True
        thread.join(WAIT_SECONDS)


def ask(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=WAIT_SECONDS)
    connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    return connection


def test_an_answer_that_nobody_reads_is_thrown_away(server: tuple[uvicorn.Server, int]) -> None:
    running, port = server
    with ask(port) as connection:
        wait_until(lambda: running.server_state.total_requests == 1)
        assert len(running.server_state.connections) == 1
        wait_until(lambda: not running.server_state.connections)
        num_read = 0
        while part := connection.recv(2**20):
            num_read += len(part)
        assert num_read < SIZE


def test_an_answer_that_is_read_slowly_arrives(server: tuple[uvicorn.Server, int]) -> None:
    """It takes three times as long as one of which nothing is read may."""
    _, port = server
    num_read = 0
    with ask(port) as connection:
        while num_read < SIZE:
            part = connection.recv(2**20, socket.MSG_WAITALL)
            assert part
            num_read += len(part)
            time.sleep(0.15)
