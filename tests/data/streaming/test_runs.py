"""Whole runs from a stream: they resume, and say what they left out or could not read."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.folders import CHECKOUT
from tests.tiny_run import cut_after
from tfmlm.cli.main import main
from tfmlm.config import Config
from tfmlm.config.load import load_config
from tfmlm.errors import UserError
from tfmlm.training.setup import set_up


def read_losses(run_dir: Path) -> list[tuple[str, str]]:
    with (run_dir / "logs" / "metrics.csv").open() as file:
        return [(row["step"], row["loss"]) for row in csv.DictReader(file) if row["loss"]]


def test_a_streamed_run_trains_and_resumes(
    config_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tmp_path / "whole"
    assert main(["train", config_file, f"run.output_dir={whole}"]) == 0
    with monkeypatch.context() as patch:
        cut_after(3, patch)
        assert main(["train", config_file]) == os.EX_SOFTWARE
    assert not (tmp_path / "run" / "result.json").exists()
    assert main(["train", config_file]) == 0
    assert [step for step, _ in read_losses(whole)] == ["1", "2", "3", "4"]
    assert read_losses(tmp_path / "run") == read_losses(whole)
    results = [json.loads((folder / "result.json").read_text()) for folder in (whole, tmp_path / "run")]
    assert results[0]["perplexity"] == results[1]["perplexity"]
    assert [(result["steps"], result["bad_rows"]) for result in results] == [(4, 0), (4, 0)]


def test_the_result_counts_bad_rows(config_file: str, bad_in_the_middle: Config, tmp_path: Path) -> None:
    files = ",".join(bad_in_the_middle.data.train_files)
    skip = ["data.on_bad_rows=skip", f"data.train_files=[{files}]"]
    assert main(["train", config_file, *skip, "train.max_steps=1"]) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["bad_rows"] == 1
    assert f"1 bad row was left out: {tmp_path / 'bad.txt'}, row 3: not UTF-8" in " ".join(result["notes"])


@pytest.mark.long
def test_a_run_that_meets_a_bad_row_ends_in_one_line(
    config_file: str, bad_in_the_middle: Config, tmp_path: Path
) -> None:
    """In a process of its own, in which TensorFlow's log is as quiet as a user finds it."""
    files = ",".join(bad_in_the_middle.data.train_files)
    held_out = bad_in_the_middle.data.validation_files[0]
    overrides = [f"data.train_files=[{files}]", f"data.validation_files=[{held_out}]", "train.max_steps=60"]
    done = subprocess.run(
        [sys.executable, "-m", "tfmlm", "train", config_file, *overrides],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    last_line = done.stderr.splitlines()[-1]
    assert last_line.startswith("tfmlm: text file cannot be read: ")
    assert f"{tmp_path / 'bad.txt'}, row 3: not UTF-8" in last_line
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run" / "result.json").exists()


def test_a_stream_needs_max_steps(config_file: str) -> None:
    with pytest.raises(UserError, match=r"train\.max_steps is empty; set it, because data\.streaming"):
        set_up(load_config(config_file, ["train.max_steps=null"]))
