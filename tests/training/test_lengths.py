"""Batches of short texts are computed without their padding, with the same outcome."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from tests.tiny import SENTENCES, make_tiny, without_dropout
from tests.tiny_run import PowerCutError, assert_same_weights, cut_after, in_folder, make_config
from tfmlm.config import Config, DataConfig, DistributeConfig, TrainConfig
from tfmlm.run import run
from tfmlm.training.evaluate import evaluate
from tfmlm.training.lengths import list_lengths
from tfmlm.training.masked_lm import MaskedLanguageModel
from tfmlm.training.optimizer import make_optimizer
from tfmlm.training.strategy import make_strategy

BLOCK_SIZE, ROWS = 40, 8
FIELDS = without_dropout("bert") | {"num_hidden_layers": 1}
LONGEST = [3, 17, 40, 8, 24]
"""Of the rows of each batch."""


@given(st.integers(1, 4096))
def test_lengths_are_few_where_each_is_compiled(block_size: int) -> None:
    few, many = list_lengths(block_size, is_compiled=True), list_lengths(block_size, is_compiled=False)
    assert {*few} <= {*many}
    assert len(few) <= 4
    for lengths in (few, many):
        assert lengths == sorted({*lengths})
        assert lengths[-1] == block_size
        assert all(length % 8 == 0 for length in lengths[:-1])
    assert np.diff([0, *many]).max() <= 8


def make_batches() -> tf.data.Dataset:
    rng = np.random.default_rng(1)
    shape = (len(LONGEST), ROWS, BLOCK_SIZE)
    lengths = rng.integers(1, np.array(LONGEST)[:, np.newaxis] + 1, shape[:2])
    lengths[:, 5] = LONGEST
    attended = np.arange(BLOCK_SIZE) < lengths[..., np.newaxis]
    input_ids = np.where(attended, rng.integers(5, 60, shape), 0).astype(np.int32)
    labels = np.where(attended & (rng.random(shape) < 0.3), input_ids, -100).astype(np.int32)
    columns = {"input_ids": input_ids, "attention_mask": attended.astype(np.int32), "labels": labels}
    return tf.data.Dataset.from_tensor_slices(columns)


def fit(config: Config) -> tuple[list[float], list[float], list[np.ndarray], int]:
    """Losses of the steps and of an evaluation, the weights after them, and the tokens."""
    losses: list[float] = []
    keep = tf.keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: losses.append(float(logs["loss"]))
    )
    with make_strategy(config.distribute).scope():
        tf.keras.utils.set_random_seed(0)
        model = MaskedLanguageModel(make_tiny("bert", **FIELDS), config)
        model.compile(make_optimizer(config.optimizer, len(LONGEST)), jit_compile=config.train.xla)
    model.fit(make_batches(), callbacks=[keep], verbose=0)
    num_replicas = model.distribute_strategy.num_replicas_in_sync
    # As in a run, a replica evaluates as many rows as it trains on at once, and shapes are static.
    size = config.train.per_replica_batch_size * num_replicas
    evaluation = evaluate(model, make_batches().unbatch().batch(size, drop_remainder=True))
    return losses, list(evaluation), model.model.get_weights(), int(model.tokens.numpy())


CONFIG = Config(data=DataConfig(block_size=BLOCK_SIZE), train=TrainConfig(per_replica_batch_size=ROWS))


@pytest.fixture(scope="module")
def uncut() -> tuple[list[float], list[float], list[np.ndarray], int]:
    return fit(replace(CONFIG, distribute=DistributeConfig("one_device")))


@pytest.mark.parametrize(
    ("strategy", "train"),
    [
        ("one_device", TrainConfig(per_replica_batch_size=8)),
        ("mirrored", TrainConfig(per_replica_batch_size=2, gradient_accumulation_steps=2)),
        pytest.param(
            "one_device",
            TrainConfig(per_replica_batch_size=4, gradient_accumulation_steps=2, xla=True, logits="all"),
            marks=pytest.mark.long,
        ),
        pytest.param("mirrored", TrainConfig(per_replica_batch_size=4, xla=True), marks=pytest.mark.long),
    ],
    ids=["plain", "two replicas that accumulate", "xla", "two replicas with xla"],
)
def test_losses_and_weights_are_those_with_padding(
    strategy: str, train: TrainConfig, uncut: tuple[list[float], list[float], list[np.ndarray], int]
) -> None:
    data = replace(CONFIG.data, pack=False)
    losses, evaluation, weights, tokens = fit(
        replace(CONFIG, data=data, distribute=DistributeConfig(strategy), train=train)
    )
    np.testing.assert_allclose(losses, uncut[0], rtol=1e-5)
    np.testing.assert_allclose(evaluation, uncut[1], rtol=1e-5)
    for mine, expected in zip(weights, uncut[2], strict=True):
        np.testing.assert_allclose(mine, expected, atol=1e-5)
    assert tokens == sum(int(batch["attention_mask"].sum()) for batch in make_batches().as_numpy_iterator())
    assert tokens == uncut[3]


def trace_lengths(config: Config) -> list[int | None]:
    """The static lengths that the encoder is traced with in a step."""
    seen: list[int | None] = []
    model = MaskedLanguageModel(make_tiny("bert", **FIELDS), config)
    model.compile(make_optimizer(config.optimizer, 1))
    embed = model.model.bert.embeddings.call

    def note(input_ids: tf.Tensor, **arguments: object) -> tf.Tensor:
        seen.append(input_ids.shape[1])
        return embed(input_ids, **arguments)

    model.model.bert.embeddings.call = note
    tf.function(model.train_step).get_concrete_function(next(iter(make_batches())))
    return seen


def test_xla_has_a_static_shape_for_each_length_and_the_others_one_for_all() -> None:
    unpacked = replace(CONFIG, data=replace(CONFIG.data, pack=False))
    compiled = replace(unpacked, train=replace(unpacked.train, xla=True))
    assert trace_lengths(compiled) == list_lengths(BLOCK_SIZE, is_compiled=True) == [8, 16, 24, 40]
    assert trace_lengths(unpacked) == [None]
    assert trace_lengths(CONFIG) == [BLOCK_SIZE]


@pytest.mark.long
def test_a_run_goes_on_with_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Amid the steps of an epoch, whose blocks are sorted together; with dropout, and accumulation."""
    text_file = tmp_path / "texts.txt"
    texts = [" ".join(SENTENCES[number : number + 1 + number % 4]) for number in range(40)]
    text_file.write_text("\n".join(texts))
    config = make_config(tmp_path, text_file, dropout=True, epochs=2, max_steps=12)
    config = replace(
        config,
        data=replace(config.data, pack=False, stride=3),
        train=replace(config.train, gradient_accumulation_steps=2),
        distribute=DistributeConfig("one_device"),
    )
    whole = run(in_folder(config, tmp_path / "whole")).result
    with monkeypatch.context() as patch:
        cut_after(8, patch)
        with pytest.raises(PowerCutError):
            run(config)
    resumed = run(config).result
    assert_same_weights(tmp_path / "whole", tmp_path / "run")
    assert resumed.perplexity == whole.perplexity
    assert resumed.tokens == whole.tokens < 12 * 8 * 32
    assert resumed.steps == whole.steps == 12
    assert [note for note in whole.notes if "repeating 3 tokens" in note]
