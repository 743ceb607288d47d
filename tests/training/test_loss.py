"""The loss as sum and weight."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertConfig, TFBertForMaskedLM

from tests.tiny import TINY_CONFIGS
from tfmlm.data.masking import IGNORE_LABEL
from tfmlm.training.loss import count_slots, gather_masked_positions, sum_cross_entropy, sum_in_top


def reference_loss(logits: np.ndarray, labels: np.ndarray) -> tuple[float, int]:
    """Sum of -log softmax(logits)[label] over chosen positions, one at a time, in float64."""
    total, count = 0.0, 0
    for row_logits, row_labels in zip(logits.astype(np.float64), labels, strict=True):
        for token_logits, label in zip(row_logits, row_labels, strict=True):
            if label != IGNORE_LABEL:
                shifted = token_logits - token_logits.max()
                total += np.log(np.exp(shifted).sum()) - shifted[label]
                count += 1
    return total, count


@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_equals_the_reference(data: st.DataObject) -> None:
    batch, length, vocabulary = (data.draw(st.integers(1, 6)) for _ in range(3))
    seed = data.draw(st.integers(0, 1000))
    rng = np.random.default_rng(seed)
    labels = np.where(rng.random((batch, length)) < 0.4, rng.integers(0, vocabulary, (batch, length)), -100)
    logits = rng.normal(size=(batch, length, vocabulary)).astype(np.float32)

    positions = gather_masked_positions(tf.constant(labels, tf.int32), batch * length)
    chosen = tf.gather(logits.reshape(-1, vocabulary), positions.indices)
    loss = sum_cross_entropy(chosen, positions.labels, positions.weights)

    expected, count = reference_loss(logits, labels)
    assert float(loss) == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert float(tf.reduce_sum(positions.weights)) == count
    assert int(positions.overflow) == 0


def test_slots_hold_the_first_chosen_positions_in_order_and_count_the_rest() -> None:
    labels = tf.constant([[-100, 7, -100, 8], [9, -100, -100, 10]])
    positions = gather_masked_positions(labels, num_slots=3)
    assert positions.indices.numpy().tolist() == [1, 3, 4]
    assert positions.labels.numpy().tolist() == [7, 8, 9]
    assert positions.weights.numpy().tolist() == [1.0, 1.0, 1.0]
    assert int(positions.overflow) == 1


def test_empty_slots_weigh_nothing() -> None:
    positions = gather_masked_positions(tf.constant([[-100, 2, -100, -100]]), num_slots=3)
    assert positions.weights.numpy().tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("rate", [0.0, 0.15, 0.4, 0.9, 1.0])
@pytest.mark.parametrize(("whole_word", "variance_factor"), [(False, 1.0), (True, 4.0)])
def test_slots_are_the_next_multiple_of_eight_above_six_deviations(
    rate: float, whole_word: bool, variance_factor: float
) -> None:
    for num_tokens in range(1, 3000):
        mean = num_tokens * rate
        needed = mean + 6 * (variance_factor * mean * (1 - rate)) ** 0.5
        slots = count_slots(num_tokens, rate, whole_word)
        assert slots == num_tokens or slots % 8 == 0
        assert min(num_tokens, needed) <= slots <= min(num_tokens, needed + 8)
        assert slots == num_tokens or slots > needed


def test_words_are_asked_for_by_name() -> None:
    assert count_slots(2048, 0.15) == count_slots(2048, 0.15, whole_word=False)


def test_a_label_is_in_the_top_if_fewer_than_k_logits_are_higher() -> None:
    logits = tf.constant(
        [[3.0, 2.0, 1.0, 0.0], [0.0, 1.0, 2.0, 3.0], [5.0, 5.0, 1.0, 0.0], [9.0, 0.0, 0.0, 0.0]]
    )
    labels = tf.constant([0, 1, 1, IGNORE_LABEL])  # ranks 0 and 2, 0 in a tie, and an empty slot
    weights = tf.constant([1.0, 1.0, 1.0, 0.0])
    counts = [float(sum_in_top(logits, labels, weights, k)) for k in (0, 1, 2, 3, 4)]
    assert counts == [0.0, 2.0, 2.0, 3.0, 3.0]


def test_empty_slots_do_no_harm_with_a_vocabulary_of_one() -> None:
    logits, labels, weights = tf.zeros([2, 1]), tf.constant([0, IGNORE_LABEL]), tf.constant([1.0, 0.0])
    assert float(sum_in_top(logits, labels, weights, 1)) == 1.0
    assert float(sum_cross_entropy(logits, labels, weights)) == 0.0


def test_no_masked_token_is_zero_where_the_stock_loss_is_nan() -> None:
    labels = tf.fill([2, 8], IGNORE_LABEL)
    model = TFBertForMaskedLM(BertConfig(vocab_size=50, **TINY_CONFIGS["bert"]))
    stock = model(tf.ones([2, 8], tf.int32), labels=labels).loss
    assert np.isnan(stock.numpy()).any()

    positions = gather_masked_positions(labels, 4)
    loss = sum_cross_entropy(tf.random.normal([4, 50]), positions.labels, positions.weights)
    assert float(loss) == 0.0
