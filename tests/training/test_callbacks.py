"""Evaluations during training: when, which weights a run ends with, and when it stops."""

import csv
import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from tests.finished import Finished
from tests.tiny_run import make_config
from tfmlm.config import Config, TrainConfig
from tfmlm.config.cross_checks import check_config
from tfmlm.errors import UserError
from tfmlm.run import evaluate_folder, run
from tfmlm.training.callbacks import make_due_check


def due_steps(train: TrainConfig, num_blocks: int | None, stride: int = 1) -> list[int]:
    is_due = make_due_check(
        train.evaluate_every_steps, train.evaluate_each_epoch, num_blocks, blocks_per_step=4
    )
    steps = range(0, 31, stride)
    return [step for last, step in pairwise(steps) if is_due(last, step)]


def test_every_so_many_steps() -> None:
    assert due_steps(TrainConfig(evaluate_every_steps=10), 100) == [10, 20, 30]
    assert due_steps(TrainConfig(evaluate_every_steps=10), None) == [10, 20, 30]


def test_each_epoch_at_the_step_that_ends_it() -> None:
    assert due_steps(TrainConfig(evaluate_each_epoch=True), 30) == [8, 15, 23, 30]


def test_several_steps_at_once_pass_over_no_evaluation() -> None:
    assert due_steps(TrainConfig(evaluate_every_steps=10), 100, stride=6) == [12, 24, 30]


def test_not_unless_asked_for() -> None:
    assert due_steps(TrainConfig(), 10) == []


@pytest.mark.parametrize("wanted", [{"keep": "best"}, {"early_stopping_patience": 2}])
def test_choosing_needs_evaluations(wanted: dict[str, object], tmp_path: Path, text_file: Path) -> None:
    with pytest.raises(UserError, match="needs evaluations during training"):
        check_config(make_config(tmp_path, text_file, **wanted))


def read_evaluations(config: Config) -> dict[int, float]:
    with (config.run_dir / "logs" / "metrics.csv").open() as file:
        return {int(row["step"]): float(row["eval_loss"]) for row in csv.DictReader(file) if row["eval_loss"]}


@pytest.fixture
def rising(tmp_path: Path, text_file: Path) -> Config:
    """A run whose held-out loss rises ever more, because its learning rate does, beyond all reason."""
    config = make_config(tmp_path, text_file, max_steps=40, evaluate_every_steps=4, epochs=20)
    rate = {"learning_rate": 3.0, "warmup_steps": 40, "schedule": "constant"}
    return replace(config, optimizer=replace(config.optimizer, **rate))


def test_the_best_weights_are_kept(rising: Config, tmp_path: Path) -> None:
    best = replace(rising, train=replace(rising.train, keep="best"))
    finished = run(best)
    losses = read_evaluations(best)
    assert list(losses) == list(range(0, 41, 4))
    during = {step: loss for step, loss in losses.items() if step}
    best_step = min(during, key=lambda step: during[step])
    assert best_step < 40
    assert finished.result.eval_loss == pytest.approx(losses[best_step], rel=1e-9)
    assert f"the weights are those of step {best_step}, the best" in finished.result.notes
    assert evaluate_folder(str(best.run_dir), []).loss == pytest.approx(losses[best_step], rel=1e-9)
    (kept,) = (best.run_dir / "checkpoints").glob("best-*")
    assert kept.name == f"best-{best_step:08d}"


def test_training_stops_when_nothing_gets_better(rising: Config) -> None:
    patient = replace(rising, train=replace(rising.train, early_stopping_patience=2))
    finished = run(patient)
    losses = {step: loss for step, loss in read_evaluations(patient).items() if step}
    best_step = min(losses, key=lambda step: losses[step])
    assert finished.result.steps == best_step + 8 < 40


def test_accuracies_are_written(word_run: Finished) -> None:
    result = json.loads((word_run.run_dir / "result.json").read_text())
    assert 0 <= result["eval_top_1"] <= result["eval_top_5"] <= 1
    assert result["eval_top_5"] > 0
    assert sorted(path.stem for path in (word_run.run_dir / "plots").iterdir()) == [
        "learning_rate",
        "loss",
        "perplexity",
        "tokens_per_second",
    ]
