"""What the server counts, with the names, labels and buckets of TensorFlow Serving, for Prometheus."""

from __future__ import annotations

import threading
from bisect import bisect_left

METRICS_PATH = "/monitoring/prometheus/metrics"
"""Where TensorFlow Serving has them, and the path in `configs/serving/monitoring.config`."""

_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


def to_microseconds(seconds: float) -> int:
    """The unit of all times."""
    return round(seconds * 1e6)


class Counter:
    """Counts what only grows.

    Args:
        name: name of the metric.
        labels: names of its labels.
    """

    def __init__(self, name: str, *labels: str) -> None:
        self.name = name
        self._labels = labels
        self._counts: dict[tuple[str, ...], int] = {}
        self._lock = threading.Lock()

    def add(self, *values: str, amount: int = 1) -> None:
        """Adds to the count of these label values."""
        with self._lock:
            self._counts[values] = self._counts.get(values, 0) + amount

    def render(self) -> list[str]:
        """The lines of the text format."""
        with self._lock:
            counts = sorted(self._counts.items())
        lines = [f"# TYPE {self.name} counter"]
        lines += [f"{self.name}{{{_join(self._labels, values)}}} {count}" for values, count in counts]
        return lines


class Histogram:
    """Counts values in buckets that grow by a factor, as TensorFlow's `Buckets::Exponential`.

    Args:
        name: name of the metric.
        labels: names of its labels.
        scale: upper limit of the first bucket.
        factor: from a limit to the next.
        num_limits: limits; above the last is one bucket more.
    """

    def __init__(self, name: str, *labels: str, scale: float, factor: float, num_limits: int) -> None:
        self.name = name
        self._labels = labels
        self._limits = [scale * factor**power for power in range(num_limits)]
        self._buckets: dict[tuple[str, ...], list[int]] = {}
        self._sums: dict[tuple[str, ...], float] = {}
        self._lock = threading.Lock()

    def observe(self, value: float, *values: str) -> None:
        """Counts a value under these label values."""
        with self._lock:
            buckets = self._buckets.setdefault(values, [0] * (len(self._limits) + 1))
            buckets[bisect_left(self._limits, value)] += 1
            self._sums[values] = self._sums.get(values, 0.0) + value

    def render(self) -> list[str]:
        """The lines of the text format."""
        with self._lock:
            points = sorted((key, [*buckets], self._sums[key]) for key, buckets in self._buckets.items())
        lines = [f"# TYPE {self.name} histogram"]
        for values, buckets, total in points:
            labels = _join(self._labels, values)
            count = 0
            for limit, num_values in zip([*map("{:g}".format, self._limits), "+Inf"], buckets, strict=True):
                count += num_values
                separator = "," if labels else ""
                lines.append(f'{self.name}_bucket{{{labels}{separator}le="{limit}"}} {count}')
            lines.append(f"{self.name}_sum{{{labels}}} {total:.16g}")
            lines.append(f"{self.name}_count{{{labels}}} {count}")
        return lines


def _join(labels: tuple[str, ...], values: tuple[str, ...]) -> str:
    return ",".join(
        f'{label}="{value.translate(_ESCAPES)}"' for label, value in zip(labels, values, strict=True)
    )


class Metrics:
    """The metrics of a server; times are in microseconds.

    Args:
        model_name: name of the model.

    Attributes:
        model_name: the same.
        request_count: requests, by model and code.
        request_latency: time from a request to its answer.
        runtime_latency: time from when a request is queued until the model has run.
        load_attempts: versions that were loaded or refused.
        load_latency: time that loading took.
        queuing_latency: time that a request waits for its turn.
        input_batch_size: rows of a request.
        processed_batch_size: rows that are run together.
        run_count: runs of the model.
    """

    def __init__(self, model_name: str = "") -> None:
        self.model_name = model_name
        serving, loading = ":tensorflow:serving:", ":tensorflow:cc:saved_model:"
        batching = serving + "batching_session:"
        self.request_count = Counter(serving + "request_count", "model_name", "status")
        self.request_latency, self.runtime_latency = (
            Histogram(serving + name, "model_name", "API", kind, scale=10.0, factor=1.8, num_limits=33)
            for name, kind in (("request_latency", "entrypoint"), ("runtime_latency", "runtime"))
        )
        self.load_attempts = Counter(loading + "load_attempt_count", "model_path", "status")
        self.load_latency = Counter(loading + "load_latency", "model_path")
        self.queuing_latency = Histogram(
            batching + "queuing_latency", "thread_pool_name", scale=100.0, factor=1.2, num_limits=52
        )
        self.input_batch_size, self.processed_batch_size = (
            Histogram(batching + name, scale=1.0, factor=2.0, num_limits=14)
            for name in ("input_batch_size", "processed_batch_size")
        )
        self.run_count = Counter(batching + "wrapped_run_count")

    def choose_name(self, asked: str) -> str:
        """The name by which a request is counted: any other than the model's is "", for memory has an end."""
        return asked if asked == self.model_name else ""

    def render(self) -> str:
        """All of them in Prometheus' text format, sorted by name."""
        metrics = [item for item in vars(self).values() if isinstance(item, Counter | Histogram)]
        lines = [line for metric in sorted(metrics, key=lambda item: item.name) for line in metric.render()]
        return "\n".join(lines) + "\n"
