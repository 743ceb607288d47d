"""A clock that is set back changes nothing that a run computes."""

import json
from pathlib import Path

import pytest
import tensorflow as tf

from tests.faults.table import NoteFault
from tests.tiny_run import assert_same_weights, in_folder, make_config, start, wait_for_checkpoints
from tests.waiting import WAIT_SECONDS
from tfmlm.run import run

FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")

pytestmark = pytest.mark.fault


@pytest.mark.long
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
    _, error = again.communicate(timeout=WAIT_SECONDS)
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
