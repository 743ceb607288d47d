"""Several workers: real processes on loopback, by `TF_CONFIG`."""

import csv
import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.faults.table import DONE_AGAIN, NoteFault
from tests.tiny_run import (
    assert_same_weights,
    in_folder,
    make_config,
    name_workers,
    read_weights,
    start,
    wait_for_checkpoints,
)
from tests.waiting import WAIT_SECONDS
from tfmlm.cli.main import main
from tfmlm.config import Config, DistributeConfig, ExportConfig
from tfmlm.config.load import dump_config

NUM_STOPS = int(os.environ.get("TFMLM_KILLS", "1"))
"""Each costs two starts of three processes; `make faults` takes 20."""


def start_workers(config: Config, folder: Path, num_workers: int = 2) -> list[subprocess.Popen[str]]:
    if num_workers == 1:
        return [start(config, folder / "alone.yaml")]
    return start_each([config] * num_workers, folder)


def start_each(configs: list[Config], folder: Path) -> list[subprocess.Popen[str]]:
    """Starts as many workers as there are configurations."""
    return [
        start(config, folder / f"worker{number}.yaml", **environment)
        for number, (config, environment) in enumerate(zip(configs, name_workers(len(configs)), strict=True))
    ]


def finish(workers: list[subprocess.Popen[str]]) -> list[str]:
    outputs = [worker.communicate(timeout=WAIT_SECONDS) for worker in workers]
    for worker, (_, error) in zip(workers, outputs, strict=True):
        assert worker.returncode == 0, error
    return [output for output, _ in outputs]


def read_losses(run_dir: Path) -> list[float]:
    with (run_dir / "logs" / "metrics.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file) if row["loss"]]


@pytest.mark.long
@pytest.mark.parametrize(
    ("train", "data"),
    [({}, {}), ({"xla": True, "steps_per_execution": 5}, {}), ({}, {"pack": False})],
    ids=["", "xla", "unpacked"],
)
def test_two_workers_equal_one_process_with_the_same_global_batch(
    tmp_path: Path, text_file: Path, train: dict[str, object], data: dict[str, Any]
) -> None:
    config = make_config(tmp_path, text_file, max_steps=20, per_replica_batch_size=4, epochs=10, **train)
    config = replace(config, data=replace(config.data, **data))
    outputs = finish(start_workers(config, tmp_path))
    assert "perplexity" in outputs[0]
    assert outputs[1] == ""

    alone = in_folder(config, tmp_path / "alone")
    alone = replace(alone, train=replace(alone.train, per_replica_batch_size=8, xla=False))
    finish([start(alone, tmp_path / "alone.yaml")])
    np.testing.assert_allclose(
        read_losses(tmp_path / "run"), read_losses(tmp_path / "alone"), rtol=0, atol=1e-5
    )
    ours, theirs = read_weights(tmp_path / "run"), read_weights(tmp_path / "alone")
    for name, values in ours.items():
        np.testing.assert_allclose(values, theirs[name], rtol=0, atol=1e-5, err_msg=name)
    results = [
        json.loads((tmp_path / name / "result.json").read_text())["perplexity"] for name in ("run", "alone")
    ]
    assert results[0] == pytest.approx(results[1], rel=1e-5)


@pytest.mark.fault
@pytest.mark.long
def test_a_killed_worker_and_a_restart_of_both_go_on_from_the_last_checkpoint(
    tmp_path: Path, text_file: Path, note_fault: NoteFault
) -> None:
    config = make_config(
        tmp_path, text_file, dropout=True, max_steps=30, epochs=100, checkpoint_every_steps=5
    )
    finish(start_workers(in_folder(config, tmp_path / "whole"), tmp_path))

    chief, other = start_workers(config, tmp_path)
    checkpoints = tmp_path / "run" / "checkpoints"
    while not list(checkpoints.glob("step-*")) and chief.poll() is None:
        time.sleep(0.01)
    other.send_signal(signal.SIGKILL)
    _, error = chief.communicate(timeout=WAIT_SECONDS)
    other.communicate()
    assert chief.returncode == os.EX_TEMPFAIL, error
    assert "another worker of this run is gone" in error.splitlines()[-1]
    assert not (tmp_path / "run" / "result.json").exists()
    note_fault("a partner of several workers is killed", chief.returncode, error.splitlines()[-1], DONE_AGAIN)

    finish(start_workers(config, tmp_path))
    assert_same_weights(tmp_path / "run", tmp_path / "whole")


def wait_until_met(worker: subprocess.Popen[str]) -> None:
    """Returns when it reads the text, which it does as soon as all workers have met."""
    assert worker.stderr
    lines = iter(worker.stderr.readline, "")
    assert any("reading text" in line for line in lines)


@pytest.mark.fault
@pytest.mark.long
def test_sigterm_to_any_of_three_workers_at_random_moments_stops_all_at_one_step(
    tmp_path: Path, text_file: Path, note_fault: NoteFault
) -> None:
    """From packing and the first trace to evaluations and the export; dropout included."""
    config = make_config(
        tmp_path,
        text_file,
        dropout=True,
        max_steps=60,
        epochs=100,
        checkpoint_every_steps=7,
        evaluate_every_steps=10,
    )
    config = replace(config, export=ExportConfig(dir=str(tmp_path / "exports"), text_signature="off"))
    workers = start_workers(in_folder(config, tmp_path / "whole"), tmp_path, 3)
    wait_until_met(workers[0])
    started = time.monotonic()
    finish(workers)
    whole_seconds = time.monotonic() - started

    moments = random.Random(0)
    stops = 0
    for number in range(10 * NUM_STOPS):
        run_dir = tmp_path / f"run{number}"
        workers = start_workers(in_folder(config, run_dir), tmp_path, 3)
        wait_until_met(workers[0])
        time.sleep(moments.uniform(0, whole_seconds))
        told = moments.choice(workers)
        told.send_signal(signal.SIGTERM)
        errors = [worker.communicate(timeout=WAIT_SECONDS)[1] for worker in workers]
        if (run_dir / "result.json").exists():
            continue  # the signal came too late
        assert [worker.returncode for worker in workers] == [128 + signal.SIGTERM] * 3, "\n---\n".join(errors)
        lines = [error.splitlines()[-1] for error in errors]
        steps = {line.split("at step ")[1].split(",")[0] for line in lines if "at step" in line}
        if steps:
            assert len(steps) == 1, lines
            assert (run_dir / "checkpoints" / f"step-{int(*steps):08d}").is_dir()
        finish(start_workers(in_folder(config, run_dir), tmp_path, 3))
        assert_same_weights(run_dir, tmp_path / "whole")
        stops += 1
        if stops == NUM_STOPS:
            break
    assert stops == NUM_STOPS
    note_fault(f"SIGTERM to one of three workers, at {NUM_STOPS} random moments", told.returncode, lines[0])


@pytest.mark.long
def test_workers_whose_run_folders_differ_end_with_one_true_line(tmp_path: Path, text_file: Path) -> None:
    config = make_config(tmp_path, text_file, max_steps=500, epochs=1000, checkpoint_every_steps=5)
    workers = start_workers(config, tmp_path, 2)
    wait_for_checkpoints(tmp_path / "run" / "checkpoints", workers[0], 2)
    workers[1].send_signal(signal.SIGTERM)
    for worker in workers:
        worker.communicate(timeout=WAIT_SECONDS)

    copy = shutil.copytree(tmp_path / "run", tmp_path / "copy")
    newest = max((copy / "checkpoints").glob("step-*"))
    shutil.rmtree(newest)
    configs = [config, in_folder(config, copy)]
    for worker in start_each(configs, tmp_path):
        _, error = worker.communicate(timeout=WAIT_SECONDS)
        assert worker.returncode == 2, error
        step = int(newest.name.split("-")[1])
        assert re.search(
            rf"worker 1 \(.*\) cannot read the checkpoint of step {step} in '{copy}/checkpoints', from which "
            "the first goes on; let all workers see the same run folder",
            error.splitlines()[-1],
        )


@pytest.mark.long
def test_a_worker_that_fails_tells_the_others_why(tmp_path: Path, text_file: Path) -> None:
    config = make_config(tmp_path, text_file)
    other = replace(config, data=replace(config.data, train_files=[str(tmp_path / "none.txt")]))
    workers = start_each([config, other], tmp_path)
    errors = [worker.communicate(timeout=WAIT_SECONDS)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [os.EX_TEMPFAIL, 2], errors
    assert re.match(r"tfmlm: worker 1 \(.*\) has ended: .*none.txt", errors[0].splitlines()[-1])


@pytest.mark.long
def test_workers_train_from_shards_as_one_process_does(tmp_path: Path, text_file: Path) -> None:
    config = make_config(tmp_path, text_file, max_steps=6)
    (tmp_path / "prepare.yaml").write_text(dump_config(config))
    shards = tmp_path / "shards"
    assert (
        main(["prepare", str(tmp_path / "prepare.yaml"), "--output", str(shards), "--blocks-per-shard=20"])
        == 0
    )
    config = replace(config, data=replace(config.data, source=str(shards)))
    losses = []
    for num_workers in (1, 2, 4):
        folder = tmp_path / f"of_{num_workers}"
        one = in_folder(config, folder)
        one = replace(one, train=replace(one.train, per_replica_batch_size=8 // num_workers))
        finish(start_workers(one, tmp_path, num_workers))
        losses.append(read_losses(folder))
    for others in losses[1:]:
        np.testing.assert_allclose(others, losses[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("distribute", "message"),
    [
        (DistributeConfig("multi_worker"), "TF_CONFIG is not set"),
        (DistributeConfig("tpu"), "this machine has none; set distribute.tpu or TPU_NAME"),
    ],
)
def test_a_strategy_without_its_machines_is_refused(
    distribute: DistributeConfig,
    message: str,
    tmp_path: Path,
    text_file: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("TF_CONFIG", raising=False)
    monkeypatch.delenv("TPU_NAME", raising=False)
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(replace(make_config(tmp_path, text_file), distribute=distribute)))
    assert main(["train", str(path)]) == 2
    assert message in capfd.readouterr().err.splitlines()[-1]
