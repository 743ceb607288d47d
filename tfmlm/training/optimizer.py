"""AdamWeightDecay, its learning-rate schedule, and which variables it trains at which rate."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import transformers

from tfmlm.config import ModelConfig, OptimizerConfig
from tfmlm.errors import UserError

# === How deep in the network a variable lies, read off its name ===


_EMBEDDINGS = re.compile(
    r"/(embeddings|embeddings_project|embedding_hidden_mapping_in|embed_positions|relative_attention_bias)/"
    r"|/rel_embeddings\b"
)
_LAYER = re.compile(r"/(?:layer|albert_layer_groups)_\._(\d+)/")


def measure_depths(variables: Sequence[tf.Variable]) -> dict[str, int]:
    """Depth by variable name: 0 for embeddings, n + 1 for layer n, one more than the last for the head.

    ALBERT's layers share their weights and count as one.
    """
    layers = {variable.name: _LAYER.search(variable.name) for variable in variables}
    top = 1 + max((int(match[1]) + 1 for match in layers.values() if match), default=0)
    return {
        name: 0 if _EMBEDDINGS.search(name) else int(match[1]) + 1 if match else top
        for name, match in layers.items()
    }


def choose_trained(variables: Sequence[tf.Variable], config: ModelConfig) -> list[tf.Variable]:
    """The variables that are not frozen, in order.

    Raises:
        UserError: more layers are to be frozen than there are.
    """
    depths = measure_depths(variables)
    num_layers = max(depths.values()) - 1
    if config.freeze_layers > num_layers:
        raise UserError(
            f"model.freeze_layers is {config.freeze_layers}, and the model has {num_layers} layers"
        )
    return [
        variable
        for variable in variables
        if (depths[variable.name] > 0 or not config.freeze_embeddings)
        and not 1 <= depths[variable.name] <= config.freeze_layers
    ]


def scale_by_depth(variables: Sequence[tf.Variable], layer_decay: float) -> dict[str, float]:
    """Factor of each variable's learning rate: 1 for the head, times `layer_decay` for each layer below.

    Raises:
        UserError: the names of the variables tell no layers apart.
    """
    depths = measure_depths(variables)
    top = max(depths.values())
    if top < 2:
        raise UserError(
            f"optimizer.layer_decay is {layer_decay}, and the layers of this model type cannot be told apart "
            "by their names; set optimizer.layer_decay=1"
        )
    return {name: layer_decay ** (top - depth) for name, depth in depths.items()}


# === Optimizer and schedule ===


NOT_DECAYED = (r"(^|/)([qv]_)?(bias|gamma|beta)(:\d+)?$", r"(^|/)LayerNorm/weight(:\d+)?$")
"""Whole last names of the variables that do not decay: biases, and layer normalization's scale and shift.

`q_bias` and `v_bias` are DeBERTa's; MobileBERT's normalization has a `weight`.

The stock lists are substring tests, so that `bias` also exempts MPNet's `relative_attention_bias/embeddings`.
"""


class AdamWeightDecay(transformers.AdamWeightDecay):
    """The Hugging Face optimizer, whose configuration keeps its include and exclude lists.

    The stock `get_config` forgets them, and after a reload biases and layer normalization decay.
    """

    def __init__(self, *args: Any, rate_scales: dict[str, float] | None = None, **kwargs: Any) -> None:
        """As the stock one; `rate_scales` multiplies the learning rate of variables, by their names."""
        super().__init__(*args, **kwargs)
        self._rate_scales = rate_scales or {}

    def get_config(self) -> dict[str, Any]:
        """Everything that `from_config` needs."""
        config: dict[str, Any] = super().get_config()
        return config | {
            "include_in_weight_decay": self._include_in_weight_decay,
            "exclude_from_weight_decay": self._exclude_from_weight_decay,
            "rate_scales": self._rate_scales,
        }

    def _resource_apply_dense(
        self, grad: tf.Tensor, var: tf.Variable, apply_state: dict[Any, Any] | None = None
    ) -> tf.Operation:
        scale = self._rate_scales.get(var.name, 1.0)
        if scale != 1.0:
            state = apply_state or {}
            apply_state = {key: values | _scale_rates(values, scale) for key, values in state.items()}
        return super()._resource_apply_dense(grad, var, apply_state)


def _scale_rates(coefficients: dict[str, tf.Tensor], scale: float) -> dict[str, tf.Tensor]:
    return {name: coefficients[name] * scale for name in ("lr_t", "lr") if name in coefficients}


class WarmupDecay(tf.keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up from zero, then decay to zero, a constant rate, or one and then the other.

    `total_steps` is a variable, so that a time budget can move the end while training runs.
    """

    def __init__(
        self,
        peak: float,
        warmup_steps: int,
        total_steps: int,
        schedule: str,
        power: float = 1.0,
        decay_ratio: float = 1.0,
    ) -> None:
        self.peak = peak
        self.power = power
        self.decay_ratio = decay_ratio
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
        left = tf.clip_by_value((total - step) / tf.maximum(total - warmup, 1.0), 0.0, 1.0)
        return self.peak * tf.where(step < warmup, rising, self._fall(left))

    def _fall(self, left: tf.Tensor) -> tf.Tensor:
        """Share of the peak when the share `left` of the steps after the warm-up is still to come."""
        if self.schedule == "constant":
            return tf.ones_like(left)
        if self.schedule == "cosine":
            return 0.5 - 0.5 * tf.cos(math.pi * left)
        if self.schedule == "stable":  # warmup-stable-decay, https://arxiv.org/abs/2404.06395, section 4
            return tf.minimum(left / self.decay_ratio, 1.0)
        return left**self.power if self.schedule == "polynomial" else left

    def get_config(self) -> dict[str, Any]:
        """Everything that `from_config` needs."""
        return {
            "peak": self.peak,
            "warmup_steps": self.warmup_steps,
            "total_steps": int(self.total_steps.numpy()),
            "schedule": self.schedule,
            "power": self.power,
            "decay_ratio": self.decay_ratio,
        }


_LEAST_RATE = 1e-9
"""A smaller rate moves no float32 weight of usual size by its last bit in many steps."""


def count_warmup_steps(config: OptimizerConfig, total_steps: int) -> int:
    """Steps of the warm-up of a run of so many."""
    return config.warmup_steps or round(config.warmup_ratio * total_steps)


def describe_rates(config: OptimizerConfig, total_steps: int, variables: Sequence[tf.Variable]) -> list[str]:
    """Notes on learning rates that are never what the configuration says, or nothing.

    Args:
        config: rates and schedule.
        total_steps: optimizer steps of the run.
        variables: the model's.
    """
    notes = []
    if config.warmup_steps >= total_steps:
        notes.append(
            f"optimizer.warmup_steps is {config.warmup_steps} and the run has {total_steps} steps, so the "
            f"rate never reaches {config.learning_rate:g}"
        )
    if config.learning_rate * config.weight_decay >= 1:
        notes.append(
            f"optimizer.learning_rate {config.learning_rate:g} times optimizer.weight_decay "
            f"{config.weight_decay:g} is 1 or more: a step leaves nothing of the weights"
        )
    warmup_steps = count_warmup_steps(config, total_steps)
    highest = config.learning_rate * min(1.0, total_steps / max(warmup_steps, 1))
    if highest < _LEAST_RATE:
        notes.append(f"the learning rate is {highest:g} at most, which changes next to nothing")
    elif config.layer_decay != 1:
        lowest = highest * min(scale_by_depth(variables, config.layer_decay).values())
        if lowest < _LEAST_RATE:
            notes.append(
                f"optimizer.layer_decay leaves the lowest layers a learning rate of {lowest:g}, which "
                "changes next to nothing"
            )
    return notes


def make_optimizer(
    config: OptimizerConfig, total_steps: int, variables: Sequence[tf.Variable] = ()
) -> AdamWeightDecay:
    """Builds the optimizer of a run; clipping is the training step's, which sees the global gradient.

    Args:
        config: rates, decay and schedule.
        total_steps: the schedule's end.
        variables: all of the model's, whose names tell the layers for `optimizer.layer_decay`.
    """
    return AdamWeightDecay(
        learning_rate=WarmupDecay(
            config.learning_rate,
            count_warmup_steps(config, total_steps),
            total_steps,
            config.schedule,
            config.polynomial_power,
            config.decay_ratio,
        ),
        beta_1=config.beta1,
        beta_2=config.beta2,
        epsilon=config.epsilon,
        weight_decay_rate=config.weight_decay,
        exclude_from_weight_decay=list(NOT_DECAYED),
        rate_scales=scale_by_depth(variables, config.layer_decay) if config.layer_decay != 1 else None,
    )
