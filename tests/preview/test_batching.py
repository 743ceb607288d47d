"""Requests that wait together are run together, and each gets its own rows."""

import threading
from concurrent.futures import Future

import numpy as np
import pytest

from tests.waiting import WAIT_SECONDS, wait_until
from tfmlm.preview.batching import Batcher
from tfmlm.preview.signatures import Arrays, Signature, TensorSpec
from tfmlm.preview.status import Code, ServingError


class Doubling:
    """A signature that doubles; it waits for `gate` and notes the size of each batch that it is given."""

    def __init__(self, output_shape: tuple[int | None, ...] = (None, None)) -> None:
        self.gate = threading.Event()
        self.sizes: list[int] = []
        spec = TensorSpec("x", np.dtype(np.int64), "int64", (None, None))
        output = TensorSpec("y", np.dtype(np.int64), "int64", output_shape)
        self.signature = Signature("double", "predict", {"x": spec}, {"y": output}, self.run)

    def run(self, inputs: Arrays) -> Arrays:
        assert self.gate.wait(WAIT_SECONDS)
        self.sizes.append(len(inputs["x"]))
        if (inputs["x"] < 0).any():
            raise ServingError(Code.INVALID_ARGUMENT, "negative")
        return {"y": inputs["x"] * 2}


def rows(value: int, num_rows: int = 1, length: int = 3) -> Arrays:
    return {"x": np.full((num_rows, length), value)}


def submit_while_busy(batcher: Batcher, model: Doubling, requests: list[Arrays]) -> list[Future[Arrays]]:
    """Submits one request, and the others while it runs."""
    first = batcher.submit(model.signature, rows(0))
    wait_until(first.running)
    futures = [batcher.submit(model.signature, request) for request in requests]
    model.gate.set()
    return futures


def test_what_waits_is_run_together() -> None:
    model = Doubling()
    batcher = Batcher(max_batch=4, max_waiting=100, max_answer_values=1000)
    futures = submit_while_busy(batcher, model, [rows(value) for value in range(1, 10)])
    for value, future in enumerate(futures, 1):
        assert future.result(WAIT_SECONDS)["y"].tolist() == [[2 * value] * 3]
    assert model.sizes == [1, 4, 4, 1]
    batcher.close()


def test_rows_of_other_lengths_and_large_answers_are_run_apart() -> None:
    model = Doubling()
    batcher = Batcher(max_batch=10, max_waiting=100, max_answer_values=20)
    requests = [rows(1, 2), rows(2, 1, length=5), rows(3, 2), rows(4, 4), rows(5, 12)]
    futures = submit_while_busy(batcher, model, requests)
    for request, future in zip(requests, futures, strict=True):
        np.testing.assert_array_equal(future.result(WAIT_SECONDS)["y"], request["x"] * 2)
    assert model.sizes == [1, 4, 1, 4, 12]
    batcher.close()


def test_one_that_fails_spoils_no_other() -> None:
    model = Doubling()
    batcher = Batcher(max_batch=10, max_waiting=100, max_answer_values=1000)
    good, bad, better = submit_while_busy(batcher, model, [rows(1), rows(-1), rows(2)])
    assert good.result(WAIT_SECONDS)["y"].tolist() == [[2, 2, 2]]
    assert better.result(WAIT_SECONDS)["y"].tolist() == [[4, 4, 4]]
    with pytest.raises(ServingError, match="negative"):
        bad.result(WAIT_SECONDS)
    assert model.sizes == [1, 3, 1, 1, 1]
    batcher.close()


def test_a_signature_without_a_batch_is_never_merged() -> None:
    model = Doubling(output_shape=(1, None))
    batcher = Batcher(max_batch=10, max_waiting=100, max_answer_values=1000)
    for future in submit_while_busy(batcher, model, [rows(1), rows(2)]):
        future.result(WAIT_SECONDS)
    assert model.sizes == [1, 1, 1]
    batcher.close()


def test_too_many_are_refused_and_cancelled_ones_are_not_run() -> None:
    model = Doubling()
    batcher = Batcher(max_batch=1, max_waiting=2, max_answer_values=1000)
    first = batcher.submit(model.signature, rows(0))
    wait_until(first.running)
    kept, cancelled = (batcher.submit(model.signature, rows(value)) for value in (1, 2))
    with pytest.raises(ServingError, match="2 requests are waiting") as raised:
        batcher.submit(model.signature, rows(3))
    assert raised.value.code is Code.RESOURCE_EXHAUSTED
    assert cancelled.cancel()
    model.gate.set()
    assert kept.result(WAIT_SECONDS)["y"].tolist() == [[2, 2, 2]]
    batcher.close()
    assert model.sizes == [1, 1]


def test_cancelled_ones_make_room() -> None:
    model = Doubling()
    batcher = Batcher(max_batch=1, max_waiting=2, max_answer_values=1000)
    first = batcher.submit(model.signature, rows(0))
    wait_until(first.running)
    for value in range(10):
        assert batcher.submit(model.signature, rows(value)).cancel()
    kept = [batcher.submit(model.signature, rows(value)) for value in (11, 12)]
    model.gate.set()
    assert [future.result(WAIT_SECONDS)["y"].tolist() for future in kept] == [[[22] * 3], [[24] * 3]]
    batcher.close()
    assert model.sizes == [1, 1, 1]


def test_closing_finishes_what_waits_and_refuses_more() -> None:
    model = Doubling()
    batcher = Batcher(max_batch=2, max_waiting=10, max_answer_values=1000)
    futures = submit_while_busy(batcher, model, [rows(value) for value in range(5)])
    batcher.close()
    assert all(future.done() for future in futures)
    with pytest.raises(ServingError) as raised:
        batcher.submit(model.signature, rows(1))
    assert raised.value.code is Code.UNAVAILABLE
