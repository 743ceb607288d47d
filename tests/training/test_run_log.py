"""A plot is whole or the one before."""

import csv
import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from tests.tiny_run import PowerCutError, cut_after, make_config
from tfmlm.results import Evaluation
from tfmlm.run import run
from tfmlm.training import masked_lm as masked_lm_module
from tfmlm.training import run_log as run_log_module
from tfmlm.training.run_log import RunLog, plot_metrics

HEADER = "step,loss,learning_rate,seconds,tokens_per_second,eval_loss,eval_perplexity\n"


def test_a_plot_that_cannot_be_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics, plots = tmp_path / "metrics.csv", tmp_path / "plots"
    metrics.write_text(HEADER + "1,2.0,0.1,2,100,,\n2,1.5,0.1,3,100,,\n")
    plot_metrics(metrics.parent, plots)
    before = {path.name: path.read_bytes() for path in plots.iterdir()}
    assert before.keys() == {"loss.png", "perplexity.png", "learning_rate.png", "tokens_per_second.png"}

    def write_half(figure: Figure, path: Path, **settings: object) -> None:
        Path(path).write_bytes(b"\x89PNG")
        raise OSError("no room")

    monkeypatch.setattr(Figure, "savefig", write_half)
    with pytest.raises(OSError, match="no room"):
        plot_metrics(metrics.parent, plots)
    assert {path.name: path.read_bytes() for path in plots.iterdir()} == before


TIMES = [5.0, 1.0, 2.0, 3.0, 4.0]
"""Seconds of the steps; the first one traces."""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """A clock that stands still unless a test moves it."""
    now = [0.0]
    with monkeypatch.context() as patch:
        patch.setattr(run_log_module.time, "perf_counter", lambda: now[0])
        yield now


def write_steps(log: RunLog, clock: list[float], times: list[float], overflow: float = 0.0) -> None:
    log.on_train_begin()
    for batch, seconds in enumerate(times):
        clock[0] += seconds
        figures = dict.fromkeys(("loss", "learning_rate", "gradient_norm", "masked_tokens"), 1.0)
        log.on_train_batch_end(
            batch, figures | {"overflow": (batch + 1) * overflow, "tokens": (batch + 1) * 100.0}
        )


@pytest.mark.parametrize("num_steps", [1, 3, 4, 5])
def test_speed_and_overflow_after_a_resume_are_those_of_the_whole_run(
    num_steps: int, tmp_path: Path, clock: list[float]
) -> None:
    with closing(RunLog(tmp_path / "whole", 0, 0.0)) as whole:
        write_steps(whole, clock, TIMES, overflow=2.0)
    with closing(RunLog(tmp_path / "parts", 0, 0.0)) as first:
        write_steps(first, clock, TIMES[:num_steps], overflow=2.0)
    with closing(RunLog(tmp_path / "parts", num_steps, first.seconds)) as resumed:
        write_steps(resumed, clock, TIMES[num_steps:], overflow=2.0)
    assert resumed.seconds == whole.seconds == sum(TIMES)
    assert resumed.overflow == whole.overflow == 10
    assert resumed.tokens == whole.tokens == 500
    # The first step of either process traces.
    assert resumed.step_seconds == TIMES[1:num_steps] + TIMES[num_steps + 1 :]
    assert resumed.speeds == [100 / seconds for seconds in resumed.step_seconds]


def test_what_was_done_after_the_checkpoint_does_not_count(tmp_path: Path, clock: list[float]) -> None:
    with closing(RunLog(tmp_path, 0, 0.0)) as first:
        write_steps(first, clock, TIMES, overflow=1.0)
    with closing(RunLog(tmp_path, 3, 8.0)) as resumed:
        assert resumed.step_seconds == TIMES[1:3]
        assert resumed.overflow == 3


def test_a_perplexity_beyond_float32_is_written(tmp_path: Path) -> None:
    evaluation = Evaluation(loss=200.0, top_1=0.0, top_5=0.0)
    with closing(RunLog(tmp_path, 0, 0.0)) as log:
        log.add_evaluation(evaluation)
    with (tmp_path / "metrics.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert float(row["eval_perplexity"]) == pytest.approx(math.exp(200.0))


def read_rows(run_dir: Path) -> list[dict[str, str]]:
    with (run_dir / "logs" / "metrics.csv").open() as file:
        return [row for row in csv.DictReader(file) if row["loss"]]


@pytest.mark.parametrize("steps_per_execution", [1, 2])
def test_overflow_of_every_step_counts(
    steps_per_execution: int, tmp_path: Path, text_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(masked_lm_module, "count_slots", lambda *_: 8)
    config = make_config(
        tmp_path, text_file, max_steps=5, steps_per_execution=steps_per_execution, evaluate_every_steps=2
    )
    result = run(replace(config, masking=replace(config.masking, rate=1.0))).result
    rows = read_rows(config.run_dir)
    steps = [int(row["step"]) for row in rows]
    assert steps == [*range(steps_per_execution, 5, steps_per_execution), 5]
    # All tokens of 4 blocks of 32 but the special ones are masked, and 8 have a slot.
    for row, num_steps in zip(rows, np.diff([0, *steps]), strict=True):
        assert 80 * num_steps < float(row["overflow"]) < 120 * num_steps
    total = sum(int(float(row["overflow"])) for row in rows)
    assert f"{total} masked tokens found no slot in their batch and were left out of the loss" in result.notes


def test_a_resumed_runs_result_tells_the_speed_of_its_log(
    tmp_path: Path, text_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(tmp_path, text_file, max_steps=4, checkpoint_every_steps=3)
    with monkeypatch.context() as patch:
        cut_after(4, patch)
        with pytest.raises(PowerCutError):
            run(config)
    result = run(config).result
    rows = read_rows(config.run_dir)
    seconds, speeds = ([float(row[name]) for row in rows] for name in ("seconds", "tokens_per_second"))
    # One step was left, which traced; two steps before it tell the speed.
    assert result.step_seconds_median == pytest.approx((seconds[2] - seconds[0]) / 2, rel=1e-9)
    assert result.tokens_per_second == pytest.approx((speeds[1] + speeds[2]) / 2, rel=1e-9)
    assert result.tokens == 4 * 4 * 32
    assert result.train_seconds == seconds[-1]
