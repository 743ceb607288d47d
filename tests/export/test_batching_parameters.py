"""Batches as TensorFlow Serving forms them from the requests of several clients."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from tests.finished import Finished

SHORT, LONG = [0, 4, 9, 2], [0, 9, 8, 7, 4, 9, 4, 2]
"""Token ids; 4 is <mask> and 1 is <pad>."""

Fill = Callable[[list[list[int]], list[list[int]]], dict[str, NDArray[Any]]]


@pytest.fixture(scope="module")
def fill(byte_run: Finished) -> Fill:
    """The signature `ids`, from rows of token ids and of attention masks."""
    loaded = tf.saved_model.load(str(byte_run.version))

    def run(input_ids: list[list[int]], attention_mask: list[list[int]]) -> dict[str, NDArray[Any]]:
        outputs = loaded.signatures["ids"](
            input_ids=tf.constant(input_ids, tf.int32), attention_mask=tf.constant(attention_mask, tf.int32)
        )
        return {name: value.numpy() for name, value in outputs.items()}

    return run


def pad(row: list[int], value: int) -> list[int]:
    return row + [value] * (len(LONG) - len(row))


def test_requests_of_one_length_are_answered_the_same_together(fill: Fill) -> None:
    short = pad(SHORT, 1), pad([1] * len(SHORT), 0)
    long = LONG, [1] * len(LONG)
    # Three rows become four, the next allowed size: the server repeats a row and drops its answer.
    ids, masks = zip(short, long, short, short, strict=True)
    together = fill(list(ids), list(masks))
    for row, request in enumerate((short, long)):
        alone = fill([request[0]], [request[1]])
        num_masks = alone["positions"].shape[1]
        for name, value in alone.items():
            mine = together[name][row, :num_masks]
            if value.dtype == np.float32:
                np.testing.assert_allclose(mine, value[0], atol=1e-6)
            else:
                np.testing.assert_array_equal(mine, value[0])
    # A client may get more masks than its text has; they are marked.
    assert together["positions"][0].tolist() == [1, -1]


def test_the_servers_own_padding_changes_no_answer(fill: Fill) -> None:
    """`pad_variable_length_inputs` repeats an input's first value: 0 = <s>, and 1 = "no padding"."""
    expected = fill([SHORT], [[1] * len(SHORT)])
    for tail in ([], [1, 1]):  # the client's own padding stands before the server's
        row, mask = [*SHORT, *tail], [1] * len(SHORT) + [0] * len(tail)
        padded = fill([pad(row, SHORT[0])], [mask + [1] * (len(LONG) - len(row))])
        np.testing.assert_allclose(padded["scores"], expected["scores"], rtol=1e-5)
        np.testing.assert_array_equal(padded["token_ids"], expected["token_ids"])
