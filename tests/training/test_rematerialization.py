"""Layers that are computed again in the backward pass: the same training, evaluation and names."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from tests.tiny import ALL_TINY_CONFIGS, long_but, make_tiny
from tests.training.test_masked_lm import CONFIG, NUM_STEPS, make_batches
from tfmlm.config import Config, DistributeConfig, ModelConfig, TrainConfig
from tfmlm.errors import UserError
from tfmlm.training.layers import WITHOUT_LAYERS, StatelessNoise
from tfmlm.training.masked_lm import MaskedLanguageModel
from tfmlm.training.model import check_model
from tfmlm.training.optimizer import make_optimizer
from tfmlm.training.strategy import make_strategy, precision_policy

MADE_OF_LAYERS = sorted(set(ALL_TINY_CONFIGS) - set(WITHOUT_LAYERS))


def build(model_type: str, config: Config) -> MaskedLanguageModel:
    with make_strategy(config.distribute).scope(), precision_policy(config.train.precision):
        tf.keras.utils.set_random_seed(0)
        # ALBERT and MobileBERT have no dropout by themselves.
        fields = ALL_TINY_CONFIGS[model_type] | {"hidden_dropout_prob": 0.1}
        model = MaskedLanguageModel(make_tiny(model_type, **fields), config)
        model.compile(
            make_optimizer(config.optimizer, NUM_STEPS, model.model.trainable_variables),
            jit_compile=config.train.xla,
            steps_per_execution=config.train.steps_per_execution,
        )
    return model


def with_and_without(config: Config) -> Iterator[Config]:
    for rematerialize in (True, False):
        yield replace(config, train=replace(config.train, rematerialize=rematerialize))


def list_nodes(function: tf.types.experimental.ConcreteFunction) -> list[str]:
    """Operations of a graph, functions included."""
    graph = function.graph.as_graph_def()
    bodies = [graph.node, *(body.node_def for body in graph.library.function)]
    return [node.op for body in bodies for node in body]


# Of the short ones three are called, named or shared in ways of their own.
@pytest.mark.parametrize("model_type", long_but(MADE_OF_LAYERS, "albert", "bert", "distilbert", "esm"))
def test_gradients_evaluation_and_names_are_the_same_and_layers_are_computed_twice(model_type: str) -> None:
    batch = next(iter(make_batches(1)))
    found = []
    for config in with_and_without(CONFIG):
        model = build(model_type, config)

        @tf.function(autograph=False)
        def differentiate(batch, model=model):
            return model._differentiate(batch, 10.0, tf.constant([1, 2], tf.int64))[:2]

        evaluate = tf.function(lambda batch, model=model: model(batch, training=False), autograph=False)
        gradients, loss = differentiate(batch)
        nodes = list_nodes(differentiate.get_concrete_function(batch))
        num_noises = sum("StatelessRandomUniform" in node for node in nodes)
        names = [weight.name.partition("/")[2] for weight in model.model.weights]
        found.append((gradients, loss, evaluate(batch), names, num_noises))
    (gradients, loss, logits, names, num_noises), plain = found
    assert loss == plain[1]
    largest = max(np.abs(gradient).max() for gradient in plain[0])
    for mine, expected in zip(gradients, plain[0], strict=True):
        # The gradient of the keys' bias is 0 but for rounding.
        atol = 1e-6 * np.abs(expected).max() + 1e-9 * largest
        np.testing.assert_allclose(mine, expected, rtol=0, atol=atol)
    np.testing.assert_array_equal(logits, plain[2])
    assert names == plain[3]
    assert num_noises > plain[4]


@pytest.mark.parametrize(
    ("strategy", "train", "atol"),
    [
        pytest.param("one_device", TrainConfig(per_replica_batch_size=8), 1e-6, id="plain"),
        pytest.param("mirrored", TrainConfig(per_replica_batch_size=4), 1e-6, id="two replicas"),
        pytest.param(
            "one_device",
            TrainConfig(per_replica_batch_size=4, gradient_accumulation_steps=2, steps_per_execution=3),
            1e-6,
            id="accumulation and several steps",
        ),
        pytest.param(
            "mirrored",
            TrainConfig(per_replica_batch_size=2, gradient_accumulation_steps=2),
            1e-6,
            id="two replicas and accumulation",
            marks=pytest.mark.long,
        ),
        pytest.param(
            "one_device",
            TrainConfig(per_replica_batch_size=4, gradient_accumulation_steps=2, xla=True),
            1e-6,
            id="accumulation and xla",
            marks=pytest.mark.long,
        ),
        pytest.param(
            "one_device",
            TrainConfig(per_replica_batch_size=8, precision="bfloat16"),
            1e-4,
            id="bfloat16",
            marks=pytest.mark.long,
        ),
        pytest.param(
            "one_device",
            TrainConfig(per_replica_batch_size=8, precision="float16"),
            1e-4,
            id="float16",
            marks=pytest.mark.long,
        ),
    ],
)
def test_weights_after_several_steps_are_the_same(strategy: str, train: TrainConfig, atol: float) -> None:
    weights = []
    for config in with_and_without(replace(CONFIG, distribute=DistributeConfig(strategy), train=train)):
        model = build("bert", config)
        model.fit(make_batches(6), steps_per_epoch=6, verbose=0)
        weights.append(model.model.get_weights())
    moved = 0.0
    for mine, expected, initial in zip(*weights, build("bert", CONFIG).model.get_weights(), strict=True):
        np.testing.assert_allclose(mine, expected, rtol=0, atol=atol)
        moved = max(moved, np.abs(expected - initial).max())
    assert moved > 1e-3


@pytest.mark.long
def test_branches_in_a_loop_of_micro_batches() -> None:
    weights = []
    train = TrainConfig(per_replica_batch_size=4, gradient_accumulation_steps=2)
    for config in with_and_without(replace(CONFIG, train=train)):
        model = build("deberta-v2", config)
        model.fit(make_batches(3), verbose=0)
        weights.append(model.model.get_weights())
    for mine, expected in zip(*weights, strict=True):
        np.testing.assert_allclose(mine, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("model_type", WITHOUT_LAYERS)
def test_models_without_layers_are_refused_at_once(model_type: str) -> None:
    config = Config(
        model=ModelConfig(config={"model_type": model_type}), train=TrainConfig(rematerialize=True)
    )
    with pytest.raises(
        UserError, match=f"train.rematerialize is true, and TensorFlow's {model_type} has no "
    ):
        check_model(config)


def test_replayed_noise_is_the_same_and_leaves_what_comes_next() -> None:
    noise = StatelessNoise()
    noise.begin(tf.constant([1, 2], tf.int64))
    first, second = (noise.dropout(tf.ones([64]), 0.5) for _ in range(2))
    with noise.replay(0, tf.constant(0.0)):
        np.testing.assert_array_equal(noise.dropout(tf.ones([64]), 0.5), first)
    third = noise.dropout(tf.ones([64]), 0.5)
    assert all((third != other).numpy().any() for other in (first, second))
