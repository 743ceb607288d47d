"""Damaged files: a checkpoint is passed over, a cached file made again, any other named."""

import shutil
from pathlib import Path

import pytest

from tests.faults.table import NoteFault
from tests.finished import Finished
from tests.tiny_run import Command, PowerCutError, assert_same_weights, cut_after, in_folder
from tfmlm.config import Config
from tfmlm.run import run

pytestmark = pytest.mark.fault


def flip_byte(path: Path, place: int) -> None:
    """Alters one byte and nothing else."""
    content = bytearray(path.read_bytes())
    content[place] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.long
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


@pytest.mark.long
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
    place: int, word_run: Finished, tmp_path: Path, command: Command, note_fault: NoteFault
) -> None:
    """A flipped number among the weights themselves cannot be seen: the format holds no sums."""
    shutil.copytree(word_run.run_dir, tmp_path / "run")
    flip_byte(tmp_path / "run" / "model" / "model.safetensors", place)
    exit_code, line = command("evaluate", on=tmp_path / "run")
    assert exit_code == 2, line
    assert str(tmp_path / "run" / "model") in line
    note_fault(f"model.safetensors is damaged at byte {place}", exit_code, line)
