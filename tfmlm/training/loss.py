"""Masked-language-modelling loss as a sum and a weight, divided once by whoever knows the whole.

A mean of means weighs a token by how few neighbours it has. Sums can be added over replicas, accumulation
steps and batches, and one division at the end gives the token-weighted mean.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from tfmlm.data.masking import IGNORE_LABEL


class MaskedPositions(NamedTuple):
    """The chosen positions of a batch, flattened, in a static number of slots.

    Attributes:
        indices: int32 [P], positions in the flattened [B * L] batch.
        labels: int32 [P], the original tokens.
        weights: float32 [P], 1 for a chosen position and 0 for an empty slot.
        overflow: int32 [], chosen positions that found no slot and do not count in the loss.
    """

    indices: tf.Tensor
    labels: tf.Tensor
    weights: tf.Tensor
    overflow: tf.Tensor


_WORD_VARIANCE = 4.0
"""How much more the count of chosen tokens varies when words are chosen: the mean square length of a word
over its mean length, in tokens; 2 to 3 in English text and in code."""


def count_slots(num_tokens: int, rate: float, whole_word: bool = False) -> int:
    """Slots for a batch of `num_tokens` tokens, each chosen with probability `rate`.

    Mean plus six standard deviations: for single tokens, which are binomial, a batch overflows about once in
    10**9. Rounded up to a multiple of 8, which matrix units like.
    """
    mean = num_tokens * rate
    variance = mean * (1.0 - rate) * (_WORD_VARIANCE if whole_word else 1.0)
    spread = 6.0 * variance**0.5
    return min(num_tokens, -(-int(mean + spread + 1.0) // 8) * 8)


def gather_masked_positions(labels: tf.Tensor, num_slots: int | tf.Tensor) -> MaskedPositions:
    """Finds the chosen positions, with shapes that do not depend on where and how many they are.

    Args:
        labels: int32 [B, L], -100 where a token was not chosen.
        num_slots: P; the first P chosen positions are kept, in order.
    """
    flat_labels = tf.reshape(labels, [-1])
    chosen = tf.cast(flat_labels != IGNORE_LABEL, tf.int32)
    # top_k is stable (the lower index first), so the chosen positions come first and in order.
    weights, indices = tf.math.top_k(chosen, num_slots)
    return MaskedPositions(
        indices=indices,
        labels=tf.gather(flat_labels, indices),
        weights=tf.cast(weights, tf.float32),
        overflow=tf.reduce_sum(chosen) - tf.reduce_sum(weights),
    )


def sum_cross_entropy(logits: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Sum of weighted cross-entropies, float32 [].

    Args:
        logits: [P, V], any float dtype; computed in float32.
        labels: int32 [P]; anything where the weight is 0.
        weights: float32 [P].
    """
    valid_labels = tf.where(weights > 0, labels, 0)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
        labels=valid_labels, logits=tf.cast(logits, tf.float32)
    )
    return tf.reduce_sum(losses * weights)


def sum_in_top(logits: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor, k: int) -> tf.Tensor:
    """How many labels are among the `k` highest logits, float32 []; arguments as of `sum_cross_entropy`.

    A label's rank is the number of higher logits, which needs no sorting and compiles for TPUs.
    """
    valid_labels = tf.where(weights > 0, labels, 0)
    own = tf.gather(logits, valid_labels, batch_dims=1)
    rank = tf.reduce_sum(tf.cast(logits > own[:, tf.newaxis], tf.int32), axis=1)
    return tf.reduce_sum(tf.where(rank < k, weights, 0.0))
