"""Freezing and layer-wise learning rates, by the depth that a variable's name tells."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import transformers

from tests.tiny import ALL_TINY_CONFIGS, make_tiny
from tests.tiny_run import make_config, read_weights
from tfmlm.config import ModelConfig, OptimizerConfig
from tfmlm.errors import UserError
from tfmlm.run import run
from tfmlm.training.optimizer import (
    AdamWeightDecay,
    WarmupDecay,
    choose_trained,
    make_optimizer,
    measure_depths,
    scale_by_depth,
)


def make_variables(model_type: str) -> list:
    return make_tiny(model_type, **ALL_TINY_CONFIGS[model_type]).trainable_variables


@pytest.mark.parametrize("model_type", sorted(ALL_TINY_CONFIGS.keys() - {"flaubert", "xlm"}))
def test_embeddings_layers_and_head_are_told_apart(model_type: str) -> None:
    depths = measure_depths(make_variables(model_type))
    num_layers = 1 if model_type == "albert" else 2
    assert set(depths.values()) == set(range(num_layers + 2))
    for name, depth in depths.items():
        assert ("embedding" in name or "relative_attention_bias" in name) == (depth == 0), name
        assert (f"_._{depth - 1}/" in name) == (1 <= depth <= num_layers), name


def test_rates_fall_by_a_factor_each_layer() -> None:
    variables = make_variables("bert")
    depths, scales = measure_depths(variables), scale_by_depth(variables, 0.5)
    assert {depths[name]: scale for name, scale in scales.items()} == {0: 0.125, 1: 0.25, 2: 0.5, 3: 1.0}


def test_freezing_takes_the_embeddings_or_the_lowest_layers() -> None:
    variables = make_variables("roberta")
    depths = measure_depths(variables)

    def trained(**model: object) -> set[int]:
        return {depths[variable.name] for variable in choose_trained(variables, ModelConfig(**model))}

    assert trained() == {0, 1, 2, 3}
    assert trained(freeze_embeddings=True) == {1, 2, 3}
    assert trained(freeze_layers=1) == {0, 2, 3}
    assert trained(freeze_embeddings=True, freeze_layers=2) == {3}
    with pytest.raises(UserError, match="freeze_layers is 3, and the model has 2 layers"):
        trained(freeze_layers=3)


def test_frozen_weights_stay_and_lower_layers_move_less(tmp_path: Path, text_file: Path) -> None:
    config = make_config(tmp_path, text_file, num_layers=2, max_steps=3)

    def train(name: str, **changes: object) -> dict[str, np.ndarray]:
        folder = tmp_path / name
        run(replace(config, run=replace(config.run, output_dir=str(folder)), **changes))
        return read_weights(folder)

    still = replace(config.optimizer, learning_rate=1e-12)
    before = train("before", optimizer=still)
    frozen = train("frozen", model=replace(config.model, freeze_embeddings=True, freeze_layers=1))
    moved = {name for name, values in frozen.items() if np.abs(values - before[name]).max() > 1e-6}
    assert moved
    assert not [name for name in moved if "embeddings" in name or "layer.0." in name]
    assert [name for name in moved if "layer.1." in name]

    decayed = train("decayed", optimizer=replace(config.optimizer, layer_decay=0.1, warmup_steps=0))

    def movement(depth_name: str) -> float:
        names = [name for name in before if depth_name in name and before[name].ndim == 2]
        return max(float(np.abs(decayed[name] - before[name]).max()) for name in names)

    # Adam moves each weight by about the learning rate, whatever the gradient.
    assert movement("layer.0.") == pytest.approx(0.1 * movement("layer.1."), rel=0.2)


def decays(optimizer: transformers.AdamWeightDecay, name: str) -> bool:
    return optimizer._do_use_weight_decay(name)


def test_exclusions_survive_a_reload_where_the_stock_optimizer_forgets_them() -> None:
    ours = AdamWeightDecay(weight_decay_rate=0.1, exclude_from_weight_decay=["bias"])
    assert not decays(AdamWeightDecay.from_config(ours.get_config()), "layer/bias:0")

    stock = transformers.AdamWeightDecay(weight_decay_rate=0.1, exclude_from_weight_decay=["bias"])
    assert decays(transformers.AdamWeightDecay.from_config(stock.get_config()), "layer/bias:0")


@pytest.mark.parametrize("model_type", ALL_TINY_CONFIGS)
def test_matrices_decay_and_vectors_do_not(model_type: str) -> None:
    optimizer = make_optimizer(OptimizerConfig(weight_decay=0.1), 10)
    for variable in make_tiny(model_type, **ALL_TINY_CONFIGS[model_type]).trainable_variables:
        is_matrix = variable.shape.rank > 1
        assert decays(optimizer, variable.name) == is_matrix, variable.name


def test_mpnet_relative_positions_decay_where_a_substring_test_exempts_them() -> None:
    name = "tf_mp_net/mpnet/encoder/relative_attention_bias/embeddings:0"
    assert decays(make_optimizer(OptimizerConfig(), 10), name)
    stock = transformers.create_optimizer(1e-3, 10, 0, weight_decay_rate=0.1)[0]
    assert not decays(stock, name)


def test_one_step_equals_the_formula() -> None:
    config = OptimizerConfig(learning_rate=0.1, weight_decay=0.5, schedule="constant")
    optimizer = make_optimizer(config, total_steps=10)
    kernel = tf.Variable([[2.0]], name="dense/kernel")
    bias = tf.Variable([2.0], name="dense/bias")
    optimizer.apply_gradients([(tf.constant([[3.0]]), kernel), (tf.constant([3.0]), bias)])
    # Adam's first step moves by the learning rate; decay takes learning rate * rate * weight before it.
    assert float(kernel[0, 0]) == pytest.approx(2.0 - 0.1 * 0.5 * 2.0 - 0.1, abs=1e-5)
    assert float(bias[0]) == pytest.approx(2.0 - 0.1, abs=1e-5)


def test_three_steps_follow_the_moments() -> None:
    """Kingma and Ba, https://arxiv.org/abs/1412.6980, algorithm 1."""
    config = OptimizerConfig(
        learning_rate=0.1, weight_decay=0.0, schedule="constant", beta1=0.5, beta2=0.75, epsilon=1e-3
    )
    optimizer, weight = make_optimizer(config, total_steps=10), tf.Variable([2.0], name="dense/kernel")
    expected, mean, square = 2.0, 0.0, 0.0
    for step, gradient in enumerate((3.0, -1.0, 0.25), start=1):
        optimizer.apply_gradients([(tf.constant([gradient]), weight)])
        mean = 0.5 * mean + 0.5 * gradient
        square = 0.75 * square + 0.25 * gradient**2
        # TensorFlow's epsilon is the "epsilon hat" of the paper's section 2.
        rate = 0.1 * np.sqrt(1 - 0.75**step) / (1 - 0.5**step)
        expected -= rate * mean / (np.sqrt(square) + 1e-3)
        assert float(weight[0]) == pytest.approx(expected, rel=1e-5)


def test_linear_schedule_rises_then_falls_to_zero() -> None:
    schedule = WarmupDecay(peak=1.0, warmup_steps=4, total_steps=8, schedule="linear")
    rates = [float(schedule(tf.constant(step))) for step in range(9)]
    np.testing.assert_allclose(rates, [0.25, 0.5, 0.75, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0], atol=1e-6)


def test_constant_schedule_and_no_warmup() -> None:
    schedule = WarmupDecay(peak=0.5, warmup_steps=0, total_steps=2, schedule="constant")
    assert [float(schedule(tf.constant(step))) for step in (0, 1, 50)] == [0.5, 0.5, 0.5]


def test_the_end_can_move_while_a_compiled_step_uses_the_schedule() -> None:
    schedule = WarmupDecay(peak=1.0, warmup_steps=0, total_steps=10, schedule="linear")
    compiled = tf.function(schedule)
    before = float(compiled(tf.constant(2)))
    schedule.total_steps.assign(4)
    assert (before, float(compiled(tf.constant(2)))) == pytest.approx((0.8, 0.5))


def test_schedule_comes_back_from_its_configuration() -> None:
    schedule = WarmupDecay(peak=1.0, warmup_steps=2, total_steps=10, schedule="linear")
    again = WarmupDecay.from_config(schedule.get_config())
    assert float(again(tf.constant(7))) == float(schedule(tf.constant(7)))


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("linear", [1.0, 0.75, 0.5, 0.25, 0.0]),
        ("cosine", [1.0, 0.853553, 0.5, 0.146447, 0.0]),
        ("polynomial", [1.0, 0.421875, 0.125, 0.015625, 0.0]),
        ("constant", [1.0] * 5),
        ("stable", [1.0, 1.0, 1.0, 0.5, 0.0]),
    ],
)
def test_every_decay_follows_its_formula(schedule: str, expected: list[float]) -> None:
    config = OptimizerConfig(
        learning_rate=1.0, warmup_ratio=1 / 3, schedule=schedule, polynomial_power=3.0, decay_ratio=0.5
    )
    rate = make_optimizer(config, 12).learning_rate
    rising = [float(rate(tf.constant(step))) for step in range(4)]
    falling = [float(rate(tf.constant(step))) for step in range(4, 13, 2)]
    np.testing.assert_allclose(rising, [0.25, 0.5, 0.75, 1.0])
    np.testing.assert_allclose(falling, expected, atol=1e-6)
