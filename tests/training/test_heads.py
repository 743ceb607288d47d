"""Logits at chosen positions equal the full model's there, for every architecture."""

import numpy as np
import pytest
import tensorflow as tf

from tests.tiny import OTHER_TINY_CONFIGS, TINY_CONFIGS, make_tiny, without_dropout
from tfmlm.training.heads import ARCHITECTURES, compute_logits_at


def make_inputs() -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    rng = np.random.default_rng(0)
    attention_mask = np.ones((3, 16), np.int32)
    attention_mask[2, 9:] = 0
    return (
        tf.constant(rng.integers(5, 60, (3, 16)), tf.int32),
        tf.constant(attention_mask),
        tf.constant([1, 5, 16, 33, 47]),
    )


def test_every_tiny_configuration_is_tested() -> None:
    assert set(ARCHITECTURES) == set(TINY_CONFIGS)


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_equals_full_logits_and_gradients(model_type: str) -> None:
    model = make_tiny(model_type, **without_dropout(model_type))
    input_ids, attention_mask, indices = make_inputs()
    direction = tf.random.stateless_normal([5, 60], seed=(1, 2))

    def differentiate(compute: tf.types.experimental.GenericFunction) -> tuple[tf.Tensor, list[tf.Tensor]]:
        with tf.GradientTape() as tape:
            logits = compute()
            loss = tf.reduce_sum(logits * direction)
        gradients = tape.gradient(loss, model.trainable_variables, unconnected_gradients="zero")
        return logits, [tf.convert_to_tensor(gradient) for gradient in gradients]

    def full() -> tf.Tensor:
        logits = model(input_ids, attention_mask=attention_mask, training=True).logits
        return tf.gather(tf.reshape(logits, [-1, 60]), indices)

    ours = differentiate(lambda: compute_logits_at(model, input_ids, attention_mask, indices, training=True))
    expected = differentiate(full)
    np.testing.assert_allclose(ours[0], expected[0], atol=1e-5)
    for mine, theirs, variable in zip(ours[1], expected[1], model.trainable_variables, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-4, err_msg=variable.name)


def test_another_architecture_falls_back_to_all_logits() -> None:
    model = make_tiny("roformer", **OTHER_TINY_CONFIGS["roformer"])
    assert model.config.model_type not in ARCHITECTURES
    input_ids, attention_mask, indices = make_inputs()
    full = model(input_ids, attention_mask=attention_mask).logits
    ours = compute_logits_at(model, input_ids, attention_mask, indices)
    np.testing.assert_allclose(ours, tf.gather(tf.reshape(full, [-1, 60]), indices), atol=1e-6)
