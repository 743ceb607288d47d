"""A Hub on this machine: its store, its interface, its faults, and the server."""

import base64
import hashlib
import json
import re
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

if TYPE_CHECKING:
    from tests.hub.server import HubServer
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from threading import Event, Lock, Thread

from tests.waiting import WAIT_SECONDS

LFS_SUFFIXES = (".safetensors", ".h5", ".bin", ".parquet")


@dataclass
class Repository:
    """Files under version control.

    Attributes: `commits` maps a commit to its files, `branches` a branch to its commits, oldest first."""

    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, list[str]] = field(default_factory=dict)

    def apply(self, branch: str, operations: list[dict[str, Any]], objects: dict[str, bytes]) -> str:
        """Commits operations as the interface writes them."""
        files = dict(self.commits[self.branches[branch][-1]])
        for operation in operations:
            value = operation["value"]
            if operation["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                files[value["path"]] = objects[value["oid"]]
            elif operation["key"] == "deletedFile":
                del files[value["path"]]
        return self.commit(branch, files)

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        history = self.branches.setdefault(branch, [])
        sha = hashlib.sha1(f"{branch} {len(self.commits)}".encode()).hexdigest()
        self.commits[sha] = files
        history.append(sha)
        return sha

    def find(self, revision: str) -> str | None:
        return (
            self.branches[revision][-1]
            if revision in self.branches
            else (revision if revision in self.commits else None)
        )

    def files(self, branch: str = "main") -> dict[str, bytes]:
        """The files of a branch, without the Hub's own `.gitattributes`."""
        files = self.commits[self.branches[branch][-1]]
        return {path: content for path, content in files.items() if path != ".gitattributes"}


def git_hash(content: bytes) -> str:
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


def list_folder(files: dict[str, bytes], folder: str, recursive: bool) -> list[dict[str, Any]]:
    start = f"{folder}/" if folder else ""
    inner = {path.removeprefix(start): content for path, content in files.items() if path.startswith(start)}
    if recursive:
        return [describe_file(start + path, content) for path, content in inner.items()]
    folders = sorted({path.partition("/")[0] for path in inner if "/" in path})
    direct = [describe_file(start + path, content) for path, content in inner.items() if "/" not in path]
    return direct + [describe_folder(start + path) for path in folders]


def describe_mode(files: dict[str, bytes], path: str) -> dict[str, Any]:
    is_large = path.endswith(LFS_SUFFIXES)
    content = files.get(path)
    oid = None
    if content is not None:
        oid = hashlib.sha256(content).hexdigest() if is_large else git_hash(content)
    mode = "lfs" if is_large else "regular"
    return {"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid}


def describe_file(path: str, content: bytes) -> dict[str, Any]:
    info: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": git_hash(content)}
    if path.endswith(LFS_SUFFIXES):
        oid = hashlib.sha256(content).hexdigest()
        info["lfs"] = {"oid": oid, "size": len(content), "pointerSize": 130}
    return info


def describe_folder(path: str) -> dict[str, Any]:
    return {"type": "directory", "path": path, "size": 0, "oid": git_hash(path.encode())}


def list_paths(files: dict[str, bytes], paths: list[str]) -> list[dict[str, Any]]:
    found = [describe_file(path, files[path]) for path in paths if path in files]
    folders = [path for path in paths if any(file.startswith(f"{path}/") for file in files)]
    return found + [describe_folder(path) for path in folders]


TOKEN = "hf_test_only_secret"
SIGNATURE = "X-Amz-Signature=5161e7c0de"
_FIXED_ANSWERS = {
    "/api/validate-yaml": {"errors": [], "warnings": []},
    "/api/whoami-v2": {"type": "user", "name": "me"},
}
_API = r"/api/(?P<kind>models|datasets)/(?P<name>[^/]+(?:/[^/]+)?)(?:/(?P<action>\w[\w-]*)/(?P<rest>.+))?"


@dataclass
class Fault:
    """What a request meets instead of, or before, its answer.

    Attributes:
        pattern: of `METHOD /path`.
        times: requests that meet it; all when None.
        status: the answer; the usual one when None.
        headers: of the answer.
        message: of the answer; `{token}` becomes the token that was sent.
        cut_after: cut the connection after so many bytes of the body.
        hold: wait for this, at most a minute.
        seconds: wait so long.
    """

    pattern: str
    times: int | None = None
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    message: str = "no"
    cut_after: int | None = None
    hold: Event | None = None
    seconds: float = 0.0
    met: int = 0


def meet_fault(faults: list[Fault], request: str) -> Fault | None:
    """The first fault that this request meets, counted."""
    for fault in faults:
        if re.search(fault.pattern, request) and (fault.times is None or fault.met < fault.times):
            fault.met += 1
            return fault
    return None


class CutError(Exception):
    """The connection was cut on purpose."""


def cut(connection: socket.socket) -> None:
    """Ends the connection at once."""
    # With zero linger the client is reset, as by a broken line, and not told of an end.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.shutdown(socket.SHUT_RDWR)
    raise CutError


class HubHandler(BaseHTTPRequestHandler):
    server: "HubServer"

    def log_message(self, *arguments: object) -> None:
        """Keeps the test's output clean."""

    # === Faults ===

    def handle_request(self) -> None:
        self.path = unquote(self.path)
        line = f"{self.command} {self.path}"
        with self.server.lock:
            self.server.requests.append(line)
            self.server.arrived.append(time.monotonic())
            fault = meet_fault(self.server.faults, line)
        try:
            if fault and self.meets(fault):
                return
            self.route(self.read_body())
        except (CutError, BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = handle_request  # noqa: N815

    def meets(self, fault: Fault) -> bool:
        """Whether the fault is all of the answer."""
        if fault.cut_after is not None:
            self.rfile.read(fault.cut_after)
            cut(self.connection)
        if fault.hold:
            fault.hold.wait(60)
        time.sleep(fault.seconds)
        if fault.status is None:
            return False
        self.read_body()
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        self.answer({"error": fault.message.format(token=token)}, fault.status, fault.headers)
        return True

    # === Answers ===

    def read_body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def answer(self, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send(
            json.dumps(content).encode(), status, {"Content-Type": "application/json", **(headers or {})}
        )

    def send(self, body: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, code: str, status: int = 404) -> None:
        self.answer({"error": code}, status, {"X-Error-Code": code, "X-Error-Message": code})

    def route(self, body: bytes) -> None:
        url = urlsplit(self.path)
        self.query = parse_qs(url.query)
        if url.path.startswith("/lfs/"):
            self.use_storage(url.path.rpartition("/")[2], url.query, body)
            return
        self.server.authorizations.add(self.headers.get("Authorization"))
        needs_token = self.command == "POST" and "/paths-info/" not in url.path
        if not self.is_known and (needs_token or url.path == "/api/whoami-v2"):
            self.answer({"error": "Invalid credentials in Authorization header"}, 401)
        elif url.path in _FIXED_ANSWERS:
            self.answer(_FIXED_ANSWERS[url.path])
        elif url.path == "/api/repos/create":
            self.create(json.loads(body))
        elif batch := re.fullmatch(r"/(.+)\.git/info/lfs/objects/batch", url.path):
            self.sign(batch[1], json.loads(body))
        elif resolve := re.fullmatch(r"/(.+?)/resolve/(.+)", url.path):
            if self.find_repository(resolve[1]) and self.find_revision(resolve[2]):
                self.resolve()
        elif api := re.fullmatch(_API, url.path):
            self.name = api["name"]
            key = f"datasets/{self.name}" if api["kind"] == "datasets" else self.name
            if self.find_repository(key):
                self.act(api["action"] or "revision", api["rest"] or "main", body)
        else:
            self.refuse("EntryNotFound")

    @property
    def is_known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def find_repository(self, key: str) -> bool:
        repository = self.server.repositories.get(key)
        if repository is None or (repository.private and not self.is_known):
            self.refuse("RepoNotFound", 404 if self.is_known else 401)
            return False
        self.repository = repository
        return True

    def find_revision(self, rest: str) -> bool:
        """Takes `revision/path` apart."""
        self.revision, _, self.inner_path = rest.partition("/")
        sha = self.repository.find(self.revision)
        if sha is None:
            self.refuse("RevisionNotFound")
            return False
        self.sha, self.files = sha, self.repository.commits[sha]
        return True

    def create(self, request: dict[str, Any]) -> None:
        name = f"{request.get('organization') or 'me'}/{request['name']}"
        with self.server.lock:
            exists = name in self.server.repositories
            if not exists:
                self.server.make_repository(name, {}, request["private"])
        content = {"url": f"{self.server.url}/{name}", "name": name}
        self.answer(content, 409 if exists else 200)

    # === LFS ===

    def sign(self, key: str, request: dict[str, Any]) -> None:
        assert key in self.server.repositories
        objects = []
        for item in request["objects"]:
            actions = {
                "upload": {"href": f"{self.server.storage_url}/lfs/{item['oid']}?{SIGNATURE}"},
                "verify": {"href": f"{self.server.url}/api/models/{key}/verify/main"},
            }
            is_there = item["oid"] in self.server.objects
            objects.append(item if is_there else {**item, "actions": actions})
        self.answer({"transfer": "basic", "objects": objects})

    def use_storage(self, oid: str, query: str, body: bytes) -> None:
        assert self.headers.get("Authorization") is None
        assert query == SIGNATURE
        if self.command == "PUT":
            assert hashlib.sha256(body).hexdigest() == oid
            self.server.objects[oid] = body
            self.server.uploads.append(oid)
            self.answer({})
        else:
            self.send(self.server.objects[oid], 200, {"ETag": f'"{oid}"'})

    # === Repositories ===

    def act(self, action: str, rest: str, body: bytes) -> None:
        if action == "branch":
            self.make_branch(rest)
        elif action == "verify":
            self.answer({}, 200 if json.loads(body)["oid"] in self.server.objects else 400)
        elif self.find_revision(rest):
            acts = {
                "preupload": self.preupload,
                "commit": self.commit,
                "tree": self.list_tree,
                "paths-info": self.list_paths,
                "revision": self.describe,
            }
            acts[action](body)

    def make_branch(self, name: str) -> None:
        if name in self.repository.branches:
            self.answer({"error": "exists"}, 409)
        else:
            self.repository.branches[name] = [self.repository.branches["main"][-1]]
            self.answer({})

    def preupload(self, body: bytes) -> None:
        self.answer(
            {"files": [describe_mode(self.files, file["path"]) for file in json.loads(body)["files"]]}
        )

    def commit(self, body: bytes) -> None:
        with self.server.lock:
            operations = [json.loads(line) for line in body.splitlines()]
            sha = self.repository.apply(self.revision, operations, self.server.objects)
        url = f"{self.server.url}/{self.name}/commit/{sha}"
        self.answer({"success": True, "commitOid": sha, "commitUrl": url})

    def list_tree(self, body: bytes) -> None:
        is_recursive = self.query.get("recursive", ["False"]) != ["False"]
        found = list_folder(self.files, self.inner_path, is_recursive)
        if found:
            self.answer(found)
        else:
            self.refuse("EntryNotFound")

    def list_paths(self, body: bytes) -> None:
        self.answer(list_paths(self.files, parse_qs(body.decode()).get("paths", [])))

    def describe(self, body: bytes) -> None:
        siblings = [{"rfilename": path} for path in self.files]
        private = self.repository.private
        self.answer({"id": self.name, "sha": self.sha, "private": private, "siblings": siblings, "tags": []})

    def resolve(self) -> None:
        headers = {"X-Repo-Commit": self.sha, "Accept-Ranges": "bytes"}
        content = self.files.get(self.inner_path)
        if content is None:
            self.answer({"error": "Entry not found"}, 404, headers | {"X-Error-Code": "EntryNotFound"})
        elif not self.inner_path.endswith(LFS_SUFFIXES):
            self.send(content, 200, headers | {"ETag": f'"{git_hash(content)}"'})
        else:
            oid = hashlib.sha256(content).hexdigest()
            self.server.objects[oid] = content
            linked = {"X-Linked-Etag": f'"{oid}"', "X-Linked-Size": str(len(content))}
            location = {"Location": f"{self.server.storage_url}/lfs/{oid}?{SIGNATURE}"}
            self.send(b"", 302, headers | linked | location)


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
