"""Run folders on a remote file system: without rename, kept by one process, gone on from after any kill."""

import json
import logging
import multiprocessing
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import tensorflow as tf

from tests.tiny_run import (
    PowerCutError,
    assert_same_weights,
    cut_after,
    in_folder,
    make_config,
    name_workers,
    start,
)
from tests.waiting import WAIT_SECONDS
from tfmlm import remote_folders, remote_run
from tfmlm.cli.main import main
from tfmlm.config import Config, ExportConfig
from tfmlm.config.load import dump_config
from tfmlm.errors import UserError
from tfmlm.export_layout import find_next_version
from tfmlm.remote_folders import bring_folder, bring_model, is_whole, list_names, put_folder
from tfmlm.remote_run import RemoteRun, _Lock, bring_run, holding_run
from tfmlm.run import run
from tfmlm.run_folder import RunFolder


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An address on a file system without rename."""

    def rename(source: str, target: str, overwrite: bool = False) -> None:
        raise tf.errors.UnimplementedError(None, None, "no rename here")

    monkeypatch.setattr(tf.io.gfile, "rename", rename)
    monkeypatch.setattr(remote_run, "_BEAT_SECONDS", 0.05)
    monkeypatch.setattr(remote_run, "_SILENT_SECONDS", 0.5)
    address = f"ram://store-{time.monotonic_ns()}"
    yield f"{address}/runs/one"
    with suppress(tf.errors.NotFoundError):
        tf.io.gfile.rmtree(address)


# === The parts of a folder ===


def write_files(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_a_folder_comes_back_as_it_was_put_there(store: str, tmp_path: Path) -> None:
    folder = write_files(tmp_path / "a", one="1", sub__two="22", sub__deep__three="333", none="")
    put_folder(write_files(tmp_path / "b", older="0", one="another"), store)
    put_folder(folder, store)
    bring_folder(store, tmp_path / "copy")
    copied = {
        path.relative_to(tmp_path / "copy"): path.read_text()
        for path in sorted((tmp_path / "copy").rglob("*"))
        if path.is_file()
    }
    assert copied == {
        Path("one"): "1",
        Path("sub/two"): "22",
        Path("sub/deep/three"): "333",
        Path("none"): "",
    }


def test_a_file_of_another_size_than_the_manifest_says_is_named(store: str, tmp_path: Path) -> None:
    put_folder(write_files(tmp_path / "a", one="1", two="22"), store)
    tf.io.gfile.remove(f"{store}/two")
    with pytest.raises(UserError, match=rf"'{store}/two' is damaged: it has 0 bytes and its manifest says 2"):
        bring_folder(store, tmp_path / "copy")


def test_a_trained_model_without_its_manifest_is_refused(store: str, tmp_path: Path) -> None:
    put_folder(
        write_files(tmp_path / "a", **{"run_config.yaml": "", "model.safetensors": "half"}), f"{store}/model"
    )
    bring_model(store)
    tf.io.gfile.remove(f"{store}/model/manifest.json")
    for address in (store, f"{store}/model"):
        with pytest.raises(UserError, match=r"'.*/model' is not whole: it lacks manifest.json"):
            bring_model(address)
    with pytest.raises(UserError, match="is not there, or empty"):
        bring_model(f"{store}/none")


@pytest.mark.parametrize("other", ["9" * 20, "007", "²", "12a"])
def test_the_newest_version_is_the_one_of_the_highest_number(other: str, store: str, tmp_path: Path) -> None:
    """Of names that TensorFlow Serving takes for numbers, as of exports here."""
    for name in ("9", "10", other):
        put_folder(write_files(tmp_path / name, **{"saved_model.pb": name}), f"{store}/{name}")
    assert [path.name for path in bring_model(store).iterdir()] == ["10"]
    assert find_next_version(list_names(store), store) == 11


@pytest.mark.parametrize("command", ["train", "evaluate", "predict", "report"])
def test_an_unknown_file_system_is_one_line(
    command: str, tmp_path: Path, text_file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = make_config(tmp_path, text_file)
    (tmp_path / "config.yaml").write_text(dump_config(config))
    arguments = {
        "train": [str(tmp_path / "config.yaml"), "run.output_dir=nowhere://bucket/run"],
        "predict": ["nowhere://bucket/run", "a text"],
    }
    assert main([command, *arguments.get(command, ["nowhere://bucket/run"])]) == 2
    last = capfd.readouterr().err.splitlines()[-1]
    assert last.startswith(
        "tfmlm: 'nowhere://bucket/run' is on a file system that TensorFlow does not know here"
    )


# === Killed at any write ===


class KilledError(BaseException):
    """Nothing catches it."""


def count_down(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills at the remote file system's so manieth change, which is then half done."""
    left = number
    gfile_copy, gfile_remove = tf.io.gfile.copy, tf.io.gfile.remove
    write_text = remote_folders.write_text

    def count() -> bool:
        nonlocal left
        left -= 1
        if left < 0:
            raise KilledError
        return left == 0

    def copy(source: str, target: str, overwrite: bool = False) -> None:
        if target.startswith("ram://") and count():
            raise KilledError  # an object store shows a file when it is whole, so nothing is there
        gfile_copy(source, target, overwrite=overwrite)

    def remove(path: str) -> None:
        if count():
            raise KilledError
        gfile_remove(path)

    def write(text: str, address: str) -> None:
        if count():
            raise KilledError
        write_text(text, address)

    monkeypatch.setattr(tf.io.gfile, "copy", copy)
    monkeypatch.setattr(tf.io.gfile, "remove", remove)
    monkeypatch.setattr(remote_folders, "write_text", write)


STATES = [
    {"best-00000001": "b1", "step-00000001": "b1"},
    {"best-00000001": "b1", "step-00000001": "b1", "step-00000002": "b1"},
    {"best-00000003": "b3", "step-00000002": "b1", "step-00000003": "b3"},
    {"best-00000003": "b3", "step-00000003": "b3", "step-00000004": "b3"},
]
"""Checkpoints as a run leaves them one after the other; each tells which best weights it counts on."""


def write_state(folder: Path, number: int) -> None:
    for path in (folder / "checkpoints").glob("*"):
        if path.name not in STATES[number]:
            shutil.rmtree(path)
    for name, best in STATES[number].items():
        if not (folder / "checkpoints" / name).exists():
            write_files(folder / "checkpoints" / name, index=best, data=best * 100)
    write_files(folder, **{"config.yaml": "same", "logs__metrics.csv": f"rows of {number}"})


def put_states(store: str, folder: Path, numbers: range) -> None:
    """What a run does, without its thread."""
    folder.mkdir()
    bring_run(store, folder)
    remote = RemoteRun(store, folder, _Lock(store))
    for number in numbers:
        write_state(folder, number)
        remote._put(folder)
    if numbers.stop == len(STATES):
        write_files(folder, model__weights="w", **{"result.json": "{}"})
    remote.put_all()


def test_whatever_kills_it_the_rest_can_be_gone_on_from(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each of all changes; then the run goes on and ends as if nothing had been."""
    number, killed = 0, True
    while killed:
        number += 1
        address = f"{store}-{number}"
        with monkeypatch.context() as patch:
            count_down(number, patch)
            try:
                put_states(address, tmp_path / f"first-{number}", range(len(STATES)))
                killed = False
            except KilledError:
                pass
        folder = tmp_path / f"left-{number}"
        folder.mkdir()
        bring_run(address, folder)
        if (folder / "result.json").exists():
            assert (folder / "model" / "weights").read_text() == "w"
            reached = len(STATES)
        else:
            names = [path.name for path in (folder / "checkpoints").glob("*")]
            steps = sorted(name for name in names if name.startswith("step-"))
            for name in names:
                data = (folder / "checkpoints" / name / "data").read_text()
                assert data == (folder / "checkpoints" / name / "index").read_text() * 100
            if steps:
                best = (folder / "checkpoints" / steps[-1] / "index").read_text()
                assert any(int(best[1:]) <= int(name[5:]) for name in names if name.startswith("best-"))
            reached = int(steps[-1][5:]) if steps else 0
        put_states(address, tmp_path / f"second-{number}", range(min(reached, 3), len(STATES)))
        assert is_whole(f"{address}/model")
        assert list_names(f"{address}/checkpoints")[-1] == "step-00000004"
    assert number > 20


def test_a_damaged_checkpoint_is_passed_over(
    store: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put_states(store, tmp_path / "first", range(2))
    tf.io.gfile.remove(f"{store}/checkpoints/step-00000002/data")
    (tmp_path / "left").mkdir()
    bring_run(store, tmp_path / "left")
    names = sorted(path.name for path in (tmp_path / "left" / "checkpoints").iterdir())
    assert names == ["best-00000001", "step-00000001"]
    assert "step-00000002 is passed over" in caplog.text


# === Whole runs ===


def test_a_run_that_is_cut_goes_on_and_leaves_nothing_here(
    store: str,
    tmp_path: Path,
    text_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """And what it leaves there can be predicted with, evaluated, exported and reported."""
    here, scratch = tmp_path / "here", tmp_path / "scratch"
    here.mkdir()
    scratch.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    config = make_config(tmp_path, text_file, dropout=True, max_steps=7)
    config = replace(config, export=ExportConfig(dir=f"{store}-exports", text_signature="off"))
    whole = run(replace(in_folder(config, tmp_path / "whole"), export=ExportConfig(enabled=False)))
    there = replace(config, run=replace(config.run, output_dir=f"{store}/"))
    with monkeypatch.context() as patch:
        cut_after(5, patch)
        # A kill puts nothing there at its end.
        newest = f"{store}/checkpoints/step-00000003"
        patch.setattr(RemoteRun, "put_all", lambda self: wait_until(lambda: is_whole(newest)))
        with pytest.raises(PowerCutError):
            run(there)
    assert "result.json" not in list_names(store)
    finished = run(there)
    assert finished.result.perplexity == whole.result.perplexity
    assert finished.result.model_dir == f"{store}/model"
    assert finished.result.saved_model_dir == f"{store}-exports/run/1"
    bring_folder(f"{store}/model", tmp_path / "copy" / "model")
    assert_same_weights(tmp_path / "copy", tmp_path / "whole")
    assert "lock.json" not in list_names(store)
    assert run(there) == finished

    longer = run(replace(there, train=replace(there.train, max_steps=9)))
    assert longer.result.steps == 9
    assert json.loads(tf.io.gfile.GFile(f"{store}/result.json").read())["steps"] == 9
    finished = longer

    capfd.readouterr()
    assert main(["evaluate", store]) == 0
    assert f"perplexity {finished.result.perplexity:,.4f}"[:15] in capfd.readouterr().out
    assert main(["export", store]) == 0
    assert capfd.readouterr().out.splitlines()[0] == f"{store}-exports/run/3"
    for name in (store, f"{store}/model", f"{store}-exports/run", f"{store}-exports/run/1"):
        assert main(["predict", name, "the [MASK]", "--json"]) == 0
    answers = capfd.readouterr().out.splitlines()
    assert len(answers) == 4
    assert main(["report", store, "--output", str(tmp_path / "report.html")]) == 0
    assert main(["serve", store]) == 2
    assert not list(here.iterdir())
    assert not list(scratch.glob("tfmlm-run-*"))


def test_a_folder_that_holds_something_else_is_left_alone(
    store: str, tmp_path: Path, text_file: Path
) -> None:
    put_folder(write_files(tmp_path / "a", notes="mine"), store)
    config = make_config(tmp_path, text_file)
    with pytest.raises(UserError, match="is not empty and holds no run"):
        run(replace(config, run=replace(config.run, output_dir=store)))
    assert list_names(store) == ["manifest.json", "notes"]


def hold(store: str, work: Callable[[RunFolder], None] = lambda folder: None) -> None:
    with holding_run(Config(run=replace(Config().run, output_dir=store))) as folder:
        work(folder)


def test_a_run_that_cannot_be_put_there_at_its_end_is_kept_here(
    store: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(source: str, target: str, overwrite: bool = False) -> None:
        raise tf.errors.PermissionDeniedError(None, None, "the bucket is closed")

    def end(folder: RunFolder) -> None:
        write_files(folder.path, **{"result.json": "{}"})
        monkeypatch.setattr(tf.io.gfile, "copy", refuse)

    def fail(folder: RunFolder) -> None:
        end(folder)
        raise UserError("the loss is wrong")

    with pytest.raises(UserError, match=r"the bucket is closed; .* is in '") as caught:
        hold(store, end)
    kept = Path(str(caught.value).split("'")[-2])
    assert (kept / "result.json").exists()
    shutil.rmtree(kept.parent)
    with pytest.raises(UserError, match="the loss is wrong"):
        hold(store, fail)
    assert "the bucket is closed" in caplog.text
    shutil.rmtree(Path(caplog.text.split("'")[-2]).parent)


def test_a_checkpoint_that_cannot_be_put_there_is_told_and_tried_again(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_state(tmp_path, 0)
    remote = RemoteRun(store, tmp_path, _Lock(store))
    remote._there = {}

    def refuse(source: str, target: str, overwrite: bool = False) -> None:
        raise tf.errors.UnavailableError(None, None, "the network is gone")

    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, "tfmlm"):
        patch.setattr(tf.io.gfile, "copy", refuse)
        remote.offer()
        wait_until(lambda: "the network is gone" in caplog.text)
    remote.offer()
    wait_until(lambda: is_whole(f"{store}/checkpoints/step-00000001"))
    remote.put_all()


def wait_until(is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + WAIT_SECONDS
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.01)


# === Lock ===


def test_a_folder_that_is_held_is_refused_with_its_holder(store: str) -> None:
    with pytest.raises(UserError, match=rf"is being written by process {os.getpid()} on .*; wait for it"):
        hold(store, lambda folder: hold(store))
    hold(store)


@pytest.mark.parametrize("namespace", ["another machine", None])
def test_the_lock_of_a_holder_that_is_silent_is_taken(
    namespace: str | None, store: str, caplog: pytest.LogCaptureFixture
) -> None:
    left = {"owner": "o", "holder": "process 1 on elsewhere", "number": 1, "namespace": namespace, "beat": 3}
    remote_folders.write_text(json.dumps(left), f"{store}/lock.json")
    with caplog.at_level(logging.INFO, "tfmlm"):
        hold(store)
    assert "was held by process 1 on elsewhere; looking" in caplog.text


def test_the_lock_of_a_process_that_was_killed_here_is_taken_at_once(
    store: str, caplog: pytest.LogCaptureFixture
) -> None:
    child = multiprocessing.get_context("spawn").Process(target=int)
    child.start()
    child.join()
    identity = remote_run._name_process() | {"number": child.pid, "owner": "o", "beat": 3}
    remote_folders.write_text(json.dumps(identity), f"{store}/lock.json")
    with caplog.at_level(logging.INFO, "tfmlm"):
        hold(store)
    assert "was held" not in caplog.text


def test_who_has_lost_the_lock_writes_nothing_more(store: str) -> None:
    """As when the network was gone for a minute, and another machine has gone on."""
    other = {"owner": "o", "holder": "process 9 on elsewhere", "beat": 1}

    def lose(folder: RunFolder) -> None:
        assert folder.remote
        remote_folders.write_text(json.dumps(other), f"{store}/lock.json")
        wait_until(lambda: not folder.remote._lock._thread.is_alive())
        write_files(folder.path, **{"result.json": "{}"})
        folder.remote.offer()

    with pytest.raises(UserError, match="is being written by process 9 on elsewhere"):
        hold(store, lose)
    assert list_names(store) == ["lock.json"]
    assert json.loads(tf.io.gfile.GFile(f"{store}/lock.json").read()) == other


# === Real processes ===


@pytest.mark.long
@pytest.mark.fault
def test_workers_killed_at_random_moments_go_on_from_what_is_there(tmp_path: Path, text_file: Path) -> None:
    """`file://` goes through the same calls, and outlives a process."""
    config = make_config(
        tmp_path, text_file, dropout=True, max_steps=40, epochs=100, checkpoint_every_steps=4
    )
    there = replace(config, run=replace(config.run, output_dir=f"file://{tmp_path}/store/run"))
    moments = random.Random(0)

    def start_two(one: Config) -> list:
        return [
            start(one, tmp_path / f"{number}.yaml", TMPDIR=str(tmp_path), **environment)
            for number, environment in enumerate(name_workers(2))
        ]

    for worker in start_two(in_folder(config, tmp_path / "whole")):
        _, error = worker.communicate(timeout=WAIT_SECONDS)
        assert worker.returncode == 0, error
    chief, other = start_two(there)
    wait_until(
        lambda: (
            chief.poll() is not None or any((tmp_path / "store/run/checkpoints").glob("step-*/manifest.json"))
        )
    )
    time.sleep(moments.uniform(0, 0.3))
    chief.kill()
    for worker in (chief, other):
        worker.communicate(timeout=WAIT_SECONDS)
    assert not (tmp_path / "store/run/result.json").exists()
    for worker in start_two(there):
        _, error = worker.communicate(timeout=WAIT_SECONDS)
        assert worker.returncode == 0, error
    assert "going on from step" in error
    assert_same_weights(tmp_path / "store/run", tmp_path / "whole")
