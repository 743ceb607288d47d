"""Keras callbacks of a run: the log, the checkpoints, the time budget, and the progress bar."""

from __future__ import annotations

import csv
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import tensorflow as tf
from tqdm import tqdm

from tfmlm.config import Config
from tfmlm.training.checkpoint import TrainingCheckpoint
from tfmlm.training.masked_lm import MaskedLanguageModel
from tfmlm.training.optimizer import WarmupDecay

_PACE_STEPS = 50
"""Steps whose median time is the pace: enough to pass over a checkpoint, few enough to cost nothing."""

_FIELDS = (
    "step",
    "loss",
    "learning_rate",
    "masked_tokens",
    "overflow",
    "tokens_per_second",
    "seconds",
)


class RunLog(tf.keras.callbacks.Callback):
    """Writes one row a step to `metrics.csv` and to TensorBoard, and keeps the steps' times.

    Attributes:
        step: the last finished step.
        seconds: wall-clock seconds of training, resumed parts included.
        step_seconds: seconds of each step of this process but the first, which traces the graph.
    """

    def __init__(self, logs_dir: Path, first_step: int, seconds: float, tokens_per_step: int) -> None:
        super().__init__()
        self.step = first_step
        self.seconds = seconds
        self.step_seconds: list[float] = []
        self.overflow = 0
        self.tokens_per_step = tokens_per_step
        logs_dir.mkdir(parents=True, exist_ok=True)
        rows = _read_rows_until(logs_dir / "metrics.csv", first_step)
        self._file = (logs_dir / "metrics.csv").open("w", newline="")
        self._csv = csv.DictWriter(self._file, _FIELDS)
        self._csv.writeheader()
        self._csv.writerows(rows)
        self._tensorboard = tf.summary.create_file_writer(str(logs_dir))

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Starts the clock."""
        self._last_time = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Adds the step's row."""
        now = time.perf_counter()
        elapsed, self._last_time = now - self._last_time, now
        self.step += 1
        self.seconds += elapsed
        if batch > 0:
            self.step_seconds.append(elapsed)
        row = {name: float(value) for name, value in (logs or {}).items()}
        self.overflow += int(row["overflow"])
        row |= {"tokens_per_second": self.tokens_per_step / elapsed, "seconds": self.seconds}
        self._csv.writerow(row | {"step": self.step})
        with self._tensorboard.as_default(step=self.step):
            for name, value in row.items():
                tf.summary.scalar(name, value)

    def close(self) -> None:
        """Closes the files."""
        self._file.close()
        self._tensorboard.close()

    @property
    def step_seconds_median(self) -> float:
        """Median seconds of a step; of the only one, tracing included, in a run of one step."""
        return median(self.step_seconds) if self.step_seconds else self.seconds


def _read_rows_until(path: Path, last_step: int) -> list[dict[str, str]]:
    """Rows that an interrupted run wrote, without those after the checkpoint it resumes from."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["seconds"] and int(row["step"]) <= last_step]


class SaveCheckpoints(tf.keras.callbacks.Callback):
    """Saves the training state every so many steps."""

    def __init__(self, checkpoint: TrainingCheckpoint, log: RunLog, every_steps: int) -> None:
        super().__init__()
        self._checkpoint = checkpoint
        self._log = log
        self._every_steps = every_steps

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Saves when the step is due."""
        if self._log.step % self._every_steps == 0:
            self._checkpoint.save(self._log.seconds)


class KeepTimeBudget(tf.keras.callbacks.Callback):
    """Ends training after about `max_seconds`, with the learning rate at its end too.

    After each step the recent pace tells how many steps fit; that number, if it is below the planned one,
    becomes the end of the schedule. Near the end the estimate is exact, so the rate reaches zero in time.
    """

    def __init__(self, schedule: WarmupDecay, log: RunLog, max_seconds: float) -> None:
        super().__init__()
        self._schedule = schedule
        self._log = log
        self._max_seconds = max_seconds
        self._planned_steps = int(schedule.total_steps)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Moves the end of the schedule, and stops at it."""
        if not self._log.step_seconds:  # the first step traces the graph and says nothing of the pace
            return
        seconds_left = self._max_seconds - self._log.seconds
        steps_left = int(seconds_left / median(self._log.step_seconds[-_PACE_STEPS:]))
        fitting_steps = self._log.step + max(steps_left, 0)
        self._schedule.total_steps.assign(min(self._planned_steps, max(fitting_steps, self._log.step)))
        if self._log.step >= int(self._schedule.total_steps):
            self.model.stop_training = True


class ProgressBar(tf.keras.callbacks.Callback):
    """Shows loss, tokens/s and the time left: a bar on a terminal, else a line now and then."""

    def __init__(self, schedule: WarmupDecay, log: RunLog) -> None:
        super().__init__()
        self._schedule = schedule
        self._log = log
        self._bar = tqdm(disable=True)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Draws the bar."""
        self._bar = tqdm(
            desc="training",
            total=int(self._schedule.total_steps),
            initial=self._log.step,
            unit="step",
            # Every 20 s is enough for a log file; a terminal is refreshed ten times a second.
            mininterval=0.1 if sys.stderr.isatty() else 20.0,
            bar_format="{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} {remaining} left{postfix}",
            dynamic_ncols=True,
        )

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Moves the bar."""
        seconds = self._log.step_seconds[-1] if self._log.step_seconds else self._log.seconds
        tokens_per_second = self._log.tokens_per_step / seconds
        self._bar.total = int(self._schedule.total_steps)
        self._bar.set_postfix_str(
            f"loss {float((logs or {})['loss']):.3f}, {tokens_per_second:,.0f} tokens/s",
            refresh=False,
        )
        self._bar.update()

    def close(self) -> None:
        """Ends the bar's line, finished or not: an error's line must not be written behind it."""
        self._bar.close()


def make_callbacks(
    config: Config, model: MaskedLanguageModel, checkpoint: TrainingCheckpoint, log: RunLog
) -> list[tf.keras.callbacks.Callback]:
    """The callbacks of a run, in the order in which they act on a step: the log first."""
    schedule = model.optimizer.learning_rate
    callbacks = [log]
    if config.train.max_seconds:
        callbacks.append(KeepTimeBudget(schedule, log, config.train.max_seconds))
    save = SaveCheckpoints(checkpoint, log, config.train.checkpoint_every_steps)
    return [*callbacks, save]
