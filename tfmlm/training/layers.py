"""What layers of the Hugging Face models compute in another way here: dropout, gelu, and gradients."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import compress
from typing import Any

import tensorflow as tf
from transformers import TFPreTrainedModel
from transformers.activations_tf import ACT2FN

from tfmlm.errors import UserError
from tfmlm.training.heads import BRANCHING

# === Dropout ===


_LEVELS = 2**16
"""Each 32-bit random word decides on two values, each at 16 bits: half as much noise to compute."""


class StatelessNoise:
    """Stands in for the random generator of all dropout layers of a model.

    Attributes:
        num_calls: of `dropout` since the step began; each has noise of its own.
    """

    def __init__(self) -> None:
        self._seed = tf.constant([0, 0], tf.int64)
        self.num_calls = 0

    def begin(self, seed: tf.Tensor) -> None:
        """Starts a step, while its graph is traced; `seed` is int64 [2]."""
        self._seed = seed
        self.num_calls = 0

    @contextmanager
    def replay(self, num_calls: int, zero: tf.Tensor) -> Iterator[None]:
        """Within it comes the noise that came after `num_calls` calls; after it, what would have come anyway.

        Args:
            num_calls: what the attribute of this name was, earlier in this step.
            zero: [], any float dtype; the noise waits for what it hangs on. Noise that waited for nothing
                would be the same operation as the earlier one, so TensorFlow would keep that one's values.
        """
        seed, all_calls = self._seed, self.num_calls
        self._seed, self.num_calls = seed + tf.cast(zero, tf.int64), num_calls
        yield
        self._seed, self.num_calls = seed, max(all_calls, self.num_calls)

    def _maybe_init(self) -> None:
        """Keras calls it when it builds a layer; there is nothing to make."""

    def dropout(self, inputs: tf.Tensor, rate: float, noise_shape: tf.Tensor | None = None) -> tf.Tensor:
        """Zeroes values with probability `rate`, rounded to 1 / 65,536, and scales the others up.

        Args:
            inputs: any shape and float dtype.
            rate: below 1.
            noise_shape: broadcast shape of the noise; that of the inputs if there is none.
        """
        shape = tf.shape(inputs) if noise_shape is None else noise_shape
        num_values = tf.reduce_prod(shape)
        seed = tf.random.fold_in(self._seed, self.num_calls)
        self.num_calls += 1
        words = tf.random.stateless_uniform(
            [(num_values + 1) // 2], seed, minval=None, maxval=None, dtype=tf.uint32
        )
        noise = tf.reshape(tf.reshape(tf.bitcast(words, tf.int16), [-1])[:num_values], shape)
        num_dropped = round(rate * _LEVELS)
        is_kept = noise >= tf.constant(num_dropped - _LEVELS // 2, tf.int16)
        scale = _LEVELS / (_LEVELS - num_dropped)
        return inputs * tf.cast(scale, inputs.dtype) * tf.cast(is_kept, inputs.dtype)


def make_dropout_stateless(model: tf.keras.Model) -> StatelessNoise:
    """Gives every dropout layer of a model the same source of noise, and returns it."""
    noise = StatelessNoise()
    for layer in model.submodules:
        if isinstance(layer, tf.keras.layers.Dropout):
            layer._random_generator = noise  # noqa: SLF001 the layer has no public place for it
        elif hasattr(layer, "xdropout"):  # DeBERTa's own class, which draws from no generator at all
            layer.xdropout = partial(noise.dropout, rate=layer.drop_prob)
    return noise


# === Activation ===


def compute_gelu_in_float32(model: tf.keras.Model) -> None:
    """Replaces the gelu of every layer that keeps its activation as an attribute."""
    gelu = ACT2FN["gelu"]
    for layer in model.submodules:
        for name, value in list(vars(layer).items()):
            if value is gelu:
                setattr(layer, name, _gelu)


def _gelu(values: tf.Tensor) -> tf.Tensor:
    """Gelu of any float dtype, in that dtype."""
    return tf.cast(tf.nn.gelu(tf.cast(values, tf.float32)), values.dtype)


# === Recomputation ===

_OTHER_LAYERS = {"distilbert": "TFTransformerBlock"}
"""Classes of a transformer layer that are not named after their model."""

WITHOUT_LAYERS = ("flaubert", "xlm")
"""`model_type`s that have no class of a whole layer."""


def check_rematerialized(model_type: str) -> None:
    """Checks that a type of models is made of layers that can be computed again.

    Raises:
        UserError: it is not.
    """
    if model_type in WITHOUT_LAYERS:
        raise UserError(
            f"train.rematerialize is true, and TensorFlow's {model_type} has no layers to compute again; "
            "set it to false (train.gradient_accumulation_steps saves memory too)"
        )


def rematerialize(model: TFPreTrainedModel, noise: StatelessNoise) -> None:
    """Has each transformer layer keep its inputs alone in training, and compute the rest again for gradients.

    Args:
        model: passes `check_rematerialized`; its dropout draws from `noise`.
        noise: is the same in both computations.
    """
    name = _OTHER_LAYERS.get(
        model.config.model_type, type(model).__name__.removesuffix("ForMaskedLM") + "Layer"
    )
    layers = [layer for layer in model.submodules if type(layer).__name__ == name]
    assert layers, name
    for layer in layers:
        call = type(layer).call
        if model.config.model_type in BRANCHING:  # Keras converts no call that is already wrapped
            call = tf.autograph.to_graph(call)
        layer.call = _compute_twice(partial(call, layer), noise)


def _compute_twice(call: Callable[..., Any], noise: StatelessNoise) -> Callable[..., Any]:
    """`call` of a layer, whose inner values are not kept for the backward pass.

    `tf.recompute_grad` takes and gives nothing but tensors, and differentiates by all that it takes: those of
    floats. What else there is among the arguments is the same in both computations.
    """
    signature = inspect.signature(call)

    def call_twice(*args: Any, **kwargs: Any) -> Any:
        arguments = signature.bind(*args, **kwargs).arguments
        if not arguments.get("training"):
            return call(*args, **kwargs)
        inputs = tf.nest.flatten(arguments)
        is_float = [tf.is_tensor(value) and value.dtype.is_floating for value in inputs]
        num_calls = noise.num_calls
        outputs: Any = None

        def compute(zero: tf.Tensor, *floats: tf.Tensor) -> list[tf.Tensor]:
            nonlocal outputs
            values = iter(floats)
            mixed = [next(values) if given else old for old, given in zip(inputs, is_float, strict=True)]
            with noise.replay(num_calls, zero):
                outputs = call(**tf.nest.pack_sequence_as(arguments, mixed))
            return [output for output in tf.nest.flatten(outputs) if output is not None]

        floats = compress(inputs, is_float)
        tensors = iter(tf.recompute_grad(compute)(tf.constant(0.0), *floats))
        return tf.nest.map_structure(lambda output: None if output is None else next(tensors), outputs)

    converted: Callable[..., Any] = tf.autograph.experimental.do_not_convert(call_twice)
    return converted
