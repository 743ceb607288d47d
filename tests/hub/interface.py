"""The Hub's interface, as a handler of requests to a test's own Hub."""

import hashlib
import json
import re
import time
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.hub.faults import CutError, Fault, cut, meet_fault
from tests.hub.store import LFS_SUFFIXES, describe_mode, git_hash, list_folder, list_paths

if TYPE_CHECKING:
    from tests.hub.server import HubServer

TOKEN = "hf_test_only_secret"
SIGNATURE = "X-Amz-Signature=5161e7c0de"
_FIXED_ANSWERS = {
    "/api/validate-yaml": {"errors": [], "warnings": []},
    "/api/whoami-v2": {"type": "user", "name": "me"},
}
_API = r"/api/(?P<kind>models|datasets)/(?P<name>[^/]+(?:/[^/]+)?)(?:/(?P<action>\w[\w-]*)/(?P<rest>.+))?"


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
