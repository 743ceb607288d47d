"""Pushing while a run trains: real runs, a real client, and a Hub of the test's own."""

import csv
import signal
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest

from tests.folders import read_folder
from tests.hub.pushed_model import assert_no_secret, assert_no_secret_in, run_tfmlm, start_tfmlm
from tests.hub.server import TOKEN, Fault, HubServer
from tests.tiny_run import assert_same_weights, in_folder, make_config, name_workers
from tests.waiting import WAIT_SECONDS, wait_until
from tfmlm.config import Config, HubConfig
from tfmlm.config.load import dump_config

COMMIT = r"^POST /api/models/me/mine/commit/"


def write(config: Config, path: Path) -> Path:
    path.write_text(dump_config(config))
    return path


def pushing(config: Config, **settings: object) -> Config:
    return replace(config, hub=HubConfig(push=True, **{"repo_id": "me/mine"} | settings))


def read_steps(run_dir: Path) -> list[int]:
    path = run_dir / "logs" / "metrics.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file) if row["loss"]]


def assert_holds(files: dict[str, bytes], model_dir: Path) -> None:
    """The model, with a configuration that names no folder of this machine."""
    local = read_folder(model_dir)
    assert str(model_dir).encode() not in local["run_config.yaml"]
    assert str(model_dir.parent).encode() in local["run_config.yaml"]
    assert not any(str(model_dir.parent.parent).encode() in content for content in files.values())
    assert files == local | {"run_config.yaml": files["run_config.yaml"]}


@pytest.mark.long
def test_a_slow_hub_holds_no_step_and_the_latest_wins(
    hub: HubServer, tmp_path: Path, text_file: Path
) -> None:
    config = pushing(make_config(tmp_path, text_file, max_steps=9, checkpoint_every_steps=50), every_steps=2)
    may_answer = Event()
    hub.faults.append(Fault("^PUT /lfs/", times=1, hold=may_answer))
    process = start_tfmlm(hub, "train", write(config, tmp_path / "config.yaml"))
    hub.wait_for("^PUT /lfs/")
    # While the first upload hangs, all steps are made and the final model is written.
    wait_until(lambda: (tmp_path / "run" / "result.json").exists() or process.poll() is not None)
    assert read_steps(tmp_path / "run") == list(range(1, 10))
    assert hub.count(COMMIT) == 0
    assert process.poll() is None
    may_answer.set()
    output, error = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 0, error
    assert_no_secret(output + error)
    assert "step 4: not pushed, step 6 is newer" in error
    assert "step 6: not pushed, step 8 is newer" in error
    assert error.count("waiting for the Hub to take step 2") == 1
    assert error.count("step 2 is on the Hub") == 1

    repository = hub.repositories["me/mine"]
    assert repository.private is True
    assert hub.count(COMMIT) == 2  # step 2 and the final model
    assert_holds(repository.files(), tmp_path / "run" / "model")
    assert repository.files().keys() >= {"README.md", "training.png"}
    assert not (tmp_path / "run" / "hub").exists()
    assert_no_secret_in(tmp_path / "run")


@pytest.mark.long
def test_a_fresh_machine_goes_on_exactly_from_the_branch(
    hub: HubServer, tmp_path: Path, text_file: Path
) -> None:
    plain = make_config(
        tmp_path, text_file, dropout=True, max_steps=400, epochs=100, checkpoint_every_steps=20
    )
    config = pushing(plain, repo_id="mine", every_steps=20, checkpoints="training", revision="trained")
    first = start_tfmlm(hub, "train", write(config, tmp_path / "config.yaml"))
    wait_until(
        lambda: first.poll() is not None or (hub.count(f"{COMMIT}training") and hub.count(f"{COMMIT}trained"))
    )
    first.send_signal(signal.SIGTERM)
    _, error = first.communicate(timeout=WAIT_SECONDS)
    assert first.returncode == 143, error
    # Models and checkpoints came while it trained, the last one at the signal.
    last_step = read_steps(tmp_path / "run")[-1]
    assert 20 <= last_step < 400
    repository = hub.repositories["me/mine"]
    checkpoints = {path.split("/")[1] for path in repository.files("training") if "/step-" in path}
    assert checkpoints == {f"step-{last_step:08d}"}
    assert repository.files("trained").keys() >= {"model.safetensors", "tokenizer.json"}
    assert repository.files() == {}

    other = replace(config, optimizer=replace(config.optimizer, learning_rate=0.1))
    fresh = in_folder(other, tmp_path / "fresh")
    done = run_tfmlm(hub, "train", write(fresh, tmp_path / "fresh.yaml"))
    assert done.returncode == 2
    assert (
        "branch 'training' of 'mine' holds a run of another configuration (optimizer.learning_rate)"
        in (done.stderr.splitlines()[-1])
    )
    assert not (tmp_path / "fresh").exists()

    fresh = in_folder(config, tmp_path / "fresh")
    done = run_tfmlm(hub, "train", write(fresh, tmp_path / "fresh.yaml"))
    assert done.returncode == 0, done.stderr
    assert f"going on from step {last_step}" in done.stderr
    assert read_steps(tmp_path / "fresh") == list(range(1, 401))
    assert_holds(repository.files("trained"), tmp_path / "fresh" / "model")

    whole = in_folder(plain, tmp_path / "whole")
    done = run_tfmlm(hub, "train", write(whole, tmp_path / "whole.yaml"))
    assert done.returncode == 0, done.stderr
    assert_same_weights(tmp_path / "fresh", tmp_path / "whole")


def test_a_branch_that_cannot_be_read_starts_no_new_run(
    hub: HubServer, tmp_path: Path, text_file: Path
) -> None:
    config = pushing(make_config(tmp_path, text_file), checkpoints="training", retry_seconds=1.0)
    hub.faults.append(Fault("^GET /api/models/me/mine/revision/training", status=503))
    done = run_tfmlm(hub, "train", write(config, tmp_path / "config.yaml"))
    assert done.returncode == 2
    assert "hub.checkpoints: branch 'training' of 'me/mine' cannot be read: 503" in done.stderr
    assert hub.faults[0].met == 2
    assert not (tmp_path / "run").exists()


@pytest.mark.long
def test_a_hub_that_refuses_all_does_not_harm_the_run(
    hub: HubServer, tmp_path: Path, text_file: Path
) -> None:
    config = pushing(make_config(tmp_path, text_file), every_steps=2, retry_seconds=0.0)
    hub.faults.append(Fault("commit|create", status=403, message="{token} may not"))
    path = write(config, tmp_path / "config.yaml")
    done = run_tfmlm(hub, "train", path)
    assert done.returncode == 2
    assert "perplexity" in done.stdout
    assert "step 2 could not be pushed: 403" in done.stderr
    last = done.stderr.splitlines()[-1]
    assert "to 'me/mine' failed: 403" in last
    assert f"`tfmlm push {tmp_path / 'run'}` tries again" in last
    assert (tmp_path / "run" / "result.json").exists()
    assert not (tmp_path / "run" / "hub").exists()
    assert_no_secret_in(tmp_path / "run")
    num_refused = hub.count(COMMIT)

    hub.faults.clear()
    # The same command trains no more and pushes; then there is nothing left to do.
    for command in (["train", path], ["push", tmp_path / "run"], ["train", path]):
        done = run_tfmlm(hub, *command)
        assert done.returncode == 0, done.stderr
        assert_holds(hub.repositories["me/mine"].files(), tmp_path / "run" / "model")
    assert hub.count(COMMIT) - num_refused == 1


@pytest.mark.long
def test_only_the_chief_pushes(hub: HubServer, tmp_path: Path, text_file: Path) -> None:
    config = pushing(make_config(tmp_path, text_file), every_steps=2, checkpoints="training")
    path = write(config, tmp_path / "config.yaml")
    workers = [
        start_tfmlm(hub, "train", path, HF_TOKEN=token, **environment)
        for token, environment in zip((TOKEN, "hf_other"), name_workers(2), strict=True)
    ]
    for worker in workers:
        _, error = worker.communicate(timeout=WAIT_SECONDS)
        assert worker.returncode == 0, error
    assert hub.authorizations == {f"Bearer {TOKEN}"}
    assert_holds(hub.repositories["me/mine"].files(), tmp_path / "run" / "model")
    assert any(path.startswith("checkpoints/step-") for path in hub.repositories["me/mine"].files("training"))
