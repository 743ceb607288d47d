"""Runs requests, those that wait at the same time together."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from tfmlm.preview.metrics import Metrics, to_microseconds
from tfmlm.preview.signatures import Arrays, Signature
from tfmlm.preview.status import Code, ServingError

logger = logging.getLogger("tfmlm.preview")

_GATHER_SECONDS = 0.002
_GATHER_SHARE = 0.1

_THREAD_POOL_NAME = "batch_threads"
_RUNTIME = "TF1"
"""Labels of metrics, TensorFlow Serving's usual ones, so that its dashboards find what they look for."""


@dataclass
class _Job:
    """A request that waits; those of the same `group` may be run together."""

    signature: Signature
    inputs: Arrays
    group: tuple[object, ...] | None
    num_rows: int
    num_values: int
    future: Future[Arrays] = field(default_factory=Future)
    queued: float = field(default_factory=time.monotonic)


class Batcher:
    """A thread that runs what waits, oldest first, requests for the same signature and shape together.

    A request alone is run at once. After requests that came together, more are waited for while they come
    within 2 ms of each other, for 2 ms or a tenth of what the last batch took: their clients were answered at
    the same time and ask again at the same time.

    Args:
        max_batch: rows in a batch of several requests at most; one request alone may have more.
        max_waiting: requests that wait at most.
        max_answer_values: values in the answers of a batch of several requests at most.
        metrics: where batches are counted.
    """

    def __init__(
        self, max_batch: int, max_waiting: int, max_answer_values: int, metrics: Metrics | None = None
    ) -> None:
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._max_answer_values = max_answer_values
        self._metrics = metrics or Metrics()
        self._waiting: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self._gather_seconds = 0.0
        self._thread = threading.Thread(target=self._work, name="tfmlm-batcher", daemon=True)
        self._thread.start()

    def submit(self, signature: Signature, inputs: Arrays) -> Future[Arrays]:
        """Queues a request whose inputs have been checked.

        Returns:
            The outputs to come, or a ServingError. Cancelled before its turn, it is not run.

        Raises:
            ServingError: too many requests wait, or the batcher is closed.
        """
        group = None
        if signature.is_batched:
            group = (signature.name, *((name, inputs[name].shape[1:]) for name in signature.inputs))
        num_rows = len(next(iter(inputs.values()))) if group else 1
        job = _Job(signature, inputs, group, num_rows, signature.count_answer_values(inputs))
        with self._changed:
            # Those that nobody waits for any more make room.
            self._waiting = deque(job for job in self._waiting if not job.future.cancelled())
            if self._is_closed:
                raise ServingError(Code.UNAVAILABLE, "the version is no longer served")
            if len(self._waiting) >= self._max_waiting:
                raise ServingError(
                    Code.RESOURCE_EXHAUSTED, f"{len(self._waiting)} requests are waiting; try again later"
                )
            self._waiting.append(job)
            self._changed.notify()
        return job.future

    def close(self) -> None:
        """Takes no more requests and returns when those that wait are done."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while batch := self._take():
            jobs = [job for job in batch if job.future.set_running_or_notify_cancel()]
            if jobs:
                start = time.monotonic()
                for job in jobs:
                    waited = to_microseconds(start - job.queued)
                    self._metrics.queuing_latency.observe(waited, _THREAD_POOL_NAME)
                    self._metrics.input_batch_size.observe(job.num_rows)
                _run(jobs, self._metrics)
                seconds = _GATHER_SHARE * (time.monotonic() - start)
                self._gather_seconds = max(_GATHER_SECONDS, seconds) if len(jobs) > 1 else 0.0

    def _take(self) -> list[_Job]:
        """Waits for requests; none are left when the batcher is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closed)
            if not self._waiting:
                return []
            self._gather()
            batch = [self._waiting.popleft()]
            num_rows, num_values = batch[0].num_rows, batch[0].num_values
            rest: deque[_Job] = deque()
            for job in self._waiting:
                if (
                    job.group is not None
                    and job.group == batch[0].group
                    and num_rows + job.num_rows <= self._max_batch
                    and num_values + job.num_values <= self._max_answer_values
                ):
                    batch.append(job)
                    num_rows += job.num_rows
                    num_values += job.num_values
                else:
                    rest.append(job)
            self._waiting = rest
            return batch

    def _gather(self) -> None:
        """Waits while requests keep coming; the lock is held."""
        end = time.monotonic() + self._gather_seconds
        while not self._is_full() and time.monotonic() < end:
            num_waiting = len(self._waiting)
            self._changed.wait(_GATHER_SECONDS)
            if len(self._waiting) == num_waiting:
                break

    def _is_full(self) -> bool:
        return self._is_closed or sum(job.num_rows for job in self._waiting) >= self._max_batch


def _run(jobs: list[_Job], metrics: Metrics) -> None:
    """Runs jobs together; if that fails, each alone, so that one cannot spoil the others."""
    metrics.run_count.add()
    metrics.processed_batch_size.observe(sum(job.num_rows for job in jobs))
    try:
        answers = _run_together(jobs)
    except Exception as error:  # whatever a model raises belongs to its client, not to the thread
        if len(jobs) > 1:
            for job in jobs:
                _run([job], metrics)
        else:
            if not isinstance(error, ServingError):
                logger.exception("signature %s failed", jobs[0].signature.name)
            jobs[0].future.set_exception(error)
        return
    for job, answer in zip(jobs, answers, strict=True):
        latency = to_microseconds(time.monotonic() - job.queued)
        metrics.runtime_latency.observe(latency, metrics.model_name, "Predict", _RUNTIME)
        job.future.set_result(answer)


def _run_together(jobs: list[_Job]) -> list[Arrays]:
    signature = jobs[0].signature
    if len(jobs) == 1:
        return [signature.call(jobs[0].inputs)]
    inputs = {name: np.concatenate([job.inputs[name] for job in jobs]) for name in signature.inputs}
    outputs = signature.call(inputs)
    ends = np.cumsum([job.num_rows for job in jobs])
    if any(len(output) != ends[-1] for output in outputs.values()):
        raise ValueError(f"signature {signature.name} does not give a row for each row")
    starts = [0, *ends[:-1]]
    return [
        {name: output[start:end] for name, output in outputs.items()}
        for start, end in zip(starts, ends, strict=True)
    ]
