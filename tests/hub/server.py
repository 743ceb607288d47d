"""A server that speaks the Hub's interface, for the real clients (`HF_ENDPOINT`), with faults to order.

It keeps repositories with branches and commits, LFS objects behind signed addresses that take no token, and
what it was asked for.
"""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from threading import Lock, Thread

from tests.hub.faults import Fault
from tests.hub.interface import HubHandler
from tests.hub.store import Repository
from tests.waiting import WAIT_SECONDS


class HubServer(ThreadingHTTPServer):
    """Attributes: `requests` as `METHOD /path`, `uploads` the LFS objects that were sent, in order."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.lock = Lock()
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.arrived: list[float] = []
        self.uploads: list[str] = []
        self.authorizations: set[str | None] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def storage_url(self) -> str:
        """Another host, as the Hub's storage is: clients send it no token."""
        return f"http://localhost:{self.server_port}"

    def make_repository(self, key: str, files: dict[str, bytes], private: bool = False) -> Repository:
        """A repository with one commit; a dataset's key is `datasets/` and its name."""
        repository = self.repositories[key] = Repository(private)
        repository.commit("main", {".gitattributes": b"", **files})
        return repository

    def count(self, pattern: str) -> int:
        with self.lock:
            return sum(bool(re.search(pattern, request)) for request in self.requests)

    def wait_for(self, pattern: str, times: int = 1, seconds: float = WAIT_SECONDS) -> None:
        deadline = time.monotonic() + seconds
        while self.count(pattern) < times:
            assert time.monotonic() < deadline, f"{pattern} came {self.count(pattern)} times"
            time.sleep(0.01)


@contextmanager
def running_hub() -> Iterator[HubServer]:
    server = HubServer()
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        for fault in server.faults:
            if fault.hold:
                fault.hold.set()
        server.shutdown()
        thread.join()
        server.server_close()
