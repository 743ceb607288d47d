"""Masks are a function of (seed, epoch, example, position), and fall on text only."""

from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tests.data.blocks import (
    CLS,
    MASK,
    PAD,
    SEP,
    UNK,
    VOCABULARY,
    Arrays,
    apply_collator,
    make_blocks,
    make_collator,
    mask_slowly,
    mix,
    unit,
)
from tfmlm.config import MaskingConfig
from tfmlm.data.masking import EVALUATION_EPOCH, IGNORE_LABEL, MaskableVocabulary, MaskingCollator


@st.composite
def collators(draw: st.DrawFn) -> MaskingCollator:
    mask_fraction = draw(st.floats(0, 1, width=32))
    return make_collator(
        rate=draw(st.floats(0, 1)),
        mask_fraction=mask_fraction,
        random_fraction=draw(st.floats(0, 1)) * (1 - mask_fraction),
        seed=draw(st.integers(-(2**31), 2**63)),
    )


@st.composite
def random_blocks(draw: st.DrawFn) -> Arrays:
    shape = draw(st.integers(1, 4)), draw(st.integers(1, 12))
    return {
        "input_ids": draw(arrays(np.int32, shape, elements=st.integers(0, 36))),
        "special_tokens_mask": draw(arrays(np.bool_, shape)),
        "num_tokens": draw(arrays(np.int32, shape[:1], elements=st.integers(0, shape[1]))),
        "example_id": draw(arrays(np.int64, shape[:1], elements=st.integers(0, 2**40))),
    }


# === Equal to the reference ===


@settings(deadline=None, max_examples=60)
@given(collators(), random_blocks(), st.data())
def test_equals_the_slow_reference(collator: MaskingCollator, blocks: Arrays, data: st.DataObject) -> None:
    num_rows = len(blocks["example_id"])
    one_epoch = st.integers(0, EVALUATION_EPOCH)
    epochs = data.draw(st.lists(one_epoch, min_size=num_rows, max_size=num_rows))
    masked = apply_collator(collator, blocks, epochs)
    expected = mask_slowly(collator, blocks, epochs)
    assert masked.keys() == expected.keys()
    for name, column in expected.items():
        np.testing.assert_array_equal(masked[name], column, err_msg=name)


def test_one_epoch_for_all_rows_equals_it_given_row_by_row() -> None:
    blocks = make_blocks(np.arange(5, 37).reshape(4, 8))
    for_all = apply_collator(make_collator(rate=0.5), blocks, 3)
    row_by_row = apply_collator(make_collator(rate=0.5), blocks, [3] * 4)
    np.testing.assert_array_equal(for_all["input_ids"], row_by_row["input_ids"])


def test_the_graph_and_the_integer_mask_give_the_same_masks_as_eager_booleans() -> None:
    collator = make_collator(rate=0.5)
    blocks = make_blocks(np.arange(5, 37).reshape(4, 8))
    blocks["special_tokens_mask"][:, 0] = True
    eager = apply_collator(collator, blocks, 1)
    as_integers = blocks | {"special_tokens_mask": blocks["special_tokens_mask"].astype(np.int32)}
    tensors = {name: tf.constant(column) for name, column in as_integers.items()}
    in_graph = tf.function(lambda: collator(tensors, tf.constant(1, tf.int64)))()
    for name, column in eager.items():
        np.testing.assert_array_equal(in_graph[name].numpy(), column, err_msg=name)


# === Exact answers ===


def test_rate_zero_changes_nothing() -> None:
    blocks = make_blocks(np.arange(5, 37).reshape(2, 16))
    masked = apply_collator(make_collator(rate=0.0), blocks)
    np.testing.assert_array_equal(masked["input_ids"], blocks["input_ids"])
    assert (masked["labels"] == IGNORE_LABEL).all()


def test_rate_one_with_mask_fraction_one_hides_every_token() -> None:
    blocks = make_blocks(np.arange(5, 37).reshape(2, 16))
    masked = apply_collator(make_collator(1.0, mask_fraction=1.0, random_fraction=0.0), blocks)
    np.testing.assert_array_equal(masked["labels"], blocks["input_ids"])
    assert (masked["input_ids"] == MASK).all()


def test_rate_one_with_random_fraction_one_replaces_every_token_by_a_word() -> None:
    blocks = make_blocks(np.full((50, 20), UNK))  # UNK is no word, so a token left as it is would be seen
    masked = apply_collator(make_collator(1.0, mask_fraction=0.0, random_fraction=1.0), blocks)
    np.testing.assert_array_equal(masked["labels"], blocks["input_ids"])
    assert set(masked["input_ids"].flat) == set(VOCABULARY.random_ids)


def test_rate_one_with_both_fractions_zero_only_labels() -> None:
    blocks = make_blocks(np.arange(5, 37).reshape(2, 16))
    masked = apply_collator(make_collator(1.0, mask_fraction=0.0, random_fraction=0.0), blocks)
    np.testing.assert_array_equal(masked["input_ids"], blocks["input_ids"])
    np.testing.assert_array_equal(masked["labels"], blocks["input_ids"])


WRITTEN_DOWN = {
    0: [[0, 1, 4, 8, 9], [3, 6, 8, 10]],
    EVALUATION_EPOCH: [[1, 5, 7, 11], [0, 2, 4, 5, 10]],
}
"""Chosen positions of two rows in version 0.1.0, by epoch."""


@pytest.mark.parametrize("epoch", WRITTEN_DOWN)
def test_masks_of_a_seed_are_the_same_in_every_release(epoch: int) -> None:
    """Perplexities of two releases can be compared only if the evaluation's masks stay."""
    labels = apply_collator(make_collator(rate=0.3), make_blocks(np.full((2, 12), UNK)), epoch)["labels"]
    chosen = [np.flatnonzero(row != -100).tolist() for row in labels]
    assert chosen == WRITTEN_DOWN[epoch]


def test_a_draw_that_equals_the_rate_is_not_below_it() -> None:
    """Draws are multiples of 2**-24, so that a rate can be one of them."""
    blocks = make_blocks(np.full((1, 1), UNK))
    with np.errstate(over="ignore"):
        choice = mix(mix(mix(mix(np.uint64(0)))))
        action = mix(choice ^ np.uint64(0x5851F42D4C957F2D))
    draw, roll = float(unit(choice)), float(unit(action))
    above = float(np.nextafter(np.float32(draw), np.float32(1)))

    def mask(*rates: float) -> tuple[int, int]:
        masked = apply_collator(make_collator(*rates), blocks)
        return int(masked["labels"][0, 0]), int(masked["input_ids"][0, 0])

    assert mask(draw, 1.0, 0.0) == (IGNORE_LABEL, UNK)
    assert mask(above, 1.0, 0.0) == (UNK, MASK)
    assert mask(1.0, roll, 0.0) == (UNK, UNK)
    assert mask(1.0, 0.0, roll) == (UNK, UNK)


def test_all_32_bits_choose_the_random_word() -> None:
    """In a vocabulary so large that the lowest bit decides now and then."""
    num_words = 1_000_003
    vocabulary = MaskableVocabulary(MASK, np.array([], np.int32), np.arange(num_words, dtype=np.int32))
    collator = MaskingCollator(vocabulary, MaskingConfig(1.0, 0.0, 1.0), seed=0)
    shown = apply_collator(collator, make_blocks(np.zeros((1, 2**17))))["input_ids"][0]
    with np.errstate(over="ignore"):
        row_key = mix(mix(mix(np.zeros(1, np.uint64))))
        choice = mix(row_key + np.arange(2**17, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))
        action = mix(choice ^ np.uint64(0x5851F42D4C957F2D))
    low_bits = action & np.uint64(2**32 - 1)
    np.testing.assert_array_equal(shown, low_bits * np.uint64(num_words) >> np.uint64(32))


def test_nobody_changes_a_collator_that_a_graph_was_traced_with() -> None:
    collator = make_collator()
    with pytest.raises(FrozenInstanceError):
        collator.seed = 1
    with pytest.raises(FrozenInstanceError):
        collator.vocabulary.mask_token_id = 1


# === What always holds ===


@settings(deadline=None, max_examples=60)
@given(collators(), random_blocks(), st.integers(0, EVALUATION_EPOCH))
def test_invariants(collator: MaskingCollator, blocks: Arrays, epoch: int) -> None:
    masked = apply_collator(collator, blocks, epoch)
    given_ids = blocks["input_ids"]
    chosen = masked["labels"] != IGNORE_LABEL
    is_text = np.arange(given_ids.shape[1]) < blocks["num_tokens"][:, np.newaxis]

    np.testing.assert_array_equal(masked["attention_mask"], is_text)
    np.testing.assert_array_equal(masked["labels"][chosen], given_ids[chosen])
    np.testing.assert_array_equal(masked["input_ids"][~chosen], given_ids[~chosen])
    never_chosen = ~is_text | blocks["special_tokens_mask"] | np.isin(given_ids, VOCABULARY.protected_ids)
    assert not (chosen & never_chosen).any()
    changed = masked["input_ids"] != given_ids
    assert np.isin(masked["input_ids"][changed], [MASK, *VOCABULARY.random_ids]).all()
    assert {column.dtype for column in masked.values()} == {np.dtype(np.int32)}
    assert {column.shape for column in masked.values()} == {given_ids.shape}


@pytest.mark.parametrize("token_id", [PAD, CLS, SEP, MASK])
def test_special_tokens_are_never_chosen(token_id: int) -> None:
    masked = apply_collator(make_collator(rate=1.0), make_blocks(np.full((2, 8), token_id)))
    assert (masked["labels"] == IGNORE_LABEL).all()
    assert (masked["input_ids"] == token_id).all()


def test_unknown_words_are_chosen() -> None:
    masked = apply_collator(make_collator(rate=1.0), make_blocks(np.full((2, 8), UNK)))
    assert (masked["labels"] == UNK).all()


def test_special_tokens_mask_is_respected_for_ordinary_ids() -> None:
    blocks = make_blocks(np.full((1, 4), 20))
    blocks["special_tokens_mask"][0, [0, 3]] = True
    masked = apply_collator(make_collator(rate=1.0), blocks)
    assert masked["labels"].tolist() == [[IGNORE_LABEL, 20, 20, IGNORE_LABEL]]


def test_what_follows_num_tokens_is_padding_whatever_its_id() -> None:
    blocks = make_blocks(np.full((3, 4), 20)) | {"num_tokens": np.array([0, 3, 4], np.int32)}
    masked = apply_collator(make_collator(rate=1.0), blocks)
    expected = [[0, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
    assert masked["attention_mask"].tolist() == expected
    assert (masked["labels"] != IGNORE_LABEL).tolist() == np.array(expected, np.bool_).tolist()


# === Reproducible example by example ===


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 15), min_size=1, max_size=20), st.integers(0, 1000))
def test_an_example_is_masked_the_same_in_any_company(rows: list[int], epoch: int) -> None:
    token_ids = np.random.default_rng(0).integers(5, 37, (16, 32))
    whole = apply_collator(make_collator(rate=0.5), make_blocks(token_ids), epoch)
    part = apply_collator(make_collator(rate=0.5), make_blocks(token_ids[rows], rows), epoch)
    for name, column in part.items():
        np.testing.assert_array_equal(column, whole[name][rows], err_msg=name)


def test_no_two_of_many_seeds_epochs_and_examples_share_their_masks() -> None:
    blocks = make_blocks(np.full((8, 128), UNK))
    seen = [
        (apply_collator(make_collator(rate=0.5, seed=seed), blocks, epoch)["labels"][row]).tobytes()
        for seed in (-1, 0, 1, 2, 2**32, 2**63)
        for epoch in (0, 1, 2, EVALUATION_EPOCH)
        for row in range(8)
    ]
    assert len(set(seen)) == len(seen)
