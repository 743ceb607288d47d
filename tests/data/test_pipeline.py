"""What a step sees depends on the seed and the step alone, and evaluation sees every block once."""

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from tests.data.blocks import pack
from tests.tiny import SENTENCES
from tfmlm.config import MaskingConfig
from tfmlm.data import blocks as packed_blocks
from tfmlm.data.blocks import PackedBlocks, order_examples
from tfmlm.data.masking import EVALUATION_EPOCH, IGNORE_LABEL, MaskableVocabulary, MaskingCollator
from tfmlm.data.pipeline import make_evaluation_batches, make_training_batches

NUM_BLOCKS = 11
BLOCK_SIZE = 16
SEED = 5

Batch = dict[str, NDArray]


@pytest.fixture(scope="module")
def blocks(word_tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> PackedBlocks:
    """The first blocks of packed texts, all full."""
    path = tmp_path_factory.mktemp("blocks") / "blocks.arrow"
    packed = pack(SENTENCES, word_tokenizer, BLOCK_SIZE, path)
    assert packed.num_blocks > NUM_BLOCKS
    return PackedBlocks(packed.table.select(range(NUM_BLOCKS)))


@pytest.fixture(scope="module")
def collator(word_tokenizer: PreTrainedTokenizerFast) -> MaskingCollator:
    # Half of the tokens, so that two masks of one block are all but surely different.
    return MaskingCollator(MaskableVocabulary.from_tokenizer(word_tokenizer), MaskingConfig(rate=0.5), SEED)


def collate(blocks: PackedBlocks, collator: MaskingCollator, rows: NDArray, epochs: NDArray | int) -> Batch:
    """The collator applied to rows of the table, without a pipeline."""
    columns = blocks.table.with_format("numpy")[rows.tolist()]
    dtypes = {
        "input_ids": tf.int32,
        "special_tokens_mask": tf.bool,
        "num_tokens": tf.int32,
        "example_id": tf.int64,
    }
    tensors = {name: tf.constant(columns[name], dtype) for name, dtype in dtypes.items()}
    masked = collator(tensors, tf.constant(epochs, tf.int64))
    return {name: column.numpy() for name, column in masked.items()}


def as_arrays(batches: tf.data.Dataset) -> list[Batch]:
    return list(batches.as_numpy_iterator())


def assert_same(left: list[Batch], right: list[Batch]) -> None:
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        assert one.keys() == other.keys()
        for name, column in one.items():
            np.testing.assert_array_equal(column, other[name], err_msg=name)


# === Order ===


@settings(deadline=None)
@given(st.integers(1, 30), st.integers(0, 2**32), st.integers(0, 5))
def test_each_epoch_is_a_permutation(num_examples: int, seed: int, epoch: int) -> None:
    order = order_examples(num_examples, seed, np.arange(epoch * num_examples, (epoch + 1) * num_examples))
    assert sorted(order) == list(range(num_examples))
    assert order.dtype == np.int64


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(0, 100), st.lists(st.integers(0, 60), min_size=1))
def test_what_is_at_a_position_does_not_depend_on_the_others(
    num_examples: int, seed: int, positions: list[int]
) -> None:
    whole = order_examples(num_examples, seed, np.arange(61))
    np.testing.assert_array_equal(order_examples(num_examples, seed, np.array(positions)), whole[positions])


@settings(deadline=None, max_examples=20)
@given(num_blocks=st.integers(1, 11), bounds=st.tuples(*[st.integers(0, 40)] * 2).map(sorted))
def test_any_part_of_the_sequence(num_blocks: int, bounds: list[int], blocks: PackedBlocks) -> None:
    positions = np.arange(bounds[0], bounds[1] + 1)
    some = PackedBlocks(blocks.table.select(range(num_blocks)))
    chunks = as_arrays(some.read_shuffled(SEED, int(positions[0]), int(positions[-1]) + 1))
    seen = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}
    rows = order_examples(num_blocks, SEED, positions)
    np.testing.assert_array_equal(seen["input_ids"], np.array(blocks.table["input_ids"])[rows])
    np.testing.assert_array_equal(seen["epoch"], positions // num_blocks)


@pytest.mark.parametrize("num_examples", [2000, 10**9])
def test_neighbours_are_parted(num_examples: int) -> None:
    """Of a random order, 2 % of neighbours are less than 1 % of all examples apart."""
    for epoch in range(5):
        positions = epoch * num_examples + np.arange(2000)
        distances = np.abs(np.diff(order_examples(num_examples, SEED, positions)))
        assert 0.01 < np.mean(distances < num_examples // 100) < 0.03


def test_a_thousand_million_positions_need_no_memory(blocks: PackedBlocks) -> None:
    tracemalloc.start()
    chunk = next(iter(blocks.read_shuffled(SEED, 10**9 - 300, 2 * 10**9).as_numpy_iterator()))
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()
    assert chunk["epoch"].tolist() == [(10**9 - 300 + index) // NUM_BLOCKS for index in range(256)]


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = [
        tuple(order_examples(50, seed, np.arange(epoch * 50, (epoch + 1) * 50)))
        for seed in (0, 1, 2, 2**31, 2**32, 2**63)
        for epoch in (0, 1, 2, 3, 2**8, 2**32)
    ]
    assert len(set(orders)) == len(orders)
    assert tuple(range(50)) not in orders


# === Training ===


def test_training_batches_have_static_shapes(blocks: PackedBlocks, collator: MaskingCollator) -> None:
    batches = make_training_batches(blocks, collator, SEED, 0, 3, global_batch_size=4)
    column = tf.TensorSpec([4, BLOCK_SIZE], tf.int32)
    assert batches.element_spec == {"input_ids": column, "attention_mask": column, "labels": column}
    assert len(as_arrays(batches)) == 3


@pytest.mark.parametrize("global_batch_size", [1, 4, 11, 30])
def test_each_step_is_the_collator_on_its_rows_with_the_epoch_of_each(
    global_batch_size: int, blocks: PackedBlocks, collator: MaskingCollator
) -> None:
    num_steps = -(-3 * NUM_BLOCKS // global_batch_size)
    batches = as_arrays(make_training_batches(blocks, collator, SEED, 0, num_steps, global_batch_size))
    positions = np.arange(num_steps * global_batch_size).reshape(num_steps, global_batch_size)
    order = order_examples(NUM_BLOCKS, SEED, positions.ravel()).reshape(positions.shape)
    expected = [
        collate(blocks, collator, rows, epochs)
        for rows, epochs in zip(order, positions // NUM_BLOCKS, strict=True)
    ]
    assert_same(batches, expected)


@pytest.mark.parametrize("first_step", [0, 1, 4])
def test_the_rate_changes_evenly_from_the_first_step_to_the_last(
    first_step: int, blocks: PackedBlocks, collator: MaskingCollator
) -> None:
    """Whatever the batches before a resumed run's first one were, and wherever its chunks begin."""
    num_steps, batch_size = 5, 7
    changing = replace(collator, masking=replace(collator.masking, rate=0.9, final_rate=0.1))
    batches = as_arrays(
        make_training_batches(blocks, changing, SEED, first_step, num_steps, global_batch_size=batch_size)
    )
    positions = np.arange(num_steps * batch_size).reshape(num_steps, batch_size)[first_step:]
    order = order_examples(NUM_BLOCKS, SEED, positions.ravel()).reshape(positions.shape)
    rates = np.linspace(0.9, 0.1, num_steps)[first_step:]
    expected = [
        collate(blocks, replace(collator, masking=replace(collator.masking, rate=rate)), rows, epochs)
        for rate, rows, epochs in zip(rates, order, positions // NUM_BLOCKS, strict=True)
    ]
    assert_same(batches, expected)
    shares = [(batch["labels"] != IGNORE_LABEL).mean() for batch in batches]
    assert shares == sorted(shares, reverse=True)


def test_evaluation_is_at_the_last_rate_of_training(collator: MaskingCollator) -> None:
    for rates, expected in (
        ({"rate": 0.3}, 0.3),
        ({"rate": 0.3, "final_rate": 0.15}, 0.15),
        ({"rate": 0.3, "final_rate": 0.15, "evaluation_rate": 0.2}, 0.2),
    ):
        evaluation = replace(collator, masking=MaskingConfig(**rates)).for_evaluation().masking
        assert (evaluation.rate, evaluation.final_rate) == (expected, None)


def test_a_batch_that_spans_two_epochs_has_the_masks_of_both(
    blocks: PackedBlocks, collator: MaskingCollator
) -> None:
    spanning = as_arrays(make_training_batches(blocks, collator, SEED, 1, 2, global_batch_size=8))[0]
    rows = order_examples(NUM_BLOCKS, SEED, np.arange(8, 16))
    epochs = np.array([0, 0, 0, 1, 1, 1, 1, 1])
    assert_same([spanning], [collate(blocks, collator, rows, epochs)])
    for one_epoch in (0, 1):
        of_one = collate(blocks, collator, rows, one_epoch)
        same = (spanning["labels"] == of_one["labels"]).all(axis=1)
        assert same.tolist() == (epochs == one_epoch).tolist()


def test_every_epoch_trains_on_every_token_once_under_masks_of_its_own(
    blocks: PackedBlocks, collator: MaskingCollator
) -> None:
    batches = as_arrays(make_training_batches(blocks, collator, SEED, 0, 2, global_batch_size=NUM_BLOCKS))
    originals, chosen = [], []
    for batch in batches:
        is_chosen = batch["labels"] != IGNORE_LABEL
        # At a chosen position the label is the token, elsewhere the input is.
        rows = np.where(is_chosen, batch["labels"], batch["input_ids"])
        in_order = np.lexsort(rows.T)
        originals.append(rows[in_order])
        chosen.append(is_chosen[in_order])
    expected = np.array(blocks.table["input_ids"])
    for rows in originals:
        np.testing.assert_array_equal(rows, expected[np.lexsort(expected.T)])
    assert (chosen[0] != chosen[1]).any(axis=1).all()


@pytest.mark.parametrize("first_step", [0, 1, 2, 3, 6])
def test_starting_later_equals_skipping(
    first_step: int, blocks: PackedBlocks, collator: MaskingCollator
) -> None:
    whole = as_arrays(make_training_batches(blocks, collator, SEED, 0, 7, global_batch_size=4))
    rest = as_arrays(make_training_batches(blocks, collator, SEED, first_step, 7, global_batch_size=4))
    assert_same(rest, whole[first_step:])


def test_stopping_earlier_changes_no_step(blocks: PackedBlocks, collator: MaskingCollator) -> None:
    whole = as_arrays(make_training_batches(blocks, collator, SEED, 0, 7, global_batch_size=4))
    some = as_arrays(make_training_batches(blocks, collator, SEED, 0, 4, global_batch_size=4))
    assert_same(some, whole[:4])


def test_a_second_pass_over_the_same_steps_is_the_same(
    blocks: PackedBlocks, collator: MaskingCollator
) -> None:
    batches = make_training_batches(blocks, collator, SEED, 2, 9, global_batch_size=4)
    assert_same(as_arrays(batches), as_arrays(batches))


def test_another_seed_gives_another_order(blocks: PackedBlocks, collator: MaskingCollator) -> None:
    batches, others = (
        as_arrays(make_training_batches(blocks, collator, seed, 0, 2, global_batch_size=5))
        for seed in (SEED, SEED + 1)
    )
    assert (batches[0]["labels"] != others[0]["labels"]).any()


@pytest.mark.parametrize("blocks_a_fetch", [1, 3, 7])
def test_how_many_blocks_are_fetched_at_once_does_not_matter(
    blocks_a_fetch: int, blocks: PackedBlocks, collator: MaskingCollator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make_both() -> list[Batch]:
        training = make_training_batches(blocks, collator, SEED, 1, 8, global_batch_size=4)
        return as_arrays(training) + as_arrays(make_evaluation_batches(blocks, collator, 4))

    at_once = make_both()
    monkeypatch.setattr(packed_blocks, "BLOCKS_A_CHUNK", blocks_a_fetch)
    assert_same(make_both(), at_once)


# === Evaluation ===


@pytest.mark.parametrize("global_batch_size", [1, 4, 11, 16])
def test_evaluation_sees_every_block_once_and_fills_the_last_batch_with_nothing(
    global_batch_size: int, blocks: PackedBlocks, collator: MaskingCollator
) -> None:
    batches = make_evaluation_batches(blocks, collator, global_batch_size)
    column = tf.TensorSpec([global_batch_size, BLOCK_SIZE], tf.int32)
    assert batches.element_spec == {"input_ids": column, "attention_mask": column, "labels": column}

    expected = collate(blocks, collator, np.arange(NUM_BLOCKS), EVALUATION_EPOCH)
    seen = as_arrays(batches)
    assert len(seen) == -(-NUM_BLOCKS // global_batch_size)
    for name, rows in expected.items():
        joined = np.concatenate([batch[name] for batch in seen])
        np.testing.assert_array_equal(joined[:NUM_BLOCKS], rows, err_msg=name)
        if name != "input_ids":
            filler = IGNORE_LABEL if name == "labels" else 0
            assert (joined[NUM_BLOCKS:] == filler).all()


@pytest.mark.parametrize("most_blocks", [1, 3, 4, 6, NUM_BLOCKS, 100])
@pytest.mark.parametrize("blocks_a_chunk", [3, 256])
def test_evaluation_sees_the_first_blocks_and_no_more(
    blocks_a_chunk: int,
    most_blocks: int,
    blocks: PackedBlocks,
    collator: MaskingCollator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(packed_blocks, "BLOCKS_A_CHUNK", blocks_a_chunk)
    whole, cut = (
        as_arrays(make_evaluation_batches(blocks, collator, 4, most)) for most in (None, most_blocks)
    )
    num_blocks = min(most_blocks, NUM_BLOCKS)
    assert len(cut) == -(-num_blocks // 4)
    for name in whole[0]:
        expected, seen = (np.concatenate([batch[name] for batch in batches]) for batches in (whole, cut))
        np.testing.assert_array_equal(seen[:num_blocks], expected[:num_blocks], err_msg=name)
        if name == "labels":
            assert (seen[num_blocks:] == IGNORE_LABEL).all()


def test_evaluation_is_the_same_on_every_pass(blocks: PackedBlocks, collator: MaskingCollator) -> None:
    batches = make_evaluation_batches(blocks, collator, 4)
    assert_same(as_arrays(batches), as_arrays(batches))
    assert_same(as_arrays(batches), as_arrays(make_evaluation_batches(blocks, collator, 4)))


def test_evaluation_masks_are_not_those_of_training(blocks: PackedBlocks, collator: MaskingCollator) -> None:
    rows = np.arange(NUM_BLOCKS)
    evaluation = collate(blocks, collator, rows, EVALUATION_EPOCH)["labels"]
    for epoch in range(3):
        assert (evaluation != collate(blocks, collator, rows, epoch)["labels"]).any(axis=1).all()


def test_padding_of_the_last_block_is_neither_attended_nor_labelled(
    collator: MaskingCollator, word_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    short = pack(SENTENCES[:1], word_tokenizer, 64, tmp_path / "short.arrow")
    (batch,) = as_arrays(make_evaluation_batches(short, collator, 1))
    num_tokens = len(word_tokenizer(SENTENCES[0])["input_ids"])
    assert batch["attention_mask"].sum() == num_tokens
    assert batch["attention_mask"][0, :num_tokens].all()
    assert (batch["input_ids"][0, num_tokens:] == word_tokenizer.pad_token_id).all()
    assert (batch["labels"][0, num_tokens:] == IGNORE_LABEL).all()
    assert (batch["labels"][0, [0, num_tokens - 1]] == IGNORE_LABEL).all()
