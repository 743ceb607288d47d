"""Disks that are full or read-only, damaged files, two runs at once, a clock set back: nothing is lost.

Kills are in `test_kill.py`, a lost worker in `test_multi_worker.py`, the Hub in `test_push.py`, a broken
version under the preview server in `test_versions.py`.
"""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import tensorflow as tf

from tests.faults import NoteFault, flip_byte, make_read_only, resize
from tests.test_kill import wait_for_checkpoints
from tests.tiny_run import (
    PowerCutError,
    assert_same_weights,
    cut_after,
    in_folder,
    make_config,
    start,
)
from tfmlm.cli import main
from tfmlm.config import Config
from tfmlm.config_loading import dump_config
from tfmlm.run import run

FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")

pytestmark = pytest.mark.fault


@pytest.fixture
def config(tmp_path: Path, text_file: Path) -> Config:
    return make_config(tmp_path, text_file)


Command = Callable[..., tuple[int, str]]


@pytest.fixture
def command(tmp_path: Path, config: Config, capfd: pytest.CaptureFixture[str]) -> Command:
    """Runs a command on the configuration; its exit code and its last line of errors."""
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(config))

    def run_command(name: str, *arguments: str, on: Path = path) -> tuple[int, str]:
        capfd.readouterr()
        exit_code = main([name, str(on), *arguments])
        errors = capfd.readouterr().err
        assert "Traceback" not in errors, errors
        return exit_code, (errors.splitlines() or [""])[-1]

    return run_command


def fill(disk: Path, kilobytes_left: int) -> None:
    status = os.statvfs(disk)
    (disk / "filler").write_bytes(bytes(status.f_bavail * status.f_frsize - 1024 * kilobytes_left))


def list_names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")} - {"filler"}


# === A full disk ===


@pytest.mark.parametrize("kilobytes_left", [0, 16, 64])
def test_the_disk_is_full_while_caching(
    kilobytes_left: int,
    small_disk: Path,
    command: Command,
    note_fault: NoteFault,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TFMLM_CACHE", str(small_disk))
    fill(small_disk, kilobytes_left)
    exit_code, line = command("train")
    assert exit_code == 2, line
    assert f"cache '{small_disk}' cannot be written: No space left on device" in line
    assert "TFMLM_CACHE" in line
    assert not list(small_disk.glob(".*"))
    note_fault(f"the disk is full while caching, {kilobytes_left} KB left", exit_code, line)

    resize(small_disk, "60m")
    assert command("train")[0] == 0


def test_the_disk_is_full_while_exporting(
    small_disk: Path, tmp_path: Path, command: Command, note_fault: NoteFault
) -> None:
    """At the first file, among the variables, and at the graph."""
    assert command("train")[0] == 0
    run_dir, flag = tmp_path / "run", f"export.dir={small_disk}"
    for kilobytes_left in (0, 128, 1024):
        (small_disk / "filler").unlink(missing_ok=True)
        fill(small_disk, kilobytes_left)
        exit_code, line = command("export", flag, "export.name=tiny", on=run_dir)
        assert exit_code == 2, line
        assert "No space left on device" in line
        assert line.endswith("make room, or set export.dir")
        assert list_names(small_disk) <= {"tiny"}
    note_fault("the disk is full while exporting", exit_code, line)

    resize(small_disk, "60m")
    assert command("export", flag, "export.name=tiny", on=run_dir)[0] == 0
    assert (small_disk / "tiny" / "1" / "saved_model.pb").is_file()


@pytest.mark.parametrize("kilobytes_left", [0, 64])
def test_the_disk_is_full_while_writing_shards(
    kilobytes_left: int, small_disk: Path, command: Command, note_fault: NoteFault
) -> None:
    fill(small_disk, kilobytes_left)
    flags = ["--output", str(small_disk / "shards"), "--blocks-per-shard=50"]
    exit_code, line = command("prepare", *flags)
    assert exit_code == 2, line
    assert f"'{small_disk}/shards' cannot be written: " in line
    assert "No space left on device" in line
    assert not list((small_disk / "shards").glob(".*"))
    note_fault(f"the disk is full while writing shards, {kilobytes_left} KB left", exit_code, line)

    resize(small_disk, "60m")
    assert command("prepare", *flags)[0] == 0


@pytest.mark.parametrize("kilobytes_left", [0, 8, 12])
def test_the_disk_of_the_run_is_full(
    kilobytes_left: int,
    small_disk: Path,
    command: Command,
    note_fault: NoteFault,
) -> None:
    """Wherever it is noticed: in the configuration, the log, a checkpoint or the model folder."""
    fill(small_disk, kilobytes_left)
    output = f"run.output_dir={small_disk}/run"
    exit_code, line = command("train", output)
    assert exit_code == 2, line
    assert "No space left on device" in line
    note_fault(f"the disk is full when a run starts, {kilobytes_left} KB left", exit_code, line)

    resize(small_disk, "60m")
    assert command("train", output)[0] == 0


# === A disk that cannot be written ===


def test_the_output_is_read_only(small_disk: Path, command: Command, note_fault: NoteFault) -> None:
    make_read_only(small_disk)
    seen = [
        command("train", f"run.output_dir={small_disk}/run"),
        command("train", "export.enabled=true", f"export.dir={small_disk}"),
        command("prepare", "--output", str(small_disk / "shards")),
    ]
    for what, (exit_code, line) in zip(("run", "export", "shards"), seen, strict=True):
        assert exit_code == 2, line
        assert "Read-only file system" in line
        note_fault(f"the output is read-only: {what}", exit_code, line)


# === Damaged files ===


def test_a_damaged_checkpoint_is_passed_over(
    config: Config,
    tmp_path: Path,
    command: Command,
    note_fault: NoteFault,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run(in_folder(config, tmp_path / "whole"))
    with monkeypatch.context() as patch:
        cut_after(7, patch)
        with pytest.raises(PowerCutError):
            run(config)
    newest = tmp_path / "run" / "checkpoints" / "step-00000006"
    (state,) = newest.glob("*.data-*")
    flip_byte(state, state.stat().st_size // 2)
    assert command("train")[0] == 0
    (warning,) = [
        record.message for record in caplog.records if "is damaged and passed over" in record.message
    ]
    assert_same_weights(tmp_path / "run", tmp_path / "whole")
    note_fault("the newest checkpoint is damaged", 0, warning, "the steps since the one before, done again")


def test_a_damaged_shard_is_named(tmp_path: Path, command: Command, note_fault: NoteFault) -> None:
    shards = tmp_path / "shards"
    assert command("prepare", "--output", str(shards), "--blocks-per-shard=50")[0] == 0
    damaged = sorted(shards.glob("train-*"))[-1]
    flip_byte(damaged, damaged.stat().st_size // 2)
    exit_code, line = command("train", f"data.source={shards}")
    assert exit_code == 2, line
    assert str(damaged) in line
    assert "run `tfmlm prepare` again" in line
    note_fault("a shard is damaged", exit_code, line)


def test_a_damaged_cache_is_made_again(
    config: Config,
    tmp_path: Path,
    command: Command,
    note_fault: NoteFault,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TFMLM_CACHE", str(tmp_path / "cache"))
    run(in_folder(config, tmp_path / "whole"))
    for blocks in (tmp_path / "cache").rglob("*.arrow"):
        flip_byte(blocks, blocks.stat().st_size // 2)
    assert command("train")[0] == 0
    warnings = [text for text in caplog.messages if "is made again" in text]
    assert len(warnings) == 2  # training and held-out blocks
    assert_same_weights(tmp_path / "run", tmp_path / "whole")
    note_fault("a cached file is damaged", 0, warnings[0])


@pytest.mark.parametrize("place", [0, 8, 40], ids=["length", "header", "name"])
def test_a_damaged_safetensors_file_is_named(
    place: int, config: Config, tmp_path: Path, command: Command, note_fault: NoteFault
) -> None:
    """A flipped number among the weights themselves cannot be seen: the format holds no sums."""
    run(config)
    flip_byte(tmp_path / "run" / "model" / "model.safetensors", place)
    exit_code, line = command("evaluate", on=tmp_path / "run")
    assert exit_code == 2, line
    assert str(tmp_path / "run" / "model") in line
    note_fault(f"model.safetensors is damaged at byte {place}", exit_code, line)


# === Two at once, and the clock ===


@pytest.mark.slow
def test_a_second_run_in_the_same_folder_is_refused(
    tmp_path: Path, text_file: Path, command: Command, note_fault: NoteFault
) -> None:
    endless = make_config(tmp_path, text_file, max_steps=100_000, epochs=100_000)
    first = start(endless, tmp_path / "first.yaml")
    while not list((tmp_path / "run").glob("checkpoints/step-*")) and first.poll() is None:
        time.sleep(0.05)
    (tmp_path / "link").symlink_to(tmp_path / "run")
    for spelling in ("run", "link", "nowhere/../run"):
        exit_code, line = command("train", f"run.output_dir={tmp_path}/{spelling}")
        assert exit_code == 2, line
        assert f"process {first.pid} on " in line
    note_fault("a second run in the same folder", exit_code, line.split(" on ")[0] + " …")
    assert first.poll() is None
    first.send_signal(signal.SIGTERM)
    _, error = first.communicate(timeout=60)
    assert first.returncode == 143, error

    # The lock went with its process, although its file is still there.
    assert (tmp_path / ".run.lock").exists()
    again = start(endless, tmp_path / "first.yaml")
    while "going on from step" not in (line := again.stderr.readline()) and line:
        pass
    again.kill()
    again.communicate()
    assert "going on from step" in line


@pytest.mark.slow
@pytest.mark.skipif(not FAKETIME.exists(), reason="needs Debian's package faketime")
def test_the_clock_is_set_back(tmp_path: Path, text_file: Path, note_fault: NoteFault) -> None:
    """By ten days while a run trains, and forward again after a kill: the bits are those of a steady clock.

    Without the kill the process may wait for the old time when its data ends: a thread of TensorFlow 2.20
    (`tensorflow::data::model::Model::OptimizeLoop`) sleeps until a moment of the system's clock.
    """
    config = make_config(
        tmp_path, text_file, dropout=True, max_steps=60, epochs=100, checkpoint_every_steps=1
    )
    run(in_folder(config, tmp_path / "whole"))
    clock = tmp_path / "clock"
    clock.write_text("+0")
    environment = {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    process = start(config, tmp_path / "config.yaml", **environment)
    checkpoints = tmp_path / "run" / "checkpoints"
    wait_for_checkpoints(checkpoints, process, num_new=1)
    clock.write_text("-10d")
    wait_for_checkpoints(checkpoints, process, num_new=3)
    process.kill()
    process.communicate()

    again = start(config, tmp_path / "config.yaml")
    _, error = again.communicate(timeout=240)
    assert again.returncode == 0, error
    assert_same_weights(tmp_path / "run", tmp_path / "whole")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert 0 < result["step_seconds_median"] < result["train_seconds"] < 240
    events = [
        event.wall_time
        for path in (tmp_path / "run" / "logs").glob("events.*")
        for event in tf.compat.v1.train.summary_iterator(str(path))
    ]
    assert max(events) - min(events) > 9 * 24 * 3600
    line = next(line for line in error.splitlines() if "going on from step" in line)
    note_fault("the clock is set back by ten days, a kill, and forward again", again.returncode, line)
