"""Two layers of the Hugging Face models that compute in another way here: dropout and, on a CPU, gelu."""

from __future__ import annotations

from functools import partial

import tensorflow as tf
from transformers.activations_tf import ACT2FN

# === Dropout ===


_LEVELS = 2**16
"""Each 32-bit random word decides on two values, each at 16 bits: half as much noise to compute."""


class StatelessNoise:
    """Stands in for the random generator of all dropout layers of a model."""

    def __init__(self) -> None:
        self._seed = tf.constant([0, 0], tf.int64)
        self._num_calls = 0

    def begin(self, seed: tf.Tensor) -> None:
        """Starts a step, while its graph is traced; `seed` is int64 [2]."""
        self._seed = seed
        self._num_calls = 0

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
        seed = tf.random.fold_in(self._seed, self._num_calls)
        self._num_calls += 1
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
