"""The training step: the same mathematics however the batch is cut."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from tests.tiny import TINY_CONFIGS, make_tiny, without_dropout
from tfmlm.config import Config, DataConfig, DistributeConfig, OptimizerConfig, TrainConfig
from tfmlm.data.pipeline import Batch
from tfmlm.training.evaluate import evaluate
from tfmlm.training.masked_lm import MaskedLanguageModel
from tfmlm.training.optimizer import make_optimizer
from tfmlm.training.strategy import make_strategy, precision_policy

NUM_STEPS = 20
GLOBAL_BATCH_SIZE = 8
CONFIG = Config(
    data=DataConfig(block_size=16),
    optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=3, max_grad_norm=0.5),
    train=TrainConfig(per_replica_batch_size=GLOBAL_BATCH_SIZE),
)


def make_batches(num_batches: int) -> tf.data.Dataset:
    """Uneven masks: some rows have many labels, some none."""
    rng = np.random.default_rng(1)
    input_ids = rng.integers(5, 60, (num_batches, GLOBAL_BATCH_SIZE, 16)).astype(np.int32)
    rate = np.linspace(0.0, 0.3, GLOBAL_BATCH_SIZE)[:, None]
    labels = np.where(rng.random(input_ids.shape) < rate, input_ids, -100).astype(np.int32)
    columns = {"input_ids": input_ids, "attention_mask": np.ones_like(input_ids), "labels": labels}
    return tf.data.Dataset.from_tensor_slices(columns)


def build(config: Config) -> MaskedLanguageModel:
    with make_strategy(config.distribute).scope():
        tf.keras.utils.set_random_seed(0)
        model = MaskedLanguageModel(make_tiny("bert", **without_dropout("bert")), config)
        model.compile(make_optimizer(config.optimizer, NUM_STEPS), jit_compile=config.train.xla)
    return model


def fit(config: Config) -> tuple[list[float], list[np.ndarray]]:
    """Losses of the steps, and the weights after them."""
    losses: list[float] = []
    keep_loss = tf.keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: losses.append(float(logs["loss"]))
    )
    model = build(config)
    model.fit(make_batches(NUM_STEPS), callbacks=[keep_loss], verbose=0)
    return losses, model.model.get_weights()


@pytest.fixture(scope="module")
def reference() -> tuple[list[float], list[np.ndarray]]:
    return fit(replace(CONFIG, distribute=DistributeConfig("one_device")))


@pytest.mark.parametrize(
    ("strategy", "train"),
    [
        ("mirrored", TrainConfig(per_replica_batch_size=4)),
        ("one_device", TrainConfig(per_replica_batch_size=4, gradient_accumulation_steps=2)),
        ("mirrored", TrainConfig(per_replica_batch_size=2, gradient_accumulation_steps=2)),
        ("one_device", TrainConfig(per_replica_batch_size=1, gradient_accumulation_steps=8)),
        (
            "one_device",
            TrainConfig(per_replica_batch_size=2, gradient_accumulation_steps=4, logits="all", xla=True),
        ),
        ("one_device", TrainConfig(per_replica_batch_size=8, logits="all")),
        ("one_device", TrainConfig(per_replica_batch_size=8, xla=True)),
        ("mirrored", TrainConfig(per_replica_batch_size=2, gradient_accumulation_steps=2, xla=True)),
    ],
    ids=[
        "two replicas",
        "accumulation",
        "both",
        "row by row",
        "accumulation with xla",
        "all logits",
        "xla",
        "both with xla",
    ],
)
def test_losses_and_weights_equal_one_replica(
    strategy: str, train: TrainConfig, reference: tuple[list[float], list[np.ndarray]]
) -> None:
    losses, weights = fit(replace(CONFIG, distribute=DistributeConfig(strategy), train=train))
    np.testing.assert_allclose(losses, reference[0], rtol=1e-5)
    for mine, expected in zip(weights, reference[1], strict=True):
        np.testing.assert_allclose(mine, expected, atol=1e-5)


@pytest.mark.parametrize("xla", [False, True])
def test_each_of_two_replicas_compiles_its_part(xla: bool) -> None:
    """And not the sums over both, which TensorFlow compiles for some devices only."""
    train = TrainConfig(per_replica_batch_size=4, xla=xla)
    model = build(replace(CONFIG, distribute=DistributeConfig("mirrored"), train=train))
    batches = iter(model.distribute_strategy.experimental_distribute_dataset(make_batches(1)))
    for function in (model.make_train_function(), model.make_test_function()):
        graph = function.get_concrete_function(batches).graph.as_graph_def()
        compiled = [
            {node.op for node in each.node_def}
            for each in graph.library.function
            if each.attr["_XlaMustCompile"].b
        ]
        assert bool(compiled) is xla
        assert not any("Collective" in op for ops in compiled for op in ops)


def count_nodes(num_micro_batches: int) -> int:
    """Of the training step's graph, functions included."""
    train = TrainConfig(per_replica_batch_size=2, gradient_accumulation_steps=num_micro_batches)
    model = build(replace(CONFIG, train=train))
    columns = {name: tf.fill([2 * num_micro_batches, 16], 7) for name in next(iter(make_batches(1)))}
    step = tf.function(model.train_step).get_concrete_function(columns)
    graph = step.graph.as_graph_def()
    return len(graph.node) + sum(len(function.node_def) for function in graph.library.function)


def test_the_graph_does_not_grow_with_the_micro_batches() -> None:
    assert count_nodes(64) <= 1.1 * count_nodes(2)


def test_each_micro_batch_has_noise_of_its_own() -> None:
    """With the noise of the first, the same rows in the second would leave the mean loss as it is."""
    rows = {name: column[4:] for name, column in next(iter(make_batches(1))).items()}
    losses = []
    for labels in (rows["labels"], tf.fill([4, 16], -100)):
        second = rows | {"labels": labels}
        batch = {name: tf.concat([column, second[name]], axis=0) for name, column in rows.items()}
        losses.append(fit_one(build_with_dropout(), batch)["loss"])
    assert losses[0] != pytest.approx(losses[1], rel=1e-5)


def build_with_dropout() -> MaskedLanguageModel:
    train = TrainConfig(per_replica_batch_size=4, gradient_accumulation_steps=2)
    tf.keras.utils.set_random_seed(0)
    model = MaskedLanguageModel(make_tiny("bert", **TINY_CONFIGS["bert"]), replace(CONFIG, train=train))
    model.compile(make_optimizer(CONFIG.optimizer, NUM_STEPS))
    return model


def test_the_loss_falls(reference: tuple[list[float], list[np.ndarray]]) -> None:
    assert np.mean(reference[0][-3:]) < np.mean(reference[0][:3])


def test_a_replica_without_a_masked_token_contributes_nothing() -> None:
    """Rows 0 to 3 have no label: the first replica sees none."""
    batch = next(iter(make_batches(1)))
    labels = tf.concat([tf.fill([4, 16], -100), batch["labels"][4:]], axis=0)
    lone = {name: column[4:] for name, column in batch.items()}
    model = build(
        replace(CONFIG, distribute=DistributeConfig("mirrored"), train=TrainConfig(per_replica_batch_size=4))
    )
    alone = build(
        replace(
            CONFIG, distribute=DistributeConfig("one_device"), train=TrainConfig(per_replica_batch_size=4)
        )
    )
    logs = fit_one(model, batch | {"labels": labels})
    expected = fit_one(alone, lone)
    assert logs["loss"] == pytest.approx(expected["loss"], rel=1e-6)
    for mine, theirs in zip(model.model.get_weights(), alone.model.get_weights(), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-6)


def test_a_batch_without_any_masked_token_leaves_finite_weights() -> None:
    batch = next(iter(make_batches(1)))
    model = build(CONFIG)
    logs = fit_one(model, batch | {"labels": tf.fill([8, 16], -100)})
    assert logs["loss"] == 0.0
    assert all(np.isfinite(weight).all() for weight in model.model.get_weights())


def fit_one(model: MaskedLanguageModel, batch: Batch) -> dict[str, float]:
    history = model.fit(tf.data.Dataset.from_tensors(batch), verbose=0).history
    return {name: float(values[-1]) for name, values in history.items()}


@pytest.mark.parametrize("strategy", ["one_device", "mirrored"])
def test_evaluation_is_the_mean_over_tokens_not_over_batches(strategy: str) -> None:
    rows = GLOBAL_BATCH_SIZE // (2 if strategy == "mirrored" else 1)
    train = TrainConfig(per_replica_batch_size=rows, logits="all")
    model = build(replace(CONFIG, distribute=DistributeConfig(strategy), train=train))
    losses = []
    for batch in make_batches(3):
        logits = model.model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        chosen = batch["labels"] != -100
        losses.append(
            tf.nn.sparse_softmax_cross_entropy_with_logits(batch["labels"][chosen], logits[chosen]).numpy()
        )
    evaluation = evaluate(model, make_batches(3))
    assert evaluation.loss == pytest.approx(np.concatenate(losses).mean(), rel=1e-6)
    assert evaluation.perplexity == pytest.approx(np.exp(np.concatenate(losses).mean()), rel=1e-6)
    assert np.mean([loss.mean() for loss in losses]) != pytest.approx(evaluation.loss, rel=1e-6)


def test_bfloat16_keeps_float32_weights() -> None:
    from tfmlm.training.strategy import precision_policy

    with precision_policy("bfloat16"):
        model = build(CONFIG)
        logs = fit_one(model, next(iter(make_batches(1))))
    assert np.isfinite(logs["loss"])
    assert {weight.dtype for weight in model.model.weights} == {tf.float32}
    assert tf.keras.mixed_precision.global_policy().name == "float32"


def test_float16_scales_the_loss_and_skips_what_overflows() -> None:
    tf.keras.utils.set_random_seed(0)
    with precision_policy("float16"):
        model = MaskedLanguageModel(make_tiny("bert", **without_dropout("bert")), CONFIG)
    model.compile(make_optimizer(CONFIG.optimizer, NUM_STEPS))
    assert float(model.optimizer.loss_scale) > 1
    before = model.model.get_weights()
    losses: list[float] = []
    keep_loss = tf.keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: losses.append(float(logs["loss"]))
    )
    model.fit(make_batches(NUM_STEPS), callbacks=[keep_loss], verbose=0)
    assert np.isfinite(losses).all()
    assert int(model.step) == NUM_STEPS
    assert all(variable.dtype == tf.float32 for variable in model.trained_variables)
    moved = [(a != b).any() for a, b in zip(before, model.model.get_weights(), strict=True)]
    assert any(moved)


def test_several_steps_in_one_execution_are_the_same_steps() -> None:
    def fit_weights(steps_per_execution: int) -> list[np.ndarray]:
        tf.keras.utils.set_random_seed(0)
        model = MaskedLanguageModel(make_tiny("bert", **TINY_CONFIGS["bert"]), CONFIG)
        model.compile(make_optimizer(CONFIG.optimizer, 8), steps_per_execution=steps_per_execution)
        model.fit(make_batches(8), steps_per_epoch=8, verbose=0)
        assert int(model.step) == 8
        return model.model.get_weights()

    for one, four in zip(fit_weights(1), fit_weights(4), strict=True):
        # Rounding differs a little, because TensorFlow optimizes the two graphs differently.
        np.testing.assert_allclose(one, four, atol=1e-6)
