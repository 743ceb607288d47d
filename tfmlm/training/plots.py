"""Plots of a run's `metrics.csv`."""

from __future__ import annotations

import csv
from pathlib import Path

from matplotlib.figure import Figure

from tfmlm.atomic_files import begin_file

_PLOTS = {
    "loss": ("loss (nats a masked token)", {"loss": "training", "eval_loss": "held out"}),
    "perplexity": ("held-out perplexity", {"eval_perplexity": "held out"}),
    "learning_rate": ("learning rate", {"learning_rate": ""}),
    "tokens_per_second": ("tokens/s", {"tokens_per_second": ""}),
}
"""File name: label of the vertical axis, and the columns with their names in the legend."""


def plot_metrics(metrics_file: Path, plots_dir: Path) -> None:
    """Draws one PNG for each of loss, perplexity, learning rate and tokens/s against the step."""
    with metrics_file.open(newline="") as file:
        rows = list(csv.DictReader(file))
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
