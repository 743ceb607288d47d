"""The log of a run: one row a step, and one an evaluation, in `metrics.csv`, TensorBoard and plots."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import tensorflow as tf
from matplotlib.figure import Figure

from tfmlm.atomic_files import begin_file, write_atomically
from tfmlm.errors import UserError, reason_of
from tfmlm.results import Evaluation
from tfmlm.run_folder import METRICS_NAME, read_metrics

_FIELDS = (
    "step",
    "loss",
    "learning_rate",
    "gradient_norm",
    "masked_tokens",
    "overflow",
    "tokens",
    "tokens_per_second",
    "seconds",
    "eval_loss",
    "eval_perplexity",
    "eval_top_1",
    "eval_top_5",
)


class RunLog(tf.keras.callbacks.Callback):
    """Writes the rows, and keeps the steps' times.

    Attributes:
        step: the last finished step.
        seconds: wall-clock seconds of training, resumed parts included and evaluations left out.
        step_seconds: seconds of each step, resumed parts included, but the first one, which traces the graph.
        overflow: masked tokens that found no slot, resumed parts included.
        figures: of the last step, as they are logged.
        evaluation: the last one, and `evaluated_step` the step after which it was.
        tokens: of the steps' blocks, padding left out, resumed parts included.
        speeds: tokens in a second of each step that `step_seconds` has.
    """

    def __init__(self, logs_dir: Path, first_step: int, seconds: float) -> None:
        super().__init__()
        self.step = self._first_step = first_step
        self.seconds = seconds
        self.figures: dict[str, float] = {}
        self.evaluation: Evaluation | None = None
        self.evaluated_step = first_step
        self._path = logs_dir / METRICS_NAME
        with _explained_errors(self._path):
            logs_dir.mkdir(parents=True, exist_ok=True)
            earlier = _cut_after(logs_dir, first_step)
            # Line by line, so that a killed run leaves every finished row.
            self._file = self._path.open("a", newline="", buffering=1)
            self._csv = csv.DictWriter(self._file, _FIELDS)
            self._tensorboard = tf.summary.create_file_writer(str(logs_dir))
        self.step_seconds = [
            (float(row["seconds"]) - float(last["seconds"])) / (int(row["step"]) - int(last["step"]))
            for last, row in pairwise(earlier)
        ]
        self.overflow = sum(int(float(row["overflow"])) for row in earlier)
        self.tokens = sum(int(float(row["tokens"])) for row in earlier)
        self.speeds = [float(row["tokens_per_second"]) for row in earlier[1:]]
        self._model_overflow = self._model_tokens = 0.0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Starts the clock."""
        self.restart_clock()

    def restart_clock(self) -> None:
        """Leaves the time since the last step out."""
        self._last_time = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Adds the step's row; of several steps in one execution, the last one's, with all their overflow."""
        now = time.perf_counter()
        elapsed, self._last_time = now - self._last_time, now
        num_steps = self._first_step + batch + 1 - self.step
        is_first = self.step == self._first_step
        self.step += num_steps
        self.seconds += elapsed
        row = {name: float(value) for name, value in (logs or {}).items() if name in _FIELDS}
        self._model_overflow, row["overflow"] = row["overflow"], row["overflow"] - self._model_overflow
        self.overflow += int(row["overflow"])
        self._model_tokens, row["tokens"] = row["tokens"], row["tokens"] - self._model_tokens
        self.tokens += int(row["tokens"])
        row["tokens_per_second"] = row["tokens"] / elapsed
        if not is_first:
            self.step_seconds.append(elapsed / num_steps)
            self.speeds.append(row["tokens_per_second"])
        self.figures = row
        self._write(row)

    def add_evaluation(self, evaluation: Evaluation) -> None:
        """Adds a row of what an evaluation after the last step found."""
        self.evaluation, self.evaluated_step = evaluation, self.step
        figures = evaluation._asdict() | {"perplexity": evaluation.perplexity}
        self._write({f"eval_{name}": figure for name, figure in figures.items()})

    def _write(self, row: dict[str, float]) -> None:
        with _explained_errors(self._path), self._tensorboard.as_default(step=self.step):
            self._csv.writerow(row | {"step": self.step, "seconds": self.seconds})
            for name, value in row.items():
                # Figures of TensorBoard are float32, and the perplexity of a run that diverges may be none.
                tf.summary.scalar(name, min(value, float(tf.float32.max)))

    def close(self) -> None:
        """Closes the files."""
        with _explained_errors(self._path):
            self._file.close()
            self._tensorboard.close()

    @property
    def step_seconds_median(self) -> float:
        """Median seconds of a step; of the only one, tracing included, in a run of one step."""
        return median(self.step_seconds) if self.step_seconds else self.seconds

    @property
    def tokens_per_second(self) -> float:
        """Median over the same steps."""
        return median(self.speeds) if self.speeds else self.tokens / self.seconds


@contextmanager
def _explained_errors(path: Path) -> Iterator[None]:
    """Turns an error of the system, or of TensorBoard's writer, into one line."""
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        raise UserError(
            f"log {str(path)!r} cannot be written: {reason_of(error)}; make room, and the same command "
            "goes on from the last checkpoint"
        ) from error


def read_initial_evaluation(logs_dir: Path) -> Evaluation | None:
    """The evaluation before the first step, if a run that is resumed has written it."""
    for row in read_metrics(logs_dir):
        if row["step"] == "0" and row["eval_loss"]:
            return Evaluation(**{name: float(row[f"eval_{name}"]) for name in Evaluation._fields})
    return None


def _cut_after(logs_dir: Path, last_step: int) -> list[dict[str, str]]:
    """Begins the file, or takes from it what an interrupted run wrote after the checkpoint.

    Returns:
        The rows of steps that stay.
    """
    rows = read_metrics(logs_dir)
    kept = [row for row in rows if int(row["step"]) <= last_step]
    text = io.StringIO()
    writer = csv.DictWriter(text, _FIELDS)
    writer.writeheader()
    writer.writerows(kept)
    write_atomically(logs_dir / METRICS_NAME, text.getvalue())
    return [row for row in kept if row["loss"]]


# === Plots ===


_PLOTS = {
    "loss": ("loss (nats a masked token)", {"loss": "training", "eval_loss": "held out"}),
    "perplexity": ("held-out perplexity", {"eval_perplexity": "held out"}),
    "learning_rate": ("learning rate", {"learning_rate": ""}),
    "tokens_per_second": ("tokens/s", {"tokens_per_second": ""}),
}
"""File name: label of the vertical axis, and the columns with their names in the legend."""


def plot_metrics(logs_dir: Path, plots_dir: Path) -> None:
    """Draws one PNG for each of loss, perplexity, learning rate and tokens/s against the step."""
    rows = read_metrics(logs_dir)
    plots_dir.mkdir(parents=True, exist_ok=True)
    for name, (label, columns) in _PLOTS.items():
        figure = Figure(figsize=(6.4, 3.6), layout="constrained")  # not pyplot: no display, no global state
        axes = figure.subplots()
        for column, legend in columns.items():
            points = [(int(row["step"]), float(row[column])) for row in rows if row[column]]
            if points:
                marker = "o" if column.startswith("eval_") else ""
                axes.plot(*zip(*points, strict=True), linewidth=1, marker=marker, label=legend or None)
        axes.set(xlabel="step", ylabel=label, xlim=(0, max((int(row["step"]) for row in rows), default=1)))
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        if len(axes.lines) > 1:
            axes.legend()
        with begin_file(plots_dir / f"{name}.png") as unfinished:
            figure.savefig(unfinished, format="png", dpi=120)
