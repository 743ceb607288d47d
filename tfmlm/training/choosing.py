"""Evaluations during training: when, which weights are the best, and when to stop."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfmlm.training.checkpoint import TrainingCheckpoint
from tfmlm.training.evaluate import Evaluation
from tfmlm.training.run_log import RunLog

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
        self._last_step = log.step

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Evaluates when the step is due; the time of it is not training's."""
        is_due = self._is_due(self._last_step, self._log.step)
        self._last_step = self._log.step
        if not is_due:
            return
        evaluation = self._evaluate()
        self._log.add_evaluation(evaluation)
        _LOGGER.info("perplexity at step %d: %.2f", self._log.step, evaluation.perplexity)
        if evaluation.loss < float(self._checkpoint.best_loss):
            self._checkpoint.stale_evaluations.assign(0)
            self._checkpoint.save_best(evaluation.loss)
        else:
            self._checkpoint.stale_evaluations.assign_add(1)
        if self._checkpoint.is_stale(self._patience):
            self.model.stop_training = True
        self._log.restart_clock()


def make_due_check(
    every_steps: int | None, each_epoch: bool, num_blocks: int | None, blocks_per_step: int
) -> Callable[[int, int], bool]:
    """Whether something is due, given the last step that was looked at and the present one.

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
