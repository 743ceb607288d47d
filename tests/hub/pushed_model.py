"""A model as it is pushed, its card, and a client of the Hub that looks at what came."""

import os
import re
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.hub.server import SIGNATURE, TOKEN, HubServer
from tests.waiting import WAIT_SECONDS
from tfmlm.config import Config, HubConfig, ModelConfig
from tfmlm.config.load import dump_config
from tfmlm.hub.card import TrainingEnvironment, write_card
from tfmlm.results import Result
from tfmlm.run_folder import RunFolder

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


TEXT = "Return the [MASK] size."
CIRCUMSTANCES = TrainingEnvironment("1 CPU", ["the head is new"], 4)


def read_card(run_dir: Path) -> str:
    return (run_dir / "model" / "README.md").read_text(encoding="utf-8")


def read_result(run_dir: Path) -> Result:
    result = RunFolder(run_dir).read_result()
    assert result
    return result


def rewrite(copy_dir: Path, config: Config, **changes: Any) -> str:
    """The card of a run that differs in some of its configuration or result."""
    result = replace(read_result(copy_dir), **changes)
    write_card(config, RunFolder(copy_dir), result, CIRCUMSTANCES)
    return read_card(copy_dir)


def extract(card: str, language: str, heading: str) -> str:
    """All code in that language below a heading."""
    section = card.partition(f"### {heading}\n")[2].partition("\n#")[0]
    return "\n".join(re.findall(rf"```{language}\n(.*?)\n```", section, re.DOTALL))
