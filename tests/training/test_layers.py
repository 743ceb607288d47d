"""bfloat16 computes gelu in float32: exact to bfloat16's own rounding, in every architecture."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats
from transformers.activations_tf import ACT2FN

from tests.tiny import ALL_TINY_CONFIGS, TINY_CONFIGS, make_tiny
from tfmlm.training.layers import StatelessNoise, compute_gelu_in_float32, make_dropout_stateless


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


def drop(rate: float, seed: tuple[int, int] = (1, 2), size: int = 1_000_001, calls: int = 1) -> np.ndarray:
    noise = StatelessNoise()
    noise.begin(tf.constant(seed, tf.int64))
    for _ in range(calls):
        dropped = noise.dropout(tf.ones([size]), rate)
    return dropped.numpy()


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_drops_its_share_and_scales_the_rest(rate: float) -> None:
    values = drop(rate)
    kept = values[values != 0]
    np.testing.assert_allclose(kept, 1 / (1 - rate), rtol=1e-4)
    assert stats.binomtest(len(values) - len(kept), len(values), rate).pvalue > 1e-4


def test_a_rate_of_zero_drops_nothing() -> None:
    np.testing.assert_array_equal(drop(0.0), 1.0)


def test_neighbours_are_independent() -> None:
    """Two values share a random word."""
    is_dropped = (drop(0.5, size=1_000_000) == 0).reshape(-1, 2)
    table = [[np.sum((is_dropped == (a, b)).all(axis=1)) for b in (False, True)] for a in (False, True)]
    assert stats.chi2_contingency(table).pvalue > 1e-4


def test_the_same_seed_and_call_give_the_same_noise_and_others_do_not() -> None:
    first = drop(0.5, size=1000)
    np.testing.assert_array_equal(first, drop(0.5, size=1000))
    for other in (drop(0.5, (1, 3), 1000), drop(0.5, (2, 2), 1000), drop(0.5, size=1000, calls=2)):
        assert 400 < np.sum((first == 0) != (other == 0)) < 600


def test_gradients_pass_where_values_do() -> None:
    noise = StatelessNoise()
    noise.begin(tf.constant([1, 2], tf.int64))
    inputs = tf.ones([64, 8])
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        dropped = noise.dropout(inputs, 0.3)
    np.testing.assert_array_equal(tape.gradient(dropped, inputs), dropped)


@pytest.mark.parametrize("model_type", ALL_TINY_CONFIGS)
def test_every_dropout_of_a_model_draws_from_it(model_type: str) -> None:
    # ALBERT and MobileBERT have none by themselves.
    model = make_tiny(model_type, **ALL_TINY_CONFIGS[model_type], hidden_dropout_prob=0.1)
    token_ids = tf.fill([4, 16], 7)
    model(token_ids)
    noise = make_dropout_stateless(model)

    def run(step: int) -> np.ndarray:
        noise.begin(tf.constant([0, step], tf.int64))
        return model(token_ids, training=True).logits.numpy()

    np.testing.assert_array_equal(run(1), run(1))
    assert (run(1) != run(2)).any()
    # Stock noise anywhere would differ between two calls; and with none at all, training would equal this.
    assert (run(1) != model(token_ids, training=False).logits.numpy()).any()
