"""Texts of like length are computed together: the same values as one by one, with little padding."""

import copy
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from tests.tiny import TINY_CONFIGS
from tfmlm.config import Config, DataConfig, ModelConfig
from tfmlm.export.fill_mask import MOST_PADDING, FillMask, compute_by_length
from tfmlm.training.model import make_model
from tfmlm.training.strategy import precision_policy

WIDTH = 3
SPEC = tf.TensorSpec([None, WIDTH], tf.float32)


class Batch(NamedTuple):
    input_ids: NDArray[np.int32]
    attention_mask: NDArray[np.int32]
    places: NDArray[np.int32]


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    """Rows of 0 to 80 tokens, holes in their masks included, some of them wanted at some places."""
    lengths = draw(st.lists(st.integers(0, 80), max_size=24))
    width = max([*lengths, 1]) + draw(st.integers(0, 3))
    numbers = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    input_ids = numbers.integers(1, 1000, (len(lengths), width), dtype=np.int32)
    attention_mask = np.zeros_like(input_ids)
    for row, length in enumerate(lengths):
        attention_mask[row, :length] = numbers.random(length) < 0.9
    is_place = (attention_mask != 0) & (numbers.random(input_ids.shape) < draw(st.sampled_from([0, 0.05, 1])))
    return Batch(input_ids, attention_mask, np.argwhere(is_place).astype(np.int32))


def compute(input_ids: tf.Tensor, attention_mask: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
    """Values of a place: its token, its column, and the sum of the tokens that its row attends to."""
    num_rows, length = tf.unstack(tf.shape(input_ids))
    sums = tf.reduce_sum(input_ids * attention_mask, axis=1)
    columns = tf.tile(tf.range(length)[tf.newaxis], [num_rows, 1])
    values = tf.stack([input_ids, columns, tf.tile(sums[:, tf.newaxis], [1, length])], axis=-1)
    return tf.cast(tf.gather(tf.reshape(values, [-1, WIDTH]), positions), tf.float32)


@tf.function(
    input_signature=[
        tf.TensorSpec([None, None], tf.int32),
        tf.TensorSpec([None, None], tf.int32),
        tf.TensorSpec([None, 2], tf.int32),
    ]
)
def compute_in_graph(input_ids: tf.Tensor, attention_mask: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
    return compute_by_length(compute, input_ids, attention_mask, places, SPEC)


@given(batch=batches())
@settings(deadline=None)
def test_every_place_has_the_value_of_its_own_row(batch: Batch) -> None:
    expected = [
        (batch.input_ids[row, column], column, (batch.input_ids[row] * batch.attention_mask[row]).sum())
        for row, column in batch.places
    ]
    values = compute_in_graph(*batch).numpy()
    np.testing.assert_array_equal(values, np.array(expected, np.float32).reshape(-1, WIDTH))


@given(batch=batches())
@settings(deadline=None)
def test_groups_have_little_padding_and_every_wanted_row_once(batch: Batch) -> None:
    groups: list[NDArray[np.int32]] = []

    def note(input_ids: tf.Tensor, attention_mask: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
        groups.append(attention_mask.numpy())
        return compute(input_ids, attention_mask, positions)

    compute_by_length(note, *map(tf.constant, batch), SPEC)
    lengths = [[max(np.flatnonzero(row)) + 1 for row in group] for group in groups]
    for group, of_rows in zip(groups, lengths, strict=True):
        assert group.shape[1] == max(of_rows)
        assert sum(group.shape[1] - length for length in of_rows) <= MOST_PADDING
    for group, following in pairwise(lengths):
        # One more row would have been too much.
        assert sum(max(group) - length for length in [*group, max(following)]) > MOST_PADDING
    wanted = {row for row, _ in batch.places}
    assert sum(map(len, groups)) == len(wanted)


@pytest.mark.parametrize(
    ("model_type", "precision", "difference"),
    [
        ("bert", "float32", 1e-6),
        ("distilbert", "float32", 1e-6),
        ("roberta", "float32", 1e-6),
        ("bert", "bfloat16", 1e-3),
        ("distilbert", "bfloat16", 1e-3),
    ],
)
def test_a_model_fills_the_same(
    model_type: str, precision: str, difference: float, byte_tokenizer: PreTrainedTokenizerFast
) -> None:
    """In bfloat16 too, as the samples of a run that trains in it are filled."""
    fields = {"model_type": model_type} | TINY_CONFIGS[model_type]
    config = Config(data=DataConfig(block_size=64), model=ModelConfig(config=fields))
    with precision_policy(precision):
        model, _ = make_model(config, byte_tokenizer)
    tokenizer = copy.copy(byte_tokenizer)
    tokenizer.model_max_length = 64
    texts = ["<mask>", "the <mask> of", "a " * 20 + "<mask> <mask>", "none", "a " * 20 + "<mask>", "x <mask>"]
    encoded = tokenizer(texts, padding=True, return_tensors="tf")
    inputs = [tf.cast(encoded[name], tf.int32) for name in ("input_ids", "attention_mask")]
    grouped, whole = (
        FillMask(model, tokenizer, 3, 4, by_length).fill(*inputs) for by_length in (True, False)
    )
    np.testing.assert_array_equal(grouped["positions"], whole["positions"])
    np.testing.assert_allclose(grouped["scores"], whole["scores"], rtol=0, atol=difference)
    if precision == "float32":  # candidates that are nearly as likely may change places otherwise
        for name in ("token_ids", "tokens"):
            np.testing.assert_array_equal(grouped[name], whole[name])
