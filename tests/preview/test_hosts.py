"""Which names a request may give for the server, and which sites it may come from."""

import asyncio
import socket

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Message

from tfmlm.errors import UserError
from tfmlm.preview.hosts import HostGuard
from tfmlm.preview.options import ServeOptions


def ask(options: ServeOptions, host: str | None, origin: str | None = None) -> int:
    """Status of a request with these headers."""
    given = {"host": host, "origin": origin}
    headers = [(name.encode(), value.encode()) for name, value in given.items() if value is not None]
    scope = {"type": "http", "method": "POST", "path": "/", "headers": headers}
    sent: list[Message] = []

    async def receive() -> Message:
        raise AssertionError("the body is not looked at")

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(HostGuard(PlainTextResponse("served"), options)(scope, receive, send))
    return int(sent[0]["status"])


HERE = ServeOptions()
EVERYWHERE = ServeOptions(host="0.0.0.0")
NAMED = ServeOptions(host="::1", allow_hosts=("Models.Example.com", "[fe80::1]"))


@pytest.mark.parametrize("port", ["", ":80", ":8501", ":"])
@pytest.mark.parametrize(
    ("options", "host", "status"),
    [
        (HERE, "localhost", 200),
        (HERE, "LocalHost", 200),
        (HERE, "127.0.0.1", 200),
        (HERE, "[::1]", 200),
        (HERE, "evil.example", 403),
        (HERE, "localhost.evil.example", 403),
        (HERE, "evil.example@localhost", 403),
        (HERE, "localhost/x", 403),
        (HERE, "", 403),
        (HERE, "192.0.2.1", 403),
        (HERE, socket.gethostname() + ".not", 403),
        (EVERYWHERE, "localhost", 200),
        (EVERYWHERE, "192.0.2.1", 200),
        (EVERYWHERE, "[2001:db8::1]", 200),
        (EVERYWHERE, socket.gethostname(), 200),
        (EVERYWHERE, "evil.example", 403),
        (EVERYWHERE, "192.0.2.1.evil.example", 403),
        (NAMED, "models.example.com", 200),
        (NAMED, "[FE80::1]", 200),
        (NAMED, "[fe80::2]", 403),
        (NAMED, "example.com", 403),
    ],
)
def test_names(options: ServeOptions, host: str, port: str, status: int) -> None:
    assert ask(options, host + port) == status


@pytest.mark.parametrize(
    ("options", "host", "origin", "status"),
    [
        (HERE, "localhost:8501", "http://localhost:8501", 200),
        (HERE, "localhost:8501", "HTTP://LOCALHOST:8501", 200),
        (HERE, "localhost:8501", "http://localhost:3000", 403),
        (HERE, "localhost:8501", "http://127.0.0.1:8501", 403),
        (HERE, "localhost:8501", "http://evil.example", 403),
        (HERE, "localhost:8501", "http://localhost:8501.evil.example", 403),
        (HERE, "localhost:8501", "http://evil.example/localhost:8501", 403),
        (HERE, "localhost:8501", "null", 403),
        (HERE, "localhost:8501", "", 403),
        (HERE, "localhost:8501", "file://localhost:8501", 403),
        (HERE, "localhost:8501", "http://[", 403),
        (HERE, None, "null", 403),
        (HERE, None, None, 200),
        (NAMED, "localhost:8501", "https://models.example.com", 200),
        (NAMED, "models.example.com", "https://models.example.com:444", 200),
        (NAMED, "models.example.com", "https://example.com", 403),
        (EVERYWHERE, "192.0.2.1:8501", "http://192.0.2.1:8501", 200),
        (EVERYWHERE, "192.0.2.1:8501", "http://192.0.2.2:8501", 403),
    ],
)
def test_sites(options: ServeOptions, host: str | None, origin: str | None, status: int) -> None:
    assert ask(options, host, origin) == status


@pytest.mark.parametrize("name", ["", "https://a.example", "a.example:80", "a/b", "*", "a b"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="without scheme and port"):
        ServeOptions(allow_hosts=(name,))
