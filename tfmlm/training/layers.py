"""Two layers of the Hugging Face models that compute in another way here: dropout and, on a CPU, gelu."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import tensorflow as tf
from transformers.activations_tf import ACT2FN

# === Dropout ===


_LEVELS = 2**16
"""Each 32-bit random word decides on two values, each at 16 bits: half as much noise to compute."""


class StatelessNoise:
    """Stands in for the random generator of all dropout layers of a model."""

    def __init__(self) -> None:
        self._seed = tf.constant([0, 0], tf.int64)
        self.num_calls = 0

    def begin(self, seed: tf.Tensor) -> None:
        """Starts a step, while its graph is traced; `seed` is int64 [2]."""
        self._seed = seed
        self.num_calls = 0

    @contextmanager
    def again(self, num_calls: int, zero: tf.Tensor) -> Iterator[None]:
        """Gives the noise that came after so many calls of this step, and then goes on as if it had not."""
        seed, done = self._seed, self.num_calls
        self._seed, self.num_calls = seed + tf.cast(zero, tf.int64), num_calls
        yield
        self._seed, self.num_calls = seed, max(done, self.num_calls)

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


# === Memory ===


def rematerialize(model: tf.keras.Model, noise: StatelessNoise) -> None:
    layers = [layer for layer in model.submodules if type(layer).__name__ == _name_layer(model)]
    for layer in layers:
        converted = tf.autograph.to_graph(layer.call.__func__)
        layer.call = _recompute(layer.call, partial(converted, layer), noise)


def _name_layer(model):
    if model.config.model_type == "distilbert":
        return "TFTransformerBlock"
    return type(model).__name__.removesuffix("ForMaskedLM") + "Layer"


def _recompute(call: Callable[..., Any], converted, noise: StatelessNoise) -> Callable[..., Any]:
    @tf.autograph.experimental.do_not_convert
    def call_twice(*args: Any, **kwargs: Any) -> Any:
        if not kwargs.get("training"):
            return call(*args, **kwargs)
        leaves = tf.nest.flatten((args, kwargs))
        is_float = [tf.is_tensor(leaf) and leaf.dtype.is_floating for leaf in leaves]
        num_calls = noise.num_calls
        outputs: Any = None

        def compute(zero: tf.Tensor, *floats: tf.Tensor) -> list[tf.Tensor]:
            nonlocal outputs
            left = iter(floats)
            mixed = [next(left) if here else leaf for leaf, here in zip(leaves, is_float, strict=True)]
            new_args, new_kwargs = tf.nest.pack_sequence_as((args, kwargs), mixed)
            with noise.again(num_calls, zero):
                outputs = converted(*new_args, **new_kwargs)
            return [leaf for leaf in tf.nest.flatten(outputs) if leaf is not None]

        floats = [leaf for leaf, here in zip(leaves, is_float, strict=True) if here]
        tensors = iter(tf.recompute_grad(compute)(tf.constant(0.0), *floats))
        return tf.nest.map_structure(lambda leaf: None if leaf is None else next(tensors), outputs)

    return call_twice
