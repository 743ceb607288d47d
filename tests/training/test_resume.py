"""A run that was cut short goes on where it stopped."""

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from transformers import TFAutoModelForMaskedLM

from tests.finished import Finished
from tests.tiny import with_one_layer, without_dropout
from tests.tiny_run import PowerCutError, assert_same_weights, cut_after, in_folder
from tfmlm.config import (
    Config,
    DataConfig,
    DistributeConfig,
    ExportConfig,
    ModelConfig,
    RunConfig,
    TokenizerConfig,
    TrainConfig,
)
from tfmlm.config.load import dump_config
from tfmlm.errors import UserError
from tfmlm.run import run
from tfmlm.run_folder import list_obstacles


@pytest.fixture
def config(tmp_path: Path, text_file: Path) -> Config:
    return Config(
        run=RunConfig(output_dir=str(tmp_path / "run")),
        data=DataConfig(source="text", train_files=[str(text_file)], block_size=32),
        tokenizer=TokenizerConfig(train_vocab_size=200),
        model=ModelConfig(config={"model_type": "bert"} | with_one_layer("bert")),
        train=TrainConfig(max_steps=7, per_replica_batch_size=4, checkpoint_every_steps=3),
        export=ExportConfig(enabled=False),
    )


def read_weights(folder: str) -> list[np.ndarray]:
    return TFAutoModelForMaskedLM.from_pretrained(folder).get_weights()


def test_equals_an_uninterrupted_run(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(replace(config, run=replace(config.run, output_dir=str(tmp_path / "whole"))))

    with monkeypatch.context() as patch:
        cut_after(5, patch)
        with pytest.raises(PowerCutError):
            run(config)
    assert not (tmp_path / "run" / "result.json").exists()
    resumed = run(config)

    assert resumed.result.perplexity == whole.result.perplexity
    assert resumed.result.initial_perplexity == whole.result.initial_perplexity
    for mine, expected in zip(
        read_weights(resumed.result.model_dir), read_weights(whole.result.model_dir), strict=True
    ):
        np.testing.assert_array_equal(mine, expected)

    losses = []
    for folder in ("whole", "run"):
        with (tmp_path / folder / "logs" / "metrics.csv").open() as file:
            losses.append([(row["step"], row["loss"], row["eval_loss"]) for row in csv.DictReader(file)])
    assert losses[0] == losses[1]
    assert [step for step, *_ in losses[0]] == ["0", "1", "2", "3", "4", "5", "6", "7", "7"]


def test_goes_on_with_its_steps_cut_in_another_way(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on fewer devices, with micro-batches instead."""
    config = replace(
        config,
        model=ModelConfig(config={"model_type": "bert"} | without_dropout("bert")),
        distribute=DistributeConfig("mirrored"),
    )
    whole = run(in_folder(config, tmp_path / "whole"))
    with monkeypatch.context() as patch:
        cut_after(5, patch)
        with pytest.raises(PowerCutError):
            run(config)
    fewer = replace(
        config,
        distribute=DistributeConfig("one_device"),
        train=replace(config.train, per_replica_batch_size=2, gradient_accumulation_steps=4),
    )
    larger = replace(fewer, train=replace(fewer.train, gradient_accumulation_steps=5))
    with pytest.raises(UserError, match=r"has 8 blocks a step and this one would go on with 10; .* make 8"):
        run(larger)
    resumed = run(fewer)
    assert resumed.result.perplexity == pytest.approx(whole.result.perplexity, rel=1e-5)
    with pytest.raises(UserError, match=r"another configuration \(.*train.per_replica_batch_size"):
        run(config)  # finished in this way, it is no longer as that one


@pytest.fixture
def finished(word_run: Finished, tmp_path: Path) -> Config:
    """Of a copy of a finished run."""
    shutil.copytree(word_run.run_dir, tmp_path / "run")
    return in_folder(word_run.config, tmp_path / "run")


def test_a_finished_run_is_not_trained_again(finished: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    before = json.loads((finished.run_dir / "result.json").read_text())
    cut_after(1, monkeypatch)
    assert asdict(run(finished).result) == before


@pytest.mark.parametrize("key", ["optimizer.learning_rate", "train.rematerialize"])
def test_another_configuration_is_refused_and_nothing_is_touched(finished: Config, key: str) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.run_dir.rglob("*")}
    section, name = key.split(".")
    other = replace(finished, **{section: replace(getattr(finished, section), **{name: 1})})
    with pytest.raises(UserError, match=rf"another configuration \({key}\)"):
        run(other)
    assert {path: path.stat().st_mtime_ns for path in finished.run_dir.rglob("*")} == before


def test_a_finished_run_goes_on_for_more_steps(config: Config, tmp_path: Path) -> None:
    """At a constant rate it ends as if it had been as long from the beginning, optimizer included."""
    config = replace(config, optimizer=replace(config.optimizer, schedule="constant"))
    longer = replace(config, train=replace(config.train, max_steps=10))
    run(config)
    resumed = run(longer)
    whole = run(in_folder(longer, tmp_path / "whole"))
    assert resumed.result.steps == 10
    assert resumed.result.perplexity == whole.result.perplexity
    assert_same_weights(tmp_path / "run", tmp_path / "whole")
    assert run(longer).result == resumed.result
    with pytest.raises(UserError, match=r"another configuration \(train.max_steps\)"):
        run(config)


@pytest.mark.parametrize(
    ("before", "after", "keys"),
    [
        ({"max_steps": 5}, {"max_steps": 6}, []),
        ({"max_steps": 5}, {"max_steps": None}, []),
        ({"max_steps": 5, "epochs": 1}, {"max_steps": 6, "epochs": 2}, []),
        ({"max_steps": 5}, {"max_steps": 6, "per_replica_batch_size": 8}, []),
        ({"max_steps": 5}, {"max_steps": 4}, ["train.max_steps"]),
        ({"max_steps": None}, {"max_steps": 5}, ["train.max_steps"]),
        ({"max_steps": 5, "epochs": 2}, {"max_steps": 6, "epochs": 1}, ["train.epochs", "train.max_steps"]),
        ({"max_steps": 5}, {"max_steps": 6, "xla": True}, ["train.xla"]),
        ({}, {"per_replica_batch_size": 8}, ["train.per_replica_batch_size"]),
    ],
)
def test_what_a_finished_run_goes_on_with(
    before: dict[str, object], after: dict[str, object], keys: list[str]
) -> None:
    earlier, config = (Config(train=TrainConfig(**settings)) for settings in (before, after))
    assert sorted(list_obstacles(config, earlier, is_finished=True)) == keys


def test_never_refuses_an_existing_run(finished: Config) -> None:
    never = replace(finished, train=replace(finished.train, resume="never"))
    with pytest.raises(UserError, match=r"train\.resume is never"):
        run(never)


@pytest.mark.long
def test_a_time_budget_ends_the_run_with_the_rate_near_zero(config: Config, tmp_path: Path) -> None:
    budget = replace(config.train, max_steps=None, epochs=10_000, max_seconds=12.0)
    finished = run(replace(config, train=budget))
    assert 1 < finished.result.steps < 10_000
    with (tmp_path / "run" / "logs" / "metrics.csv").open() as file:
        rates = [float(row["learning_rate"]) for row in csv.DictReader(file) if row["learning_rate"]]
    assert rates[-1] < 0.2 * max(rates)


@pytest.mark.long
def test_control_c_ends_in_one_line_and_the_same_command_goes_on(config: Config, tmp_path: Path) -> None:
    endless = replace(config.train, max_steps=300, epochs=10_000, checkpoint_every_steps=5)
    config_file = tmp_path / "config.yaml"
    config_file.write_text(dump_config(replace(config, train=endless)))
    command = [sys.executable, "-m", "tfmlm", "train", str(config_file)]
    # A job in the background, as in some CI, is started with Ctrl-C ignored; here it must be heard.
    heard = ["env", "--default-signal=INT", *command]
    process = subprocess.Popen(heard, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not list((tmp_path / "run" / "checkpoints").glob("step-*")) and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate()
    assert process.returncode == 130, error
    assert "interrupted; the same command goes on" in error
    assert "Traceback" not in error
    assert not (tmp_path / "run" / "result.json").exists()

    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    with (tmp_path / "run" / "logs" / "metrics.csv").open() as file:
        assert [int(row["step"]) for row in csv.DictReader(file) if row["loss"]] == list(range(1, 301))
    assert "going on from step" in again.stderr
