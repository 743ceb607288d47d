"""Keras callbacks of the user's own: what they are called with, what becomes of one that fails, trackers."""

import json
import re
import struct
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.tiny import SENTENCES
from tests.tiny_run import make_config, name_workers, start
from tests.waiting import WAIT_SECONDS
from tfmlm.cli.main import main
from tfmlm.config import Config
from tfmlm.config.load import dump_config
from tfmlm.run_folder import read_metrics
from tfmlm.training.user_callbacks import _Epochs

RECORDER = "tests.my_callbacks.Recorder"


def train(folder: Path, config: Config, *overrides: str) -> int:
    (folder / "config.yaml").write_text(dump_config(config))
    return main(["train", str(folder / "config.yaml"), *overrides])


def read_events(path: Path) -> list[tuple[str, int | None, dict[str, float] | None]]:
    return [tuple(json.loads(line)) for line in path.read_text().splitlines()]


@given(num_blocks=st.integers(1, 40), blocks_per_step=st.integers(1, 50), num_steps=st.integers(1, 60))
def test_epochs_are_those_of_counting_blocks(num_blocks: int, blocks_per_step: int, num_steps: int) -> None:
    epochs = _Epochs(num_blocks, blocks_per_step)
    seen = 0
    first_steps = {0: 0}
    for step in range(1, num_steps + 1):
        for _ in range(blocks_per_step):
            seen += 1
            if seen % num_blocks == 0:
                first_steps[seen // num_blocks] = step
        assert epochs.count(step) == seen // num_blocks
    assert all(epochs.first_step(epoch) == step for epoch, step in first_steps.items())


def test_a_stream_is_one_epoch() -> None:
    assert [_Epochs(None, 4).count(step) for step in range(9)] == [0] * 9


def test_one_that_fails_costs_no_step_and_the_run_goes_on(
    tmp_path: Path, text_file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = make_config(tmp_path, text_file, max_steps=None, epochs=4, evaluate_each_epoch=True)
    text_file.write_text("\n".join(SENTENCES[:30]))
    events = tmp_path / "events.jsonl"
    arguments = f"arguments: {{path: {events}}}"
    failing = f"train.callbacks=[{{class: {RECORDER}, arguments: {{path: {events}, fail_at: 5}}}}]"
    overrides = ["data.validation_fraction=0.2", "train.checkpoint_every_steps=50"]
    assert train(tmp_path, config, *overrides, "train.callbacks=[{class: tests.my_callbacks.Refuses}]") == 2
    assert capfd.readouterr().err.splitlines()[-1] == (
        "tfmlm: train.callbacks 'tests.my_callbacks.Refuses' cannot be made: ValueError: there is no project "
        "of this name; mend it or take it out"
    )
    assert train(tmp_path, config, *overrides, failing) == 2
    line = capfd.readouterr().err.splitlines()[-1]
    assert line == (
        f"tfmlm: train.callbacks '{RECORDER}' fails in on_train_batch_end: OSError: process True has no "
        "network; mend it or take it out, and the same command goes on from step 5"
    )
    first = read_events(events)
    assert (tmp_path / "run" / "checkpoints" / "step-00000005").is_dir()
    events.unlink()
    assert train(tmp_path, config, *overrides, f"train.callbacks=[{{class: {RECORDER}, {arguments}}}]") == 0
    said = capfd.readouterr().err
    assert "going on from step 5" in said
    num_blocks = int(re.search(r"(\d+) blocks of 32 tokens", said)[1])
    second = read_events(events)

    rows = read_metrics(tmp_path / "run" / "logs")
    steps = [row for row in rows if row["loss"]]
    assert [row["step"] for row in steps] == [str(step) for step in range(1, len(steps) + 1)]
    ends = [event for event in first + second if event[0] == "batch_end"]
    names = ("loss", "learning_rate", "gradient_norm", "masked_tokens", "overflow", "tokens_per_second")
    evaluations = {row["step"]: row for row in rows[1:-1] if row["eval_loss"]}
    for (_, _, logs), row in zip(ends, steps, strict=True):
        assert {name: logs[name] for name in names} == {name: float(row[name]) for name in names}
        evaluated = evaluations.get(row["step"])
        assert ("val_loss" in logs) == (evaluated is not None)
        if evaluated:
            assert logs["val_perplexity"] == float(evaluated["eval_perplexity"])
    assert evaluations
    assert_as_keras_calls(first[:-1], ends_early=True)
    assert_as_keras_calls(second)
    # The epoch goes on with the number of its next step, and its mean is of the steps seen.
    numbers = [number for _, number, _ in ends]
    assert numbers == number_by_hand(len(steps), num_blocks)
    last_epoch = [event for event in second if event[0] == "epoch_end"][-1]
    begun = max(place for place, event in enumerate(second) if event[0] == "epoch_begin")
    of_epoch = [logs for event, _, logs in second[begun:] if event == "batch_end"]
    weights = [logs["masked_tokens"] for logs in of_epoch]
    mean = sum(logs["loss"] * weight for logs, weight in zip(of_epoch, weights, strict=True)) / sum(weights)
    assert last_epoch[2]["loss"] == pytest.approx(mean)


def assert_as_keras_calls(events: list, ends_early: bool = False) -> None:
    """The order in which `fit` calls a callback."""
    names = [event for event, *_ in events]
    assert names[:2] == ["train_begin", "epoch_begin"]
    epochs = [(event, number) for event, number, _ in events if event.startswith("epoch")]
    assert epochs == sorted(epochs, key=lambda each: (each[1], each[0] == "epoch_end"))
    assert names.count("batch_begin") - names.count("batch_end") in ([0, 1] if ends_early else [0])
    for before, after in pairwise(names):
        assert (
            after
            in {
                "train_begin": ("epoch_begin",),
                "epoch_begin": ("batch_begin",),
                "batch_begin": ("batch_end", "test_end"),
                "test_end": ("batch_end",),
                "batch_end": ("batch_begin", "epoch_end"),
                "epoch_end": ("epoch_begin", "train_end"),
            }[before]
        )
    if not ends_early:
        assert names[-1] == "train_end"


def number_by_hand(num_steps: int, num_blocks: int) -> list[int]:
    """Numbers of steps of four blocks, which begin anew with the step after the one that ends an epoch."""
    numbers, number = [], 0
    for step in range(num_steps):
        numbers.append(number)
        blocks = range(4 * step + 1, 4 * step + 5)
        number = 0 if any(block % num_blocks == 0 for block in blocks) else number + 1
    return numbers


@pytest.mark.long
def test_the_first_of_several_workers_alone_calls_them(tmp_path: Path, text_file: Path) -> None:
    """And one that stops the training there ends it with a line, where others would wait for ever."""
    config = make_config(tmp_path, text_file, max_steps=4)
    events = tmp_path / "events.jsonl"
    callbacks = [
        {"class": RECORDER, "arguments": {"path": str(events)}},
        {"class": "tests.my_callbacks.StopAtOnce"},
    ]
    config = replace(config, train=replace(config.train, callbacks=callbacks))
    workers = [start(config, tmp_path / "config.yaml", **worker) for worker in name_workers(2)]
    errors = [worker.communicate(timeout=WAIT_SECONDS)[1].splitlines()[-1] for worker in workers]
    assert [worker.returncode for worker in workers] == [2, 75]
    assert all(
        "'tests.my_callbacks.StopAtOnce' stops the training, which it cannot" in line for line in errors
    )
    assert [event for event, *_ in read_events(events)] == [
        *("train_begin", "epoch_begin", "batch_begin", "batch_end")
    ]
    assert (tmp_path / "run" / "checkpoints" / "step-00000001").is_dir()


# === Trackers ===


def read_wandb_records(path: Path) -> Iterator[Any]:
    """The records of a run that was offline: LevelDB's log format, of 32 KiB blocks, after 7 bytes."""
    from wandb.proto import wandb_internal_pb2

    content, place, parts = path.read_bytes(), 7, b""
    while place + 7 <= len(content):
        left = 2**15 - place % 2**15
        if left < 7:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


@pytest.mark.long
def test_trackers_hold_what_the_log_does(
    tmp_path: Path, text_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights & Biases offline, and a file store of MLflow, both with what is nobody's secret."""
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "true",
        "WANDB_API_KEY": "0123456789" * 4,
        "MLFLOW_TRACKING_URI": (tmp_path / "mlruns").as_uri(),
        "MLFLOW_ALLOW_FILE_STORE": "true",
    }.items():
        monkeypatch.setenv(name, value)
    config = make_config(tmp_path, text_file, max_steps=6, evaluate_every_steps=4)
    trackers = (
        "train.callbacks=[{class: wandb.integration.keras.WandbMetricsLogger, arguments: {log_freq: batch}},"
        "{class: mlflow.tensorflow.MlflowCallback,"
        " arguments: {log_every_epoch: false, log_every_n_steps: 1}},"
        "{class: mlflow.keras.MlflowCallback}]"  # of Keras 3
    )
    assert train(tmp_path, config, trackers) == 0
    rows = [row for row in read_metrics(tmp_path / "run" / "logs") if row["loss"]]
    losses = [float(row["loss"]) for row in rows]
    assert len(losses) == 6

    (log,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    records = list(read_wandb_records(log))
    (run,) = [record.run for record in records if record.HasField("run")]
    assert run.display_name == config.run.name
    assert "train.max_steps" in {item.key for item in run.config.update}
    logged = [
        {item.key or "/".join(item.nested_key): float(item.value_json) for item in record.history.item}
        for record in records
        if record.HasField("history")
    ]
    assert [row["batch/loss"] for row in logged if "batch/loss" in row] == losses
    (perplexity,) = [row["batch/val_perplexity"] for row in logged if "batch/val_perplexity" in row]
    assert [record.exit.exit_code for record in records if record.HasField("exit")] == [0]

    (run_folder,) = (tmp_path / "mlruns").glob("*/*/params/..")
    assert (run_folder / "tags" / "mlflow.runName").read_text() == config.run.name
    lines = (run_folder / "metrics" / "loss").read_text().splitlines()
    # The last is that of the epoch, which Keras 3's callback logs.
    assert [float(line.split()[1]) for line in lines][:6] == losses
    assert [int(line.split()[2]) for line in lines] == [1, 2, 3, 4, 5, 6, 0]
    assert float((run_folder / "metrics" / "val_perplexity").read_text().split()[1]) == perplexity
    (summary,) = (tmp_path / "mlruns").glob("*/*/artifacts/model_summary.txt")
    assert "Total params" in summary.read_text()
    meta = yaml.safe_load((run_folder / "meta.yaml").read_text())
    assert meta["status"] == 3  # finished
    # The configuration of the run alone names them; what is published does not.
    assert "WandbMetricsLogger" in (tmp_path / "run" / "config.yaml").read_text()
    assert "WandbMetricsLogger" not in (tmp_path / "run" / "model" / "README.md").read_text()
