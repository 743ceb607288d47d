"""Saves and restores the training state."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

from tfmlm.training.masked_lm import MaskedLanguageModel

_KEPT = 2
"""Checkpoints on disk: the newest, and the one before it."""


class TrainingCheckpoint:
    """The model's weights, the optimizer with its slots and its step, and the seconds trained so far.

    Data order and masks are functions of the seed and the step, so the step is their state too.
    """

    def __init__(self, model: MaskedLanguageModel, folder: Path) -> None:
        self._optimizer = model.optimizer
        self.seconds = tf.Variable(0.0, dtype=tf.float64, trainable=False, name="seconds")
        checkpoint = tf.train.Checkpoint(model=model.model, optimizer=model.optimizer, seconds=self.seconds)
        self._manager = tf.train.CheckpointManager(checkpoint, str(folder), max_to_keep=_KEPT)

    def restore(self) -> int:
        """Restores the newest checkpoint, if there is one; returns the step, 0 for a new run."""
        if self._manager.latest_checkpoint:
            self._manager.checkpoint.restore(self._manager.latest_checkpoint)
        return int(self._optimizer.iterations)

    def save(self, seconds: float) -> None:
        """Writes a checkpoint named by the step."""
        self.seconds.assign(seconds)
        self._manager.save(checkpoint_number=int(self._optimizer.iterations))
