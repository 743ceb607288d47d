"""Disks that are full or read-only: a command says so in one line, and succeeds once there is room."""

import os
import shutil
from pathlib import Path

import pytest

from tests.faults.table import NoteFault, make_read_only, make_room
from tests.tiny_run import Command

pytestmark = pytest.mark.fault


def fill(disk: Path, kilobytes_left: int) -> None:
    status = os.statvfs(disk)
    (disk / "filler").write_bytes(bytes(status.f_bavail * status.f_frsize - 1024 * kilobytes_left))


def list_names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")} - {"filler"}


# === A full disk ===


def test_the_disk_is_full_while_caching(
    small_disk: Path, command: Command, note_fault: NoteFault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TFMLM_CACHE", str(small_disk))
    for kilobytes_left in (0, 16, 64):
        for path in small_disk.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        fill(small_disk, kilobytes_left)
        exit_code, line = command("train")
        assert exit_code == 2, line
        assert f"cache '{small_disk}' cannot be written: No space left on device" in line
        assert "TFMLM_CACHE" in line
        assert {path.suffix for path in small_disk.glob(".*")} <= {".lock"}
        note_fault(f"the disk is full while caching, {kilobytes_left} KB left", exit_code, line)

    make_room(small_disk)
    assert command("train")[0] == 0


@pytest.mark.long
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

    make_room(small_disk)
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

    make_room(small_disk)
    assert command("prepare", *flags)[0] == 0


@pytest.mark.long
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

    make_room(small_disk)
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
