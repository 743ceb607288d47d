"""What the model card tells to type works."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from tests.folders import CHECKOUT
from tests.hub.pushed_model import TEXT, environment_for, extract, read_card, rewrite, run_tfmlm
from tests.hub.server import HubServer
from tests.preview.server import run_server
from tests.waiting import WAIT_SECONDS
from tfmlm.config import Config
from tfmlm.inference.fill import load_predictor

PYTORCH = os.environ.get("TFMLM_PYTORCH_PYTHON", "")


def run_python(python: str, code: str, folder: Path, **environment: str) -> list[str]:
    done = subprocess.run(
        [python, "-c", code],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=WAIT_SECONDS,
        # Nothing of the tests': only what the code itself sets.
        env={
            name: value
            for name, value in (os.environ | environment).items()
            if name not in ("TF_USE_LEGACY_KERAS", "PYTHONPATH")
        },
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def expected_lines(run_dir: Path) -> list[tuple[float, str]]:
    (masks,) = load_predictor(str(run_dir / "model"), top_k=5)([TEXT])
    return [(each["score"], each["token_str"]) for each in masks[0]]


def assert_same_words(lines: list[str], run_dir: Path) -> None:
    expected = expected_lines(run_dir)
    assert len(lines) == len(expected) == 5
    for line, (score, word) in zip(lines, expected, strict=True):
        shown, _, found = line.partition(" ")
        assert float(shown.rstrip("%")) == pytest.approx(100 * score, abs=0.11)
        assert found.strip() == word.strip()


@pytest.mark.long
def test_the_tensorflow_code_runs(run_dir: Path) -> None:
    code = extract(read_card(run_dir), "python", "TensorFlow")
    assert_same_words(run_python(sys.executable, code, run_dir), run_dir)


@pytest.mark.long
@pytest.mark.skipif(not PYTORCH, reason="TFMLM_PYTORCH_PYTHON names no Python with torch and transformers 5")
def test_the_pytorch_code_runs(run_dir: Path) -> None:
    code = extract(read_card(run_dir), "python", "PyTorch")
    assert_same_words(run_python(PYTORCH, code, run_dir), run_dir)


def list_commands(card: str) -> dict[str, list[str]]:
    """The commands for serving by their first words."""
    commands = map(shlex.split, extract(card, "sh", "TensorFlow Serving").splitlines())
    return {" ".join(words[:2]) if words[0] == "tfmlm" else words[0]: words for words in commands}


def run_command(words: list[str], folder: Path, port: str = "8501") -> str:
    words = [word.replace("localhost:8501", f"127.0.0.1:{port}") for word in words]
    if words[0] == "tfmlm":
        words = [sys.executable, "-m", *words]
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run(
        words, cwd=folder, capture_output=True, text=True, check=False, timeout=WAIT_SECONDS, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.long
@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_the_commands_for_serving_run(copy_dir: Path) -> None:
    commands = list_commands(read_card(copy_dir))
    assert list(commands) == ["tfmlm export", "docker", "tfmlm query", "curl"]
    assert run_command(commands["tfmlm export"], copy_dir).strip() == "saved_models/tiny-export/1"
    _, best = expected_lines(copy_dir)[0]
    with run_server(copy_dir / "saved_models" / "tiny-export") as server:
        port = server.rest.rpartition(":")[2]
        words = run_command(commands["tfmlm query"], copy_dir, port)
        assert words.startswith(f"{TEXT}\n  {best.strip()} ")
        answer = json.loads(run_command(commands["curl"], copy_dir, port))
    assert answer["predictions"][0]["tokens"][0][0].strip() == best.strip()


@pytest.mark.long
def test_without_a_text_signature_the_text_is_tokenized_here(copy_dir: Path, config: Config) -> None:
    card = rewrite(copy_dir, config, saved_model_dir=None)
    commands = list_commands(card)
    assert list(commands) == ["tfmlm export", "docker", "tfmlm query"]
    run_command([*commands["tfmlm export"], "export.text_signature='off'"], copy_dir)
    with run_server(copy_dir / "saved_models" / "tiny-export") as server:
        words = run_command(commands["tfmlm query"], copy_dir, server.rest.rpartition(":")[2])
    _, best = expected_lines(copy_dir)[0]
    assert words.startswith(f"{TEXT}\n  {best.strip()} ")


def test_docker_gets_what_compose_gives(run_dir: Path) -> None:
    (service,) = yaml.safe_load((CHECKOUT / "configs/serving/compose.yaml").read_text())["services"].values()
    words = list_commands(read_card(run_dir))["docker"]
    options = dict(zip(words[3:-1:2], words[4:-1:2], strict=True))
    assert words[:3] == ["docker", "run", "--rm"]
    assert words[-1] == service["image"]
    assert options["-p"] in service["ports"]
    assert options["-e"] == "MODEL_NAME=tiny-export"
    assert options["-v"] == "$PWD/saved_models/tiny-export:/models/tiny-export:ro"
    (models,) = (volume for volume in service["volumes"] if "saved_models" in volume)
    assert models == "../../saved_models:/models:ro"


# === On the Hub ===


@pytest.mark.long
def test_a_pushed_card_names_its_repository_and_works(
    hub: HubServer, copy_dir: Path, config: Config, tmp_path: Path
) -> None:
    pushed = replace(config.hub, repo_id="me/mine", revision="trained")
    card = rewrite(copy_dir, replace(config, hub=pushed))
    done = run_tfmlm(hub, "push", copy_dir, "hub.repo_id=me/mine", "hub.revision=trained")
    assert done.returncode == 0, done.stderr
    files = hub.repositories["me/mine"].files("trained")
    assert files["README.md"].decode() == card
    assert files["training.png"] == (copy_dir / "plots" / "loss.png").read_bytes()
    assert hub.count("^POST /api/validate-yaml")

    environment = environment_for(hub)
    code = extract(card, "python", "TensorFlow")
    assert '"me/mine", revision="trained"' in code
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert_same_words(run_python(sys.executable, code, elsewhere, **environment), copy_dir)
    download, *_ = extract(card, "sh", "TensorFlow Serving").splitlines()
    program, *arguments = shlex.split(download)
    subprocess.run(
        [Path(sys.executable).parent / program, *arguments],
        cwd=elsewhere,
        env=environment,
        check=True,
        capture_output=True,
        timeout=WAIT_SECONDS,
    )
    assert (elsewhere / "model" / "README.md").read_text(encoding="utf-8") == card
