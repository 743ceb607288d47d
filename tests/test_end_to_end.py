"""The guide's recipe as a user runs it: commands, files and processes, without the network."""

import csv
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml
from transformers import PreTrainedTokenizerFast

from tests.checkout import CHECKOUT
from tests.pytorch_folder import write_eli5_rows, write_hub_folder
from tests.tiny import SENTENCES
from tfmlm.config_loading import load_config

TEXTS = ["The Milky Way is a <mask> galaxy.", "Return the <mask> of the <mask>."]


def tfmlm(*arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs the console script's module in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "tfmlm", *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@dataclass
class Finished:
    folder: Path
    output: str
    progress: str
    overrides: list[str]

    @property
    def run_dir(self) -> Path:
        return self.folder / "runs" / "eli5_distilroberta"

    @property
    def result(self) -> dict[str, object]:
        return json.loads((self.run_dir / "result.json").read_text())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, byte_tokenizer: PreTrainedTokenizerFast) -> Finished:
    """configs/eli5_distilroberta.yaml on a local folder in the Hub's layout and rows in ELI5's shape."""
    folder = tmp_path_factory.mktemp("eli5")
    write_hub_folder(folder / "distilroberta", byte_tokenizer)
    write_eli5_rows(folder / "eli5.jsonl", SENTENCES * 3)
    overrides = [
        "data.source=json",
        "data.train_files=[eli5.jsonl]",
        f"model.name_or_path={folder / 'distilroberta'}",
        "data.block_size=32",
        "train.max_steps=12",
        "optimizer.learning_rate=1e-2",
        "hub.push=false",
    ]
    done = tfmlm("train", CHECKOUT / "configs/eli5_distilroberta.yaml", *overrides, folder=folder)
    assert done.returncode == 0, done.stderr
    return Finished(folder, done.stdout, done.stderr, overrides)


def test_learns(finished: Finished) -> None:
    assert finished.result["perplexity"] < 0.7 * finished.result["initial_perplexity"]


def test_the_run_folder_holds_what_it_promises(finished: Finished) -> None:
    run_dir = finished.run_dir
    assert load_config(run_dir / "config.yaml") == load_config(
        CHECKOUT / "configs/eli5_distilroberta.yaml", finished.overrides
    )
    names = {str(path.relative_to(run_dir)) for path in run_dir.rglob("*")}
    assert {
        "config.yaml",
        "result.json",
        "model/config.json",
        "model/model.safetensors",
        "model/tokenizer.json",
        "model/README.md",
        "model/training.png",
        "logs/metrics.csv",
        "plots/loss.png",
    } <= names
    assert any("tfevents" in name for name in names)
    with (run_dir / "logs/metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["loss"]]
    assert [int(row["step"]) for row in rows] == list(range(1, 13))
    assert {row["overflow"] for row in rows} == {"0.0"}


def test_the_summary_says_what_came_out_and_what_to_type_next(finished: Finished) -> None:
    for expected in (
        f"{finished.result['perplexity']:,.2f} after training",
        "runs/eli5_distilroberta/model",
        "saved_models/eli5_distilroberta/1",
        "The Milky Way is a <mask> galaxy.",
        "tfmlm predict runs/eli5_distilroberta/model",
    ):
        assert expected in finished.output
    assert "Traceback" not in finished.progress
    assert "Warning" not in finished.progress
    assert "loss" in finished.progress


@pytest.mark.long
@pytest.mark.parametrize("part", ["", "model"])
def test_evaluate_gives_the_runs_perplexity_to_six_digits(finished: Finished, part: str) -> None:
    done = tfmlm("evaluate", finished.run_dir / part, "--json", folder=finished.folder)
    assert done.returncode == 0, done.stderr
    assert f"{json.loads(done.stdout)['perplexity']:.6g}" == f"{finished.result['perplexity']:.6g}"


@pytest.mark.long
def test_run_model_and_saved_model_predict_the_same(finished: Finished) -> None:
    answers = []
    for path in (
        "runs/eli5_distilroberta",
        "runs/eli5_distilroberta/model",
        "saved_models/eli5_distilroberta",
    ):
        done = tfmlm("predict", path, *TEXTS, "--top-k", 3, "--json", folder=finished.folder)
        assert done.returncode == 0, done.stderr
        answers.append([json.loads(line) for line in done.stdout.splitlines()])
    assert [len(masks) for masks in answers[0]] == [1, 2]
    assert [len(candidates) for masks in answers[0] for candidates in masks] == [3, 3, 3]
    assert set(answers[0][0][0][0]) == {"score", "token", "token_str", "sequence"}
    flat = [
        [candidate for masks in answer for candidates in masks for candidate in candidates]
        for answer in answers
    ]
    for other in flat[1:]:
        assert [c["token"] for c in other] == [c["token"] for c in flat[0]]
        assert [c["sequence"] for c in other] == [c["sequence"] for c in flat[0]]
        np.testing.assert_allclose([c["score"] for c in other], [c["score"] for c in flat[0]], atol=1e-5)


@pytest.mark.long
def test_export_writes_the_next_version(finished: Finished) -> None:
    done = tfmlm("export", finished.run_dir, "export.top_k=7", folder=finished.folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "saved_models/eli5_distilroberta/2"
    exports = finished.folder / "saved_models/eli5_distilroberta"
    assert sorted(path.name for path in exports.iterdir()) == ["1", "2"]
    newest = tfmlm("predict", exports, TEXTS[0], "--top-k", 7, "--json", folder=finished.folder)
    assert len(json.loads(newest.stdout)[0]) == 7
    first = tfmlm("predict", exports / "1", TEXTS[0], "--top-k", 7, folder=finished.folder)
    assert first.returncode == 2
    assert "was exported with 5 candidates" in first.stderr


@pytest.mark.long
def test_a_second_train_says_the_same_without_training(finished: Finished) -> None:
    arguments = [CHECKOUT / "configs/eli5_distilroberta.yaml", *finished.overrides]
    again = tfmlm("train", *arguments, folder=finished.folder)
    assert again.returncode == 0
    assert again.stdout == finished.output


def test_the_recipe_is_the_guides() -> None:
    recipe = yaml.safe_load((CHECKOUT / "configs/eli5_distilroberta.yaml").read_text())
    assert recipe["data"]["text_column"] == "answers.text"
    assert recipe["data"]["validation_fraction"] == 0.2
    assert recipe["data"]["block_size"] == 128
    assert recipe["masking"]["rate"] == 0.15
    assert recipe["model"]["name_or_path"] == "distilbert/distilroberta-base"
    assert float(recipe["optimizer"]["learning_rate"]) == 2e-5
    assert recipe["optimizer"]["weight_decay"] == 0.01
    assert recipe["train"]["epochs"] == 3
    assert recipe["train"]["per_replica_batch_size"] == 16
    assert recipe["hub"]["push"] is True


def test_nothing_imports_pytorch(finished: Finished) -> None:
    code = "import sys, tfmlm.run, tfmlm.cli; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=CHECKOUT)
