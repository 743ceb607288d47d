"""bfloat16 computes gelu in float32: exact to bfloat16's own rounding, in every architecture."""

import numpy as np
import pytest
import tensorflow as tf
from transformers.activations_tf import ACT2FN

from tests.tiny import TINY_CONFIGS
from tests.tiny_model import make_tiny
from tfmlm.training.layers import compute_gelu_in_float32


@pytest.mark.parametrize("model_type", TINY_CONFIGS)
def test_every_layer_is_replaced_and_float32_stays_the_same(model_type: str) -> None:
    model = make_tiny(model_type)
    inputs = {"input_ids": tf.constant([[0, 5, 6, 2]]), "attention_mask": tf.ones([1, 4], tf.int32)}
    before = model(**inputs).logits.numpy()
    compute_gelu_in_float32(model)
    kept = [
        layer.name
        for layer in model.submodules
        if any(value is ACT2FN["gelu"] for value in vars(layer).values())
    ]
    assert kept == []
    np.testing.assert_array_equal(model(**inputs).logits.numpy(), before)


def test_is_as_exact_as_bfloat16_can_be() -> None:
    model = make_tiny("bert")
    compute_gelu_in_float32(model)
    gelu = model.bert.encoder.layer[0].intermediate.intermediate_act_fn
    values = tf.cast(tf.linspace(-6.0, 6.0, 1001), tf.bfloat16)
    exact = tf.nn.gelu(tf.cast(values, tf.float64))
    assert gelu(values).dtype == tf.bfloat16
    np.testing.assert_array_equal(
        tf.cast(gelu(values), tf.float32),
        tf.cast(tf.cast(tf.cast(exact, tf.float32), tf.bfloat16), tf.float32),
    )
