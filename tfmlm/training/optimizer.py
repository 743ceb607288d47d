"""AdamWeightDecay and its learning-rate schedule."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import transformers

from tfmlm.config import OptimizerConfig

NOT_DECAYED = (r"(^|/)(bias|gamma|beta)(:\d+)?$",)
"""Whole last names of the variables that do not decay: biases, and layer normalization's scale and shift.

The stock lists are substring tests, so that `bias` also exempts MPNet's `relative_attention_bias/embeddings`.
"""


class AdamWeightDecay(transformers.AdamWeightDecay):
    """The Hugging Face optimizer, whose configuration keeps its include and exclude lists.

    The stock `get_config` forgets them, and after a reload biases and layer normalization decay.
    """

    def get_config(self) -> dict[str, Any]:
        """Everything that `from_config` needs."""
        config: dict[str, Any] = super().get_config()
        return config | {
            "include_in_weight_decay": self._include_in_weight_decay,
            "exclude_from_weight_decay": self._exclude_from_weight_decay,
        }


class WarmupDecay(tf.keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up from zero, then linear decay to zero or a constant rate.

    `total_steps` is a variable, so that a time budget can move the end while training runs.
    """

    def __init__(self, peak: float, warmup_steps: int, total_steps: int, schedule: str) -> None:
        self.peak = peak
        self.warmup_steps = warmup_steps
        self.schedule = schedule
        self.total_steps = tf.Variable(total_steps, dtype=tf.int64, trainable=False, name="total_steps")

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        """Learning rate, float32 [], of the update number `step` (from 0)."""
        step = tf.cast(step, tf.float32)
        total = tf.cast(self.total_steps, tf.float32)
        warmup = tf.constant(self.warmup_steps, tf.float32)
        # The first update already moves: step 0 gets peak / warmup_steps, not 0.
        rising = tf.math.divide_no_nan(step + 1.0, warmup)
        if self.schedule == "constant":
            falling = tf.constant(1.0)
        else:
            falling = (total - step) / tf.maximum(total - warmup, 1.0)
        return self.peak * tf.where(step < warmup, rising, tf.clip_by_value(falling, 0.0, 1.0))

    def get_config(self) -> dict[str, Any]:
        """Everything that `from_config` needs."""
        return {
            "peak": self.peak,
            "warmup_steps": self.warmup_steps,
            "total_steps": int(self.total_steps),
            "schedule": self.schedule,
        }


def make_optimizer(config: OptimizerConfig, total_steps: int) -> AdamWeightDecay:
    """Builds the optimizer of a run; clipping is the training step's, which sees the global gradient."""
    return AdamWeightDecay(
        learning_rate=WarmupDecay(config.learning_rate, config.warmup_steps, total_steps, config.schedule),
        weight_decay_rate=config.weight_decay,
        exclude_from_weight_decay=list(NOT_DECAYED),
    )
