"""A web server on this machine, whose answers can go wrong."""

import re
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

TOKEN = "token=tellnobody"


@dataclass
class Fault:
    """What is wrong with the answers of a server.

    Attributes:
        status: instead of 200.
        cut_after: bytes of a file after which the connection ends.
        knows: of `ranges`, `length`, `etag` and `time`, what the server has.
        location: where it sends the client instead.
    """

    status: int | None = None
    cut_after: int | None = None
    knows: frozenset[str] = frozenset({"ranges", "length", "etag"})
    location: str | None = None


@dataclass
class Site:
    """Attributes: `files` by path, `asked` the requests as `METHOD path range`."""

    url: str
    files: dict[str, bytes] = field(default_factory=dict)
    times: dict[str, float] = field(default_factory=dict)
    fault: Fault = field(default_factory=Fault)
    asked: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def put(self, path: str, content: bytes) -> str:
        self.files[path] = content
        return f"{self.url}{path}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Site

    def log_message(self, *arguments: object) -> None:
        """Keeps the test's output clean."""

    def do_GET(self) -> None:
        site, fault = self.site, self.site.fault
        site.asked.append(f"{self.command} {self.path} {self.headers.get('Range', '')}".rstrip())
        site.headers.append(dict(self.headers))
        path = self.path.partition("?")[0]
        content = site.files.get(path)
        if fault.location:
            self.answer(302, {"Location": fault.location}, b"")
        elif fault.status or content is None:
            self.answer(fault.status or 404, {}, b"no")
        else:
            self.send(path, content)

    do_HEAD = do_GET  # noqa: N815

    def send(self, path: str, content: bytes) -> None:
        fault = self.site.fault
        headers = {}
        if "etag" in fault.knows:
            headers["ETag"] = f'"{md5(content).hexdigest()}"'
        if "time" in fault.knows:
            headers["Last-Modified"] = formatdate(self.site.times.get(path, 0), usegmt=True)
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if not wanted or "ranges" not in fault.knows:
            self.answer(200, headers, content)
            return
        first, last = int(wanted[1]), int(wanted[2])
        if fault.cut_after is not None:
            fault.cut_after = max(0, fault.cut_after - first)
        if first >= len(content):
            self.answer(416, {}, b"")
            return
        part = content[first : last + 1]
        headers["Content-Range"] = f"bytes {first}-{first + len(part) - 1}/{len(content)}"
        self.answer(206, headers, part)

    def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        fault = self.site.fault
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "length" in fault.knows:
            self.send_header("Content-Length", str(len(body)))
        else:
            self.close_connection = True
        self.end_headers()
        if self.command == "HEAD":
            return
        try:
            self.wfile.write(body[: fault.cut_after])
            self.wfile.flush()
        except (BrokenPipeError, ConnectionResetError):  # the client has what it wants
            self.close_connection = True
        if fault.cut_after is not None:
            # With zero linger the client is reset, as by a broken line, and not told of an end.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True


@contextmanager
def running_site() -> Iterator[Site]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {}))
    server.daemon_threads = True
    site = server.RequestHandlerClass.site = Site(f"http://127.0.0.1:{server.server_port}")
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
