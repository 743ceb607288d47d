"""A second run in the folder of one that is going on is refused."""

import signal
import time
from pathlib import Path

import pytest

from tests.faults.table import NoteFault
from tests.tiny_run import Command, make_config, start
from tests.waiting import WAIT_SECONDS

pytestmark = pytest.mark.fault


@pytest.mark.long
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
    _, error = first.communicate(timeout=WAIT_SECONDS)
    assert first.returncode == 143, error

    # The lock went with its process, although its file is still there.
    assert (tmp_path / ".run.lock").exists()
    again = start(endless, tmp_path / "first.yaml")
    while "going on from step" not in (line := again.stderr.readline()) and line:
        pass
    again.kill()
    again.communicate()
    assert "going on from step" in line
