"""The guide's recipe as a user runs it: commands, files and processes, without the network."""

import csv
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from tests.folders import CHECKOUT
from tests.tiny import SENTENCES, write_eli5_rows, write_hub_folder
from tfmlm.cli.main import main
from tfmlm.config.load import load_config

TEXT = "The Milky Way is a <mask> galaxy."

pytestmark = pytest.mark.long


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
    done = subprocess.run(
        [sys.executable, "-m", "tfmlm", "train", CHECKOUT / "configs/eli5_distilroberta.yaml", *overrides],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
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


def test_export_writes_the_next_version(
    finished: Finished, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished.folder)
    assert main(["export", "runs/eli5_distilroberta", "export.top_k=7"]) == 0
    assert capsys.readouterr().out.strip() == "saved_models/eli5_distilroberta/2"
    exports = Path("saved_models/eli5_distilroberta")
    assert sorted(path.name for path in exports.iterdir()) == ["1", "2"]
    assert main(["predict", str(exports), TEXT, "--top-k", "7", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)[0]) == 7
    assert main(["predict", str(exports / "1"), TEXT, "--top-k", "7"]) == 2
    assert "was exported with 5 candidates" in capsys.readouterr().err


def test_a_second_train_says_the_same_without_training(
    finished: Finished, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished.folder)
    assert main(["train", str(CHECKOUT / "configs/eli5_distilroberta.yaml"), *finished.overrides]) == 0
    assert capsys.readouterr().out == finished.output


def test_nothing_imports_pytorch() -> None:
    code = "import sys, tfmlm.run, tfmlm.cli.main; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=CHECKOUT)
