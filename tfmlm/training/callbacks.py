"""Keras callbacks of a run besides its log: stopping, checkpoints, evaluations, the time budget."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from contextlib import suppress
from statistics import median
from typing import Any

import tensorflow as tf

from tfmlm.config import Config
from tfmlm.errors import PreemptedError, UserError
from tfmlm.results import Evaluation
from tfmlm.signals import StopFlag
from tfmlm.training.checkpoint import TrainingCheckpoint
from tfmlm.training.masked_lm import MaskedLanguageModel
from tfmlm.training.optimizer import WarmupDecay
from tfmlm.training.run_log import RunLog

_PACE_STEPS = 50
"""Steps whose median time is the pace: enough to pass over a checkpoint, few enough to cost nothing."""


class StopWhenNotFinite(tf.keras.callbacks.Callback):
    """Ends the run at a loss or gradient that is not a number, before a checkpoint is written of it.

    float16 skips steps whose gradient overflows and lowers its loss scale, so there the loss alone counts.
    """

    def __init__(self, checkpoint: TrainingCheckpoint, log: RunLog, checked: tuple[str, ...]) -> None:
        super().__init__()
        self._checkpoint = checkpoint
        self._log = log
        self._checked = checked

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Checks the step's figures."""
        figures = logs or {}
        for name in self._checked:
            if not math.isfinite(figures[name]):
                self._checkpoint.wait()
                raise UserError(
                    f"{name.replace('_', ' ')} is {float(figures[name])} at step {self._log.step} with "
                    f"learning rate {float(figures['learning_rate']):.3g}; the last good checkpoint is "
                    f"{self._checkpoint.newest or 'not there yet'}; lower optimizer.learning_rate or raise "
                    "optimizer.warmup_steps"
                )


class StopTogether(tf.keras.callbacks.Callback):
    """Lets all workers stop at the same step, whichever of them was told to.

    A worker's own request goes into the sums of the next step or batch, and what counts is the sum: every
    worker reads the same. A worker that stopped by itself would leave the others waiting for it.

    Attributes:
        is_agreed: a sum has told of a request.
    """

    def __init__(self, told_to_end: StopFlag) -> None:
        super().__init__()
        self._told_to_end = told_to_end
        self.is_agreed = False

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Puts the request where the step reads it."""
        if self._told_to_end.stop_requested:
            self.model.stop_requests.assign(1)

    def on_test_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Puts the request where the batch reads it."""
        self.on_train_batch_begin(batch)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Reads the sum; the checkpoint is saved by the callback after."""
        self.is_agreed |= float((logs or {})["stop_requests"]) > 0

    def on_test_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Gives an evaluation up, which may take longer than the time that is left; it is done again."""
        self.on_train_batch_end(batch, logs)
        if self.is_agreed:
            raise PreemptedError(
                "told to end amid an evaluation; the same command goes on from what is saved"
            )


class SaveCheckpoints(tf.keras.callbacks.Callback):
    """Saves the training state every so many steps, after the last one, and when it is to stop."""

    def __init__(
        self, checkpoint: TrainingCheckpoint, log: RunLog, every_steps: int, stopping: StopTogether
    ) -> None:
        super().__init__()
        self._checkpoint = checkpoint
        self._log = log
        self._is_due = make_due_check(every_steps)
        self._stopping = stopping
        self._last_step = self._saved_step = log.step

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Saves when the step is due."""
        is_due = self._is_due(self._last_step, self._log.step)
        self._last_step = self._log.step
        if is_due or self._stopping.is_agreed:
            self._save()
        if self._stopping.is_agreed:
            self._checkpoint.wait()
            saved = "" if self._checkpoint.is_writer else " by the first worker"
            raise PreemptedError(
                f"told to end at step {self._log.step}, which was saved{saved}; "
                "the same command goes on from there"
            )

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Saves the last step: evaluating and exporting it may fail, and can then be done again."""
        if self._saved_step != self._log.step:
            self._save()
        self._checkpoint.wait()

    def _save(self) -> None:
        self._checkpoint.save(self._log.seconds)
        self._saved_step = self._log.step


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
        self._planned_steps = int(schedule.total_steps.numpy())

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Moves the end of the schedule, and stops at it."""
        if not self._log.step_seconds:  # the first step traces the graph and says nothing of the pace
            return
        seconds_left = self._max_seconds - self._log.seconds
        steps_left = int(seconds_left / median(self._log.step_seconds[-_PACE_STEPS:]))
        fitting_steps = self._log.step + max(steps_left, 0)
        self._schedule.total_steps.assign(min(self._planned_steps, max(fitting_steps, self._log.step)))
        if self._log.step >= int(self._schedule.total_steps.numpy()):
            self.model.stop_training = True


def make_callbacks(
    config: Config,
    model: MaskedLanguageModel,
    checkpoint: TrainingCheckpoint,
    log: RunLog,
    evaluating: EvaluateAndChoose,
    stopping: StopTogether,
) -> list[tf.keras.callbacks.Callback]:
    """The callbacks of a run, in the order in which they act on a step: the log first, checkpoints late."""
    schedule = model.optimizer.learning_rate
    callbacks = [stopping, log]
    if config.train.max_seconds:
        callbacks.append(KeepTimeBudget(schedule, log, config.train.max_seconds))
    checked = ("loss",) if config.train.precision == "float16" else ("loss", "gradient_norm")
    return [
        *callbacks,
        StopWhenNotFinite(checkpoint, log, checked),
        evaluating,
        SaveCheckpoints(checkpoint, log, config.train.checkpoint_every_steps, stopping),
    ]


# === Evaluations during training ===


_LOGGER = logging.getLogger(__name__)


class EvaluateAndChoose(tf.keras.callbacks.Callback):
    """Evaluates at the chosen steps, keeps the best weights, and stops when nothing gets better."""

    def __init__(
        self,
        evaluate: Callable[[], Evaluation],
        is_due: Callable[[int, int], bool],
        checkpoint: TrainingCheckpoint,
        log: RunLog,
        patience: int | None,
    ) -> None:
        super().__init__()
        self._evaluate = evaluate
        self._is_due = is_due
        self._checkpoint = checkpoint
        self._log = log
        self._patience = patience

    def catch_up(self) -> None:
        """Evaluates the step that the training goes on from, if it was to end amid that."""
        if self._is_due(int(self._checkpoint.evaluated_step), self._log.step):
            self._evaluate_and_choose()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Evaluates when the step is due; the time of it is not training's."""
        if not self._is_due(int(self._checkpoint.evaluated_step), self._log.step):
            return
        # Told to end amid it: the step is saved next, and its evaluation is done when the run goes on.
        with suppress(PreemptedError):
            self._evaluate_and_choose()
            if self._checkpoint.is_stale(self._patience):
                self.model.stop_training = True
            self._log.restart_clock()

    def _evaluate_and_choose(self) -> None:
        evaluation = self._evaluate()
        self._checkpoint.evaluated_step.assign(self._log.step)
        self._log.add_evaluation(evaluation)
        _LOGGER.info("perplexity at step %d: %.2f", self._log.step, evaluation.perplexity)
        if evaluation.loss < float(self._checkpoint.best_loss):
            self._checkpoint.stale_evaluations.assign(0)
            self._checkpoint.save_best(evaluation.loss)
        else:
            self._checkpoint.stale_evaluations.assign_add(1)


def make_due_check(
    every_steps: int | None,
    each_epoch: bool = False,
    num_blocks: int | None = None,
    blocks_per_step: int = 1,
) -> Callable[[int, int], bool]:
    """Makes a function that says if something is due, given the last step looked at and the present one.

    Args:
        every_steps: due at each multiple of it.
        each_epoch: due at the step that ends an epoch.
        num_blocks: blocks of an epoch; a stream's are not known.
        blocks_per_step: blocks of a step.
    """

    def is_due(last: int, step: int) -> bool:
        at_step = every_steps is not None and step // every_steps > last // every_steps
        if not each_epoch or not num_blocks:
            return at_step
        epochs, last_epochs = (number * blocks_per_step // num_blocks for number in (step, last))
        return at_step or epochs > last_epochs

    return is_due
