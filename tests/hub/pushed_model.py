"""A model as it is pushed, and a client of the Hub that looks at what came."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.hub.server import SIGNATURE, TOKEN, HubServer
from tests.waiting import WAIT_SECONDS
from tfmlm.config import Config, HubConfig, ModelConfig
from tfmlm.config.load import dump_config

NO_HUB = "http://127.0.0.1:9"
"""Where nobody listens."""


def environment_for(hub: HubServer | str, **more: str) -> dict[str, str]:
    """Nothing of the user's: no login, no cache."""
    settings = {
        "HF_ENDPOINT": hub if isinstance(hub, str) else hub.url,
        "HF_HOME": tempfile.mkdtemp(prefix="tfmlm-test-hub-"),
        "HF_TOKEN": TOKEN,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    return os.environ | settings | more


def run_tfmlm(hub: HubServer | str, *arguments: object, **more: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "tfmlm", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=WAIT_SECONDS,
        env=environment_for(hub, **more),
    )
    assert_no_secret(done.stdout + done.stderr)
    return done


def start_tfmlm(hub: HubServer | str, *arguments: object, **more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tfmlm", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment_for(hub, **more),
    )


def assert_no_secret(text: str) -> None:
    assert TOKEN not in text
    assert SIGNATURE not in text
    assert "Traceback" not in text


def assert_no_secret_in(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            assert TOKEN.encode() not in path.read_bytes(), path


COMMIT = r"^POST /api/models/me/mine/commit/main"


def write_model(folder: Path) -> Path:
    folder.mkdir()
    (folder / "README.md").write_text("---\nlibrary_name: transformers\n---\n")
    (folder / "config.json").write_text('{"model_type": "bert"}')
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 4000)
    config = Config(model=ModelConfig(name_or_path="bert"), hub=HubConfig(repo_id="me/mine"))
    (folder / "run_config.yaml").write_text(dump_config(config))
    return folder
