"""A server that speaks the Hub's interface, for the real clients (`HF_ENDPOINT`), with faults to order.

It keeps repositories with branches and commits, LFS objects behind signed addresses that take no token, and
what it was asked for.
"""

import base64
import hashlib
import json
import re
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_test_only_secret"
SIGNATURE = "X-Amz-Signature=5161e7c0de"
_LFS_SUFFIXES = (".safetensors", ".h5", ".bin", ".parquet")


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


@dataclass
class Repository:
    """Attributes: `commits` maps a commit to its files, `branches` a branch to its commits, oldest first."""

    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, list[str]] = field(default_factory=dict)

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

    def make_repository(self, key: str, files: dict[str, bytes], private: bool = False) -> Repository:
        """A repository with one commit; a dataset's key is `datasets/` and its name."""
        repository = self.repositories[key] = Repository(private)
        repository.commit("main", {".gitattributes": b"", **files})
        return repository

    def count(self, pattern: str) -> int:
        with self.lock:
            return sum(bool(re.search(pattern, request)) for request in self.requests)

    def wait_for(self, pattern: str, times: int = 1, seconds: float = 60) -> None:
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


class CutError(Exception):
    """The connection was cut on purpose."""


class HubHandler(BaseHTTPRequestHandler):
    server: HubServer

    def log_message(self, *arguments: object) -> None:
        """Keeps the test's output clean."""

    # === Faults ===

    def handle_request(self) -> None:
        self.path = unquote(self.path)
        line = f"{self.command} {self.path}"
        with self.server.lock:
            self.server.requests.append(line)
            self.server.arrived.append(time.monotonic())
            fault = next(
                (
                    each
                    for each in self.server.faults
                    if re.search(each.pattern, line) and (each.times is None or each.met < each.times)
                ),
                None,
            )
            if fault:
                fault.met += 1
        try:
            if fault and self.meets(fault):
                return
            self.route(self.read_body())
        except (CutError, BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = handle_request

    def meets(self, fault: Fault) -> bool:
        """Whether the fault is all of the answer."""
        if fault.cut_after is not None:
            self.rfile.read(fault.cut_after)
            # With zero linger the client is reset, as by a broken line, and not told of an end.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.shutdown(socket.SHUT_RDWR)
            raise CutError
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
            return self.use_storage(url.path.rpartition("/")[2], url.query, body)
        self.server.authorizations.add(self.headers.get("Authorization"))
        if url.path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if url.path == "/api/whoami-v2":
            return self.answer({"name": "me"}) if self.is_known else self.refuse("Unauthorized", 401)
        if self.command == "POST" and "/paths-info/" not in url.path and not self.is_known:
            return self.answer({"error": "Invalid credentials in Authorization header"}, 401)
        if url.path == "/api/repos/create":
            return self.create(json.loads(body))
        if batch := re.fullmatch(r"/(.+)\.git/info/lfs/objects/batch", url.path):
            return self.sign(batch[1], json.loads(body))
        if resolve := re.fullmatch(r"/(.+?)/resolve/(.+)", url.path):
            return self.with_repository(resolve[1], lambda found: self.resolve(found, resolve[2]))
        if api := re.fullmatch(r"/api/(models|datasets)/([^/]+(?:/[^/]+)?)(?:/(\w[\w-]*)/(.+))?", url.path):
            prefix = "datasets/" if api[1] == "datasets" else ""
            name, action, rest = api[2], api[3] or "revision", api[4] or "main"
            return self.with_repository(
                prefix + name, lambda found: self.act(name, found, action, rest, body)
            )
        return self.refuse("EntryNotFound")

    @property
    def is_known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def with_repository(self, key: str, act: Any) -> None:
        repository = self.server.repositories.get(key)
        if repository is None or (repository.private and not self.is_known):
            return self.refuse("RepoNotFound", 404 if self.is_known else 401)
        return act(repository)

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
                "upload": {"href": f"{self.server.url}/lfs/{item['oid']}?{SIGNATURE}"},
                "verify": {"href": f"{self.server.url}/api/models/{key}/verify/main"},
            }
            is_there = item["oid"] in self.server.objects
            objects.append(item if is_there else {**item, "actions": actions})
        self.answer({"transfer": "basic", "objects": objects})

    def use_storage(self, oid: str, query: str, body: bytes) -> None:
        assert self.headers.get("Authorization") is None
        assert query == SIGNATURE
        if self.command != "PUT":
            return self.send(self.server.objects[oid], 200, {"ETag": f'"{oid}"'})
        assert hashlib.sha256(body).hexdigest() == oid
        self.server.objects[oid] = body
        self.server.uploads.append(oid)
        return self.answer({})

    # === Repositories ===

    def act(self, name: str, repository: Repository, action: str, rest: str, body: bytes) -> None:
        if action == "branch":
            if rest in repository.branches:
                return self.answer({"error": "exists"}, 409)
            repository.branches[rest] = [repository.branches["main"][-1]]
            return self.answer({})
        if action == "verify":
            oid = json.loads(body)["oid"]
            return self.answer({}, 200 if oid in self.server.objects else 400)
        revision, _, path = rest.partition("/")
        sha = repository.find(revision)
        if sha is None:
            return self.refuse("RevisionNotFound")
        if action == "preupload":
            return self.answer(
                {"files": [describe_mode(repository, sha, file) for file in json.loads(body)["files"]]}
            )
        if action == "commit":
            return self.commit(name, repository, revision, body)
        if action == "tree":
            return self.list_tree(repository, sha, path)
        if action == "paths-info":
            return self.answer(list_paths(repository.commits[sha], parse_qs(body.decode()).get("paths", [])))
        siblings = [{"rfilename": path} for path in repository.commits[sha]]
        return self.answer(
            {
                "id": name,
                "sha": sha,
                "private": repository.private,
                "siblings": siblings,
                "tags": [],
                "downloads": 0,
            }
        )

    def commit(self, name: str, repository: Repository, branch: str, body: bytes) -> None:
        with self.server.lock:
            files = dict(repository.commits[repository.branches[branch][-1]])
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    files[value["path"]] = self.server.objects[value["oid"]]
                elif line["key"] == "deletedFile":
                    del files[value["path"]]
            sha = repository.commit(branch, files)
        self.answer(
            {"success": True, "commitOid": sha, "commitUrl": f"{self.server.url}/{name}/commit/{sha}"}
        )

    def list_tree(self, repository: Repository, sha: str, folder: str) -> None:
        start = f"{folder}/" if folder else ""
        files = {path: data for path, data in repository.commits[sha].items() if path.startswith(start)}
        if not files:
            return self.refuse("EntryNotFound")
        if "recursive" in self.query and self.query["recursive"] != ["False"]:
            return self.answer([describe_file(path, data) for path, data in files.items()])
        inner = {
            path.removeprefix(start).partition("/")[0] for path in files if "/" in path.removeprefix(start)
        }
        direct = [
            describe_file(path, data) for path, data in files.items() if "/" not in path.removeprefix(start)
        ]
        return self.answer(direct + [describe_folder(start + name) for name in sorted(inner)])

    def resolve(self, repository: Repository, rest: str) -> None:
        revision, _, path = rest.partition("/")
        sha = repository.find(revision)
        if sha is None:
            return self.refuse("RevisionNotFound")
        content = repository.commits[sha].get(path)
        if content is None:
            return self.answer(
                {"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": sha}
            )
        headers = {"X-Repo-Commit": sha, "Accept-Ranges": "bytes"}
        if not path.endswith(_LFS_SUFFIXES):
            return self.send(content, 200, headers | {"ETag": f'"{git_hash(content)}"'})
        oid = hashlib.sha256(content).hexdigest()
        self.server.objects[oid] = content
        linked = {"X-Linked-Etag": f'"{oid}"', "X-Linked-Size": str(len(content))}
        location = {"Location": f"{self.server.url}/lfs/{oid}?{SIGNATURE}"}
        return self.send(b"", 302, headers | linked | location)


def git_hash(content: bytes) -> str:
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


def describe_mode(repository: Repository, sha: str, file: dict[str, Any]) -> dict[str, Any]:
    path = file["path"]
    is_large = path.endswith(_LFS_SUFFIXES)
    content = repository.commits[sha].get(path)
    oid = None
    if content is not None:
        oid = hashlib.sha256(content).hexdigest() if is_large else git_hash(content)
    mode = "lfs" if is_large else "regular"
    return {"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid}


def describe_file(path: str, content: bytes) -> dict[str, Any]:
    info: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": git_hash(content)}
    if path.endswith(_LFS_SUFFIXES):
        oid = hashlib.sha256(content).hexdigest()
        info["lfs"] = {"oid": oid, "size": len(content), "pointerSize": 130}
    return info


def describe_folder(path: str) -> dict[str, Any]:
    return {"type": "directory", "path": path, "size": 0, "oid": git_hash(path.encode())}


def list_paths(files: dict[str, bytes], paths: list[str]) -> list[dict[str, Any]]:
    found = [describe_file(path, files[path]) for path in paths if path in files]
    folders = [path for path in paths if any(file.startswith(f"{path}/") for file in files)]
    return found + [describe_folder(path) for path in folders]
