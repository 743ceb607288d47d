"""Masks are a function of (seed, epoch, example, position), fall on text only, in the promised shares."""

from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import tensorflow as tf
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import stats
from transformers import (
    BertConfig,
    DataCollatorForLanguageModeling,
    PreTrainedTokenizerFast,
    TFBertForMaskedLM,
)

from tfmlm.config import MaskingConfig
from tfmlm.data.masking import EVALUATION_EPOCH, IGNORE_LABEL, MaskableVocabulary, MaskingCollator
from tfmlm.data.packing import StreamTokenizer

PAD, UNK, CLS, SEP, MASK = range(5)
VOCABULARY = MaskableVocabulary(
    mask_token_id=MASK,
    protected_ids=np.array([PAD, CLS, SEP, MASK], np.int32),
    random_ids=np.arange(5, 37, dtype=np.int32),
)
SMALLEST_P_VALUE = 1e-3
"""The seeds are fixed, so a test passes always or never."""

Arrays = dict[str, NDArray]

# === A slow reference ===


def mix(value: np.uint64) -> np.uint64:
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def unit(bits: np.uint64) -> np.float32:
    return np.float32(int(bits) >> 40) / np.float32(2**24)


@np.errstate(over="ignore")
def mask_slowly(collator: MaskingCollator, blocks: Arrays, epochs: list[int]) -> Arrays:
    """What `MaskingCollator` promises, one token at a time."""
    masking, vocabulary = collator.masking, collator.vocabulary
    masked = {
        "input_ids": blocks["input_ids"].copy(),
        "attention_mask": np.zeros_like(blocks["input_ids"]),
        "labels": np.full_like(blocks["input_ids"], IGNORE_LABEL),
    }
    for row, token_ids in enumerate(blocks["input_ids"]):
        epoch_key = mix(mix(np.uint64(collator.seed % 2**64)) + np.uint64(epochs[row]))
        row_key = mix(epoch_key + np.uint64(blocks["example_id"][row]))
        for position, token_id in enumerate(token_ids):
            if position >= blocks["num_tokens"][row]:
                continue
            masked["attention_mask"][row, position] = 1
            if blocks["special_tokens_mask"][row, position] or token_id in vocabulary.protected_ids:
                continue
            choice = mix(row_key + np.uint64(position) * np.uint64(0x9E3779B97F4A7C15))
            if not unit(choice) < np.float32(masking.rate):
                continue
            masked["labels"][row, position] = token_id
            action = mix(choice ^ np.uint64(0x5851F42D4C957F2D))
            if unit(action) < np.float32(masking.mask_fraction):
                masked["input_ids"][row, position] = vocabulary.mask_token_id
            elif unit(action) < np.float32(masking.mask_fraction + masking.random_fraction):
                draw = (int(action) & 0xFFFFFFFF) * len(vocabulary.random_ids) >> 32
                masked["input_ids"][row, position] = vocabulary.random_ids[draw]
    return masked


# === Building blocks ===


def make_collator(
    rate: float = 0.15, mask_fraction: float = 0.8, random_fraction: float = 0.1, seed: int = 0
) -> MaskingCollator:
    return MaskingCollator(VOCABULARY, MaskingConfig(rate, mask_fraction, random_fraction), seed)


def make_blocks(token_ids: NDArray, example_ids: NDArray | None = None) -> Arrays:
    """Full blocks without special tokens."""
    num_rows, length = token_ids.shape
    return {
        "input_ids": token_ids.astype(np.int32),
        "special_tokens_mask": np.zeros((num_rows, length), np.bool_),
        "num_tokens": np.full(num_rows, length, np.int32),
        "example_id": np.arange(num_rows) if example_ids is None else np.asarray(example_ids, np.int64),
    }


def apply_collator(collator: MaskingCollator, blocks: Arrays, epoch: int | list[int] = 0) -> Arrays:
    tensors = {name: tf.constant(column) for name, column in blocks.items()}
    masked = collator(tensors, tf.constant(epoch, tf.int64))
    return {name: column.numpy() for name, column in masked.items()}


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


# === The shares, on a million tokens ===


@pytest.fixture(scope="module", params=[0, 1, 2**40])
def million_masked(request: pytest.FixtureRequest) -> Arrays:
    blocks = make_blocks(np.full((4096, 256), UNK))
    return apply_collator(make_collator(seed=request.param), blocks)


def test_the_share_of_chosen_tokens_is_the_rate(million_masked: Arrays) -> None:
    chosen = million_masked["labels"] != IGNORE_LABEL
    observed = [chosen.sum(), (~chosen).sum()]
    expected = [0.15 * chosen.size, 0.85 * chosen.size]
    assert stats.chisquare(observed, expected).pvalue > SMALLEST_P_VALUE


def test_chosen_tokens_are_masked_replaced_and_kept_80_10_10(million_masked: Arrays) -> None:
    chosen = million_masked["labels"] != IGNORE_LABEL
    shown = million_masked["input_ids"][chosen]
    observed = [(shown == MASK).sum(), (shown > MASK).sum(), (shown == UNK).sum()]
    assert sum(observed) == chosen.sum()
    expected = np.array([0.8, 0.1, 0.1]) * chosen.sum()
    assert stats.chisquare(observed, expected).pvalue > SMALLEST_P_VALUE


def test_random_words_are_uniform(million_masked: Arrays) -> None:
    shown = million_masked["input_ids"]
    counts = np.bincount(shown[shown > MASK], minlength=37)[VOCABULARY.random_ids]
    assert counts.sum() > 14_000
    assert stats.chisquare(counts).pvalue > SMALLEST_P_VALUE


def test_no_position_and_no_example_is_preferred(million_masked: Arrays) -> None:
    chosen = million_masked["labels"] != IGNORE_LABEL
    for axis in (0, 1):
        counts = chosen.sum(axis=axis)
        # The variance of a binomial count is smaller than a Poisson's, which `chisquare` takes it for.
        statistic = ((counts - counts.mean()) ** 2).sum() / (chosen.shape[axis] * 0.15 * 0.85)
        assert SMALLEST_P_VALUE < stats.chi2.cdf(statistic, len(counts) - 1) < 1 - SMALLEST_P_VALUE


def test_neighbours_examples_epochs_and_seeds_are_independent() -> None:
    blocks = make_blocks(np.full((1024, 128), UNK))

    def choose(epoch: int, seed: int) -> NDArray:
        return apply_collator(make_collator(rate=0.5, seed=seed), blocks, epoch)["labels"] != IGNORE_LABEL

    first = choose(epoch=0, seed=0)
    pairs = {
        "next position": (first[:, :-1], first[:, 1:]),
        "next example": (first[:-1], first[1:]),
        "next epoch": (first, choose(epoch=1, seed=0)),
        "next seed": (first, choose(epoch=0, seed=1)),
        # With one sum for a key, example 1 of epoch 0 would get the masks of example 0 of epoch 1.
        "epoch for example": (first[1:], choose(epoch=1, seed=0)[:-1]),
        "seed for epoch": (choose(epoch=1, seed=0), choose(epoch=0, seed=1)),
    }
    for name, (left, right) in pairs.items():
        table = np.histogram2d(left.ravel(), right.ravel(), bins=2)[0]
        assert stats.chi2_contingency(table).pvalue > SMALLEST_P_VALUE, name


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


# === Tokenizers ===


@pytest.mark.parametrize("fixture", ["word_tokenizer", "byte_tokenizer"])
def test_vocabulary_from_a_tokenizer(fixture: str, request: pytest.FixtureRequest) -> None:
    tokenizer = request.getfixturevalue(fixture)
    vocabulary = MaskableVocabulary.from_tokenizer(tokenizer)
    special = set(tokenizer.all_special_ids)
    assert vocabulary.mask_token_id == tokenizer.mask_token_id
    assert set(vocabulary.protected_ids) == special - {tokenizer.unk_token_id}
    assert sorted([*vocabulary.random_ids, *special]) == list(range(len(tokenizer)))


def test_a_tokenizer_whose_unknown_word_is_its_end_of_text_can_still_mask_unknown_words(
    byte_tokenizer: PreTrainedTokenizerFast,
) -> None:
    # As in GPT-2's family; the borders are protected by `special_tokens_mask` alone.
    shared = PreTrainedTokenizerFast(
        tokenizer_object=byte_tokenizer.backend_tokenizer,
        unk_token="</s>",
        eos_token="</s>",
        pad_token="<pad>",
        mask_token="<mask>",
    )
    vocabulary = MaskableVocabulary.from_tokenizer(shared)
    assert set(vocabulary.protected_ids) == {shared.pad_token_id, shared.mask_token_id}


def test_a_text_that_spells_a_special_token_is_text_but_is_never_masked(
    word_tokenizer: PreTrainedTokenizerFast,
) -> None:
    stream = StreamTokenizer(word_tokenizer)(["the [SEP] list"])
    sep = word_tokenizer.sep_token_id
    spelled = np.flatnonzero(stream.token_ids == sep)[0]
    assert 0 < spelled < len(stream.token_ids) - 1
    assert stream.is_special.nonzero()[0].tolist() == [0, len(stream.token_ids) - 1]

    blocks = make_blocks(stream.token_ids[np.newaxis]) | {
        "special_tokens_mask": stream.is_special[np.newaxis]
    }
    vocabulary = MaskableVocabulary.from_tokenizer(word_tokenizer)
    masked = apply_collator(MaskingCollator(vocabulary, MaskingConfig(rate=1.0), seed=0), blocks)
    not_chosen = np.flatnonzero(masked["labels"][0] == IGNORE_LABEL)
    assert not_chosen.tolist() == [0, spelled, len(stream.token_ids) - 1]


# === What the stock parts do wrong, and these do not (DESIGN.md, section 2) ===


def stock_collator(tokenizer: PreTrainedTokenizerFast, **settings: float) -> DataCollatorForLanguageModeling:
    return DataCollatorForLanguageModeling(tokenizer, return_tensors="tf", **settings)


def test_stock_prepare_tf_dataset_loses_the_special_tokens_mask_and_unknown_words_with_it(
    word_tokenizer: PreTrainedTokenizerFast,
) -> None:
    rows = {
        "input_ids": [[CLS, 10, UNK, 11, UNK, SEP]],
        "special_tokens_mask": [[1, 0, 0, 0, 0, 1]],
    }
    stock = stock_collator(word_tokenizer, mlm_probability=1.0)
    config = BertConfig(
        vocab_size=300, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
    )
    batches = TFBertForMaskedLM(config).prepare_tf_dataset(
        Dataset.from_dict(rows), batch_size=1, shuffle=False, collate_fn=stock
    )
    _, through_stock_pipeline = next(iter(batches))
    assert through_stock_pipeline.numpy().tolist() == [[-100, 10, -100, 11, -100, -100]]
    # The collator by itself would have chosen them: the mask was lost on the way.
    alone = stock([{name: column[0] for name, column in rows.items()}])
    assert alone["labels"].numpy().tolist() == [[-100, 10, UNK, 11, UNK, -100]]

    blocks = make_blocks(np.array(rows["input_ids"]))
    blocks["special_tokens_mask"] = np.array(rows["special_tokens_mask"], np.bool_)
    ours = apply_collator(make_collator(rate=1.0), blocks)
    assert ours["labels"].tolist() == [[-100, 10, UNK, 11, UNK, -100]]


def test_stock_collator_takes_seed_zero_for_no_seed(word_tokenizer: PreTrainedTokenizerFast) -> None:
    token_ids = np.random.default_rng(0).integers(5, 37, (8, 64))
    rows = [{"input_ids": row.tolist(), "special_tokens_mask": [0] * 64} for row in token_ids]

    def stock_masks(seed: int) -> NDArray:
        return stock_collator(word_tokenizer, mlm_probability=0.5, seed=seed)(rows)["labels"].numpy()

    assert (stock_masks(seed=1) == stock_masks(seed=1)).all()
    assert (stock_masks(seed=0) != stock_masks(seed=0)).any()

    ours = [
        apply_collator(make_collator(rate=0.5, seed=0), make_blocks(token_ids))["labels"] for _ in range(2)
    ]
    assert (ours[0] == ours[1]).all()


def test_stock_collator_draws_special_tokens_for_random_words(
    word_tokenizer: PreTrainedTokenizerFast,
) -> None:
    token_ids = np.full((64, 128), 20)
    stock = stock_collator(
        word_tokenizer, mlm_probability=1.0, mask_replace_prob=0.0, random_replace_prob=1.0, seed=1
    )
    rows = [{"input_ids": row.tolist(), "special_tokens_mask": [0] * 128} for row in token_ids]
    special = set(word_tokenizer.all_special_ids)
    assert special & set(stock(rows)["input_ids"].numpy().flat) == special

    vocabulary = MaskableVocabulary.from_tokenizer(word_tokenizer)
    every_word = MaskingConfig(rate=1.0, mask_fraction=0.0, random_fraction=1.0)
    ours = apply_collator(MaskingCollator(vocabulary, every_word, seed=1), make_blocks(token_ids))
    assert not special & set(ours["input_ids"].flat)
    assert len(set(ours["input_ids"].flat)) == len(vocabulary.random_ids)


def test_stock_collator_masks_an_example_by_its_place_in_the_run_not_by_what_it_is(
    word_tokenizer: PreTrainedTokenizerFast,
) -> None:
    token_ids = np.random.default_rng(0).integers(5, 37, (4, 64))
    rows = [{"input_ids": row.tolist(), "special_tokens_mask": [0] * 64} for row in token_ids]
    in_order, reversed_order = (
        stock_collator(word_tokenizer, mlm_probability=0.5, seed=1)(some)["labels"].numpy()
        for some in (rows, rows[::-1])
    )
    assert (in_order != reversed_order[::-1]).any()

    blocks = make_blocks(token_ids)
    backwards = {name: column[::-1].copy() for name, column in blocks.items()}
    ours, ours_backwards = (
        apply_collator(make_collator(rate=0.5, seed=1), some)["labels"] for some in (blocks, backwards)
    )
    assert (ours == ours_backwards[::-1]).all()
