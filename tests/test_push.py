"""Pushing to a server that speaks the Hub's interface, through the real `huggingface_hub` client."""

import base64
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

TOKEN = "hf_test_only_secret"


class HubServer(ThreadingHTTPServer):
    """Keeps repositories in memory.

    Attributes:
        status: answers every request with this status instead, if it is set.
        repositories: for each name, its `private` flag and its files.
        authorizations: the header of every request.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.status: int | None = None
        self.repositories: dict[str, dict[str, object]] = {}
        self.objects: dict[str, bytes] = {}
        self.authorizations: set[str | None] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class HubHandler(BaseHTTPRequestHandler):
    server: HubServer

    def log_message(self, *arguments: object) -> None:
        """Keeps the test's output clean."""

    def read_body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def answer(self, content: object, status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_PUT(self) -> None:
        content = self.read_body()
        assert hashlib.sha256(content).hexdigest() == self.path.rpartition("/")[2]
        self.server.objects[self.path.rpartition("/")[2]] = content
        self.answer({})

    def do_POST(self) -> None:
        body = self.read_body()
        self.server.authorizations.add(self.headers.get("Authorization"))
        if self.server.status:
            self.answer({"error": "no"}, self.server.status)
        elif self.path == "/api/repos/create":
            request = json.loads(body)
            name = (
                f"{request['organization']}/{request['name']}"
                if request.get("organization")
                else request["name"]
            )
            self.server.repositories.setdefault(name, {"private": request["private"], "files": {}})
            self.answer({"url": f"{self.server.url}/{name}"})
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for file in files
            ]
            self.answer({"files": modes})
        elif self.path.endswith("/info/lfs/objects/batch"):
            objects = [
                {
                    **item,
                    "actions": {"upload": {"href": f"{self.server.url}/lfs/{item['oid']}"}},
                }
                for item in json.loads(body)["objects"]
            ]
            self.answer({"transfer": "basic", "objects": objects})
        elif "/commit/" in self.path:
            self.commit(body)
        else:
            self.answer({"error": f"unexpected {self.path}"}, 404)

    def commit(self, body: bytes) -> None:
        name = self.path.removeprefix("/api/models/").partition("/commit/")[0]
        files = self.server.repositories[name]["files"]
        assert isinstance(files, dict)
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.objects[value["oid"]]
        self.answer({"success": True, "commitOid": "0" * 40, "commitUrl": f"{self.server.url}/commit"})


@pytest.fixture
def hub() -> Iterator[HubServer]:
    server = HubServer()
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    """As much of a trained model as a push looks at."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "bert"}')
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 40)
    (folder / "run_config.yaml").write_text("model: {name_or_path: bert}\nhub: {repo_id: me/mine}\n")
    return folder


def push(hub_url: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return tfmlm("push", *arguments, hub_url=hub_url)


def tfmlm(*arguments: object, hub_url: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "HF_ENDPOINT": hub_url,
        "HF_TOKEN": TOKEN,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    return subprocess.run(
        [sys.executable, "-m", "tfmlm", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
    )


def test_every_file_arrives(hub: HubServer, model_dir: Path) -> None:
    done = push(hub.url, model_dir)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{hub.url}/me/mine"
    repository = hub.repositories["me/mine"]
    assert repository["private"] is True
    assert repository["files"] == {path.name: path.read_bytes() for path in model_dir.iterdir()}
    assert hub.authorizations == {f"Bearer {TOKEN}"}


def test_overrides_name_the_repository(hub: HubServer, model_dir: Path) -> None:
    done = push(hub.url, model_dir, "hub.repo_id=you/yours", "hub.private=false")
    assert done.returncode == 0, done.stderr
    assert hub.repositories["you/yours"]["private"] is False


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_is_one_line_with_the_command_to_try_again(
    status: int, hub: HubServer, model_dir: Path
) -> None:
    hub.status = status
    done = push(hub.url, model_dir)
    assert done.returncode == 2
    assert "to 'me/mine' failed" in done.stderr
    assert f"`tfmlm push {model_dir} hub.repo_id=me/mine` tries again" in done.stderr
    assert "Traceback" not in done.stderr
    assert TOKEN not in done.stderr + done.stdout
    assert len(list(model_dir.iterdir())) == 3


def test_no_hub_at_all_is_one_line(model_dir: Path) -> None:
    done = push("http://127.0.0.1:9", model_dir)
    assert done.returncode == 2
    assert "failed" in done.stderr
    assert "Traceback" not in done.stderr
    assert TOKEN not in done.stderr


def test_without_a_repository_it_says_which_key(model_dir: Path) -> None:
    (model_dir / "run_config.yaml").write_text("model: {name_or_path: bert}\n")
    done = push("http://127.0.0.1:9", model_dir)
    assert done.returncode == 2
    assert "hub.repo_id is empty" in done.stderr


def test_a_run_is_finished_even_if_its_push_fails(tmp_path: Path, text_file: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        f"run: {{output_dir: {tmp_path}/run}}\n"
        f"data: {{source: text, train_files: [{text_file}], block_size: 32}}\n"
        "tokenizer: {train_vocab_size: 200}\n"
        "model: {config: {model_type: bert, hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2}}\n"
        "train: {max_steps: 1, per_replica_batch_size: 2}\n"
        "export: {enabled: false}\n"
        "hub: {push: true, repo_id: me/mine}\n"
    )
    done = tfmlm("train", config, hub_url="http://127.0.0.1:9")
    assert done.returncode == 2
    assert "tries again" in done.stderr
    assert (tmp_path / "run" / "result.json").exists()
