"""The scripts in examples/, as processes with small models."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from tests.finished import Finished
from tests.folders import CHECKOUT
from tests.hub.pushed_model import assert_no_secret, environment_for
from tests.hub.server import running_hub
from tests.tiny import SENTENCES, write_eli5_rows, write_hub_folder
from tests.tiny_run import make_config
from tests.waiting import WAIT_SECONDS, wait_until
from tfmlm.config.load import dump_config

EXAMPLES = CHECKOUT / "examples"


def run_example(name: str, *arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EXAMPLES / name), *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=WAIT_SECONDS,
    )


@pytest.mark.parametrize("path", sorted(EXAMPLES.iterdir()), ids=lambda path: path.name)
def test_examples_are_short(path: Path) -> None:
    assert path.suffix == ".py"
    assert len(path.read_text(encoding="utf-8").splitlines()) < 40


@pytest.mark.long
def test_recipe(tmp_path: Path, byte_tokenizer: PreTrainedTokenizerFast) -> None:
    write_hub_folder(tmp_path / "model", byte_tokenizer)
    write_eli5_rows(tmp_path / "rows.jsonl", SENTENCES)
    data = ["data.source=json", "data.train_files=[rows.jsonl]", "data.block_size=32"]
    done = run_example("recipe.py", *data, "model.name_or_path=model", "train.max_steps=2", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    first, *filled = done.stdout.splitlines()
    assert first.startswith("perplexity ")
    assert len(filled) == 3
    assert all(" galaxy." in line for line in filled)


@pytest.mark.long
def test_serve_and_query(tmp_path: Path, word_run: Finished) -> None:
    exports = word_run.version.parent
    done = run_example("serve_and_query.py", exports, "Return the [MASK].", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    rest, grpc = done.stdout.splitlines()
    assert rest.startswith("http Return the [MASK]. [['")
    assert grpc.removeprefix("grpc") == rest.removeprefix("http")

    done = run_example("serve_and_query.py", "exports/none", "Return the [MASK].", folder=tmp_path)
    assert done.returncode == 2
    assert "exports/none" in done.stderr


@pytest.mark.long
def test_resume_elsewhere(tmp_path: Path, text_file: Path) -> None:
    config = make_config(tmp_path, text_file, max_steps=400)
    (tmp_path / "config.yaml").write_text(dump_config(config))
    log = tmp_path / "first" / "logs" / "metrics.csv"
    with running_hub() as hub:

        def start(machine: str) -> subprocess.Popen[str]:
            arguments = [tmp_path / "config.yaml", "me/mine", f"run.output_dir={tmp_path / machine}"]
            return subprocess.Popen(
                [sys.executable, str(EXAMPLES / "resume_elsewhere.py"), *map(str, arguments)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=environment_for(hub),
            )

        first = start("first")
        wait_until(
            lambda: first.poll() is not None or (log.exists() and len(log.read_text().splitlines()) >= 8)
        )
        first.send_signal(signal.SIGTERM)
        output, error = first.communicate(timeout=WAIT_SECONDS)
        assert_no_secret(output + error)
        assert first.returncode == 1, error
        assert error.splitlines()[-1].endswith("run the same line on another machine")

        second = start("second")
        output, error = second.communicate(timeout=WAIT_SECONDS)
        assert_no_secret(output + error)
        assert second.returncode == 0, error
        assert "going on from step " in error
        assert "the model is on the Hub" in output
        assert "model.safetensors" in hub.repositories["me/mine"].files()
