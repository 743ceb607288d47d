"""Several workers: real processes on loopback, by `TF_CONFIG`."""

import csv
import json
import os
import re
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

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
from tfmlm.config import Config, DistributeConfig
from tfmlm.config.load import dump_config
from tfmlm.errors import UserError
from tfmlm.training.cluster import Cluster, read_cluster


def start_workers(config: Config, folder: Path, num_workers: int = 2) -> list[subprocess.Popen[str]]:
    if num_workers == 1:
        return [start(config, folder / "alone.yaml")]
    return [
        start(config, folder / f"worker{number}.yaml", **environment)
        for number, environment in enumerate(name_workers(num_workers))
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
def test_two_workers_equal_one_process_with_the_same_global_batch(tmp_path: Path, text_file: Path) -> None:
    config = make_config(tmp_path, text_file, max_steps=20, per_replica_batch_size=4, epochs=10)
    outputs = finish(start_workers(config, tmp_path))
    assert "perplexity" in outputs[0]
    assert outputs[1] == ""

    alone = in_folder(config, tmp_path / "alone")
    alone = replace(alone, train=replace(alone.train, per_replica_batch_size=8))
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


@pytest.mark.fault
@pytest.mark.long
def test_a_worker_that_is_told_to_end_and_is_not_the_first_says_what_is_saved(
    tmp_path: Path, text_file: Path, note_fault: NoteFault
) -> None:
    config = make_config(tmp_path, text_file, max_steps=500, epochs=1000, checkpoint_every_steps=5)
    chief, other = start_workers(config, tmp_path)
    wait_for_checkpoints(tmp_path / "run" / "checkpoints", chief, 1)
    other.send_signal(signal.SIGTERM)
    _, error = other.communicate(timeout=WAIT_SECONDS)
    chief.communicate(timeout=WAIT_SECONDS)
    assert other.returncode == 128 + signal.SIGTERM, error
    line = error.splitlines()[-1]
    assert "which was not saved, for only the first worker saves" in line
    named = re.search("goes on from the last checkpoint, (.*)", line)
    assert named, line
    assert Path(named[1]) in (tmp_path / "run" / "checkpoints").iterdir()
    note_fault("SIGTERM to a worker that is not the first", other.returncode, line, DONE_AGAIN)


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


# === TF_CONFIG ===


def test_without_it_this_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert read_cluster() == Cluster(1, 0)
    assert read_cluster().is_chief


def test_the_first_worker_is_the_chief(monkeypatch: pytest.MonkeyPatch) -> None:
    for number, environment in enumerate(name_workers(3)):
        monkeypatch.setenv("TF_CONFIG", environment["TF_CONFIG"])
        assert read_cluster() == Cluster(3, number)
        assert read_cluster().is_chief == (number == 0)


def test_a_task_chief_comes_before_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Vertex AI and Kubeflow name it."""
    cluster = {"chief": ["a:1"], "worker": ["b:1", "c:1"]}
    for number, (kind, index) in enumerate([("chief", 0), ("worker", 0), ("worker", 1)]):
        task = {"type": kind, "index": index}
        monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": task}))
        assert read_cluster() == Cluster(3, number)
        assert read_cluster().is_chief == (kind == "chief")


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "ps", "index": 0}}',
        '{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": "first"}}',
        '{"cluster": ["worker"], "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"chief": ["a:1", "b:1"], "worker": ["c:1"]}, "task": {"type": "chief", "index": 0}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "chief", "index": 0}}',
        '{"cluster": {"chief": ["a:1"], "worker": ["b:1"]}, "task": {"type": "worker", "index": 1}}',
    ],
)
def test_a_wrong_one_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UserError, match=r"TF_CONFIG cannot be used .* it must be like"):
        read_cluster()


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
