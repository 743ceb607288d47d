"""How many operations a training step needs, and how fast this machine can do them."""

from __future__ import annotations

import time

import tensorflow as tf
from transformers import PretrainedConfig


def count_step_flops(model: PretrainedConfig, num_tokens: int, block_size: int, num_logits: int) -> float:
    """Floating-point operations of the matrix products of a BERT training step; the rest is not counted.

    With T tokens in blocks of L, width H, inner width I, N layers, vocabulary V, and logits at P positions,
    and two operations for a multiplication and its addition, the forward pass takes
    ``N * T * (8 H^2 + 4 H I + 4 L H)`` in the encoder (query, key, value and output; the two inner products;
    scores and context) and ``P * (2 H^2 + 2 H V)`` in the head. The backward pass takes twice that: one
    product for the inputs' and one for the weights' gradient.
    """
    width = model.hidden_size
    layer = 8 * width**2 + 4 * width * model.intermediate_size + 4 * block_size * width
    head = 2 * width**2 + 2 * width * model.vocab_size
    return 3.0 * (model.num_hidden_layers * num_tokens * layer + num_logits * head)


def measure_matmul_rate(shapes: list[tuple[int, int, int]], seconds: float) -> float:
    """Operations a second of float32 matrix products.

    Args:
        shapes: (M, K, N) of [M, K] x [K, N]; each gets an equal share of the time.
        seconds: about how long all are measured.

    Returns:
        All operations over all seconds.
    """
    flops = spent = 0.0
    for rows, inner, columns in shapes:
        left, right = tf.random.normal([rows, inner]), tf.random.normal([inner, columns])
        tf.matmul(left, right)  # the first call plans
        start = time.perf_counter()
        while (elapsed := time.perf_counter() - start) < seconds / len(shapes):
            tf.matmul(left, right)
            flops += 2.0 * rows * inner * columns
        spent += elapsed
    return flops / spent
