"""Processes that are killed, told to end, or run out of disk: the next start goes on from there."""

import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.faults.table import DONE_AGAIN, NoteFault, make_room
from tests.tiny_run import assert_same_weights, in_folder, make_config, start, wait_for_checkpoints
from tests.waiting import WAIT_SECONDS

NUM_KILLS = int(os.environ.get("TFMLM_KILLS", "2"))
"""Each costs a start of some ten seconds; `make faults` takes 20."""


@pytest.mark.fault
@pytest.mark.long
def test_killed_at_random_moments_ends_with_the_same_bits(
    tmp_path: Path, text_file: Path, note_fault: NoteFault
) -> None:
    """Dropout included; a checkpoint at every step, so that many a kill hits the writing of one."""
    config = make_config(
        tmp_path, text_file, dropout=True, max_steps=60 * NUM_KILLS, epochs=1000, checkpoint_every_steps=1
    )
    whole = start(in_folder(config, tmp_path / "whole"), tmp_path / "whole.yaml")
    _, error = whole.communicate()
    assert whole.returncode == 0, error

    moments = random.Random(0)
    kills = 0
    for _ in range(NUM_KILLS):
        process = start(config, tmp_path / "killed.yaml")
        wait_for_checkpoints(tmp_path / "run" / "checkpoints", process, num_new=2)
        time.sleep(moments.uniform(0, 0.4))
        process.kill()
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
    assert kills == NUM_KILLS
    last = start(config, tmp_path / "killed.yaml")
    _, error = last.communicate()
    assert last.returncode == 0, error
    assert "going on from step" in error
    assert_same_weights(tmp_path / "run", tmp_path / "whole")
    assert not list((tmp_path / "run" / "checkpoints").glob(".*"))
    line = next(line for line in error.splitlines() if "going on from step" in line)
    # As a shell tells it.
    exit_code = 128 + signal.SIGKILL
    note_fault(f"SIGKILL at {NUM_KILLS} random moments of one run", exit_code, line, DONE_AGAIN)


@pytest.mark.fault
@pytest.mark.long
def test_sigterm_saves_a_checkpoint_and_exits_143(
    tmp_path: Path, text_file: Path, note_fault: NoteFault
) -> None:
    config = make_config(tmp_path, text_file, max_steps=100_000, epochs=100_000, checkpoint_every_steps=7)
    process = start(config, tmp_path / "config.yaml")
    checkpoints = tmp_path / "run" / "checkpoints"
    wait_for_checkpoints(checkpoints, process, num_new=1)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 143, error
    last_line = error.splitlines()[-1]
    assert last_line.startswith("tfmlm: told to end at step ")
    assert last_line.endswith("the same command goes on from there")
    step = int(last_line.split("step ")[1].split(",")[0])
    assert (checkpoints / f"step-{step:08d}").is_dir()
    assert not (tmp_path / "run" / "result.json").exists()
    note_fault("SIGTERM", process.returncode, last_line)


@pytest.mark.fault
@pytest.mark.long
def test_a_full_disk_ends_in_one_line_and_the_checkpoint_before_is_whole(
    small_disk: Path, tmp_path: Path, text_file: Path, note_fault: NoteFault
) -> None:
    config = in_folder(
        make_config(tmp_path, text_file, max_steps=40, kept_checkpoints=100, checkpoint_every_steps=1),
        small_disk / "run",
    )
    process = start(config, tmp_path / "config.yaml")
    _, error = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 2, error
    assert "Traceback" not in error
    last_line = error.splitlines()[-1]
    assert "cannot be written to" in last_line
    assert "No space left" in last_line
    checkpoints = small_disk / "run" / "checkpoints"
    whole = sorted(path.name for path in checkpoints.iterdir())
    assert f"{whole[-1]} is whole" in last_line
    assert not list(checkpoints.glob(".*"))

    note_fault("the disk is full while saving a checkpoint", process.returncode, last_line)

    # Room is made, and the same command goes on from there.
    make_room(small_disk)
    again = start(config, tmp_path / "config.yaml")
    _, error = again.communicate(timeout=WAIT_SECONDS)
    assert again.returncode == 0, error
    assert f"going on from step {int(whole[-1].split('-')[1])}" in error
