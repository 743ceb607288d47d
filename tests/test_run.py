"""Sample texts: filled before the first step, kept over an interruption, refused before training."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.tiny_run import PowerCutError, cut_after, make_config
from tfmlm.errors import UserError
from tfmlm.run import run

TEXT = "Return the [MASK] of the [MASK]."


def test_samples_of_before_survive_an_interruption(
    tmp_path: Path, text_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(tmp_path, text_file)
    config = replace(config, run=replace(config.run, sample_texts=[TEXT]))
    with monkeypatch.context() as patch:
        cut_after(5, patch)
        with pytest.raises(PowerCutError):
            run(config)
    first = (tmp_path / "run" / "logs" / "samples_before.json").read_text()
    finished = run(config)
    assert finished
    assert (tmp_path / "run" / "logs" / "samples_before.json").read_text() == first
    before, after = finished.result.samples_before[TEXT], finished.result.samples_after[TEXT]
    assert [len(mask) for mask in before] == [len(mask) for mask in after] == [5, 5]
    assert before != after
    assert finished.samples == finished.result.samples_after
    assert run(config) == finished


def test_a_text_that_cannot_be_filled_is_told_before_training(tmp_path: Path, text_file: Path) -> None:
    config = make_config(tmp_path, text_file)
    config = replace(config, run=replace(config.run, sample_texts=["no mask"]))
    with pytest.raises(UserError, match=r"'no mask' has no mask; write \[MASK\]"):
        run(config)
    assert not (tmp_path / "run" / "checkpoints").exists()
