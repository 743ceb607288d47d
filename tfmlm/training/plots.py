"""Plots of a run's `metrics.csv`."""

from __future__ import annotations

import csv
from pathlib import Path

from matplotlib.figure import Figure

_PLOTS = {
    "loss": "training loss (nats a masked token)",
    "learning_rate": "learning rate",
    "tokens_per_second": "tokens/s",
}


def plot_metrics(metrics_file: Path, plots_dir: Path) -> None:
    """Draws one PNG for each of loss, learning rate and tokens/s against the step."""
    with metrics_file.open(newline="") as file:
        rows = list(csv.DictReader(file))
    plots_dir.mkdir(parents=True, exist_ok=True)
    steps = [int(row["step"]) for row in rows]
    for name, label in _PLOTS.items():
        figure = Figure(figsize=(6.4, 3.6), layout="constrained")  # not pyplot: no display, no global state
        axes = figure.subplots()
        axes.plot(steps, [float(row[name]) for row in rows], linewidth=1)
        axes.set(xlabel="step", ylabel=label, xlim=(0, max(steps, default=1)))
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        figure.savefig(plots_dir / f"{name}.png", dpi=120)
