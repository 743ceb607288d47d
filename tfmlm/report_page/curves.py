"""Perplexity of runs against tokens or time, as SVG that takes its colours from the page."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from html import escape

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from tfmlm.report_page.runs import Point, ShownRun

NUM_COLORS = 6
"""Colours of the page, `--run-0` and so on; more runs than that begin again, with other dashes."""

_MOST_POINTS = 400
"""Points of a curve: more cannot be told apart, and each is bytes in the page."""

_LEAST_RATIO = 4.0
"""Between the ends of the vertical axis, for it to be logarithmic."""

_INK = "#0a0b0c"
"""Stands for the page's own colour of text while Matplotlib draws."""

_DASHES = ("solid", "dashed", "dotted", "dashdot")


def draw_curves(runs: Sequence[ShownRun], axis: str) -> str:
    """Draws one chart.

    Args:
        runs: one curve each: bold with dots on held-out text, faint on the training batches.
        axis: `tokens` or `seconds`.

    Returns:
        An SVG element whose ids are its own on a page with other charts.
    """
    # Text as text: it is selectable, small, and in the page's font.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": axis, "font.family": "sans-serif"}):
        figure = Figure(figsize=(5.4, 3.5), layout="constrained")
        figure.patch.set_visible(False)
        axes = figure.subplots()
        for number, run in enumerate(runs):
            _draw_run(axes, run, axis, number)
        _dress(axes, runs, axis)
        drawn = io.StringIO()
        # Without a date and a creator, equal runs give equal pages.
        figure.savefig(drawn, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    label = f"Perplexity against {axis} of {', '.join(run.name for run in runs)}"
    return _fit_into_page(drawn.getvalue(), axis, label)


def _draw_run(axes: Axes, run: ShownRun, axis: str, number: int) -> None:
    style = _DASHES[number // NUM_COLORS % len(_DASHES)]
    color = _stand_in(number % NUM_COLORS)
    if run.training:
        x, y = _smooth(run.training, axis)
        axes.plot(x, y, color=color, alpha=0.35, linewidth=1, linestyle=style)
    if run.held_out:
        x = np.array([getattr(point, axis) for point in run.held_out])
        y = np.array([point.perplexity for point in run.held_out])
        axes.plot(x, y, color=color, linewidth=2, marker="o", markersize=3.5, linestyle=style)


def _smooth(points: Sequence[Point], axis: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means of neighbouring points: of their losses, as perplexity is."""
    parts = np.array_split(np.arange(len(points)), min(len(points), _MOST_POINTS))
    width = max(1, len(points) // 20)
    losses = np.log([point.perplexity for point in points])
    kernel = np.ones(width)
    smooth = np.convolve(losses, kernel, "same") / np.convolve(np.ones(len(losses)), kernel, "same")
    x = np.array([getattr(point, axis) for point in points])
    return (
        np.array([x[part].mean() for part in parts]),
        np.exp([smooth[part].mean() for part in parts]),
    )


def _dress(axes: Axes, runs: Sequence[ShownRun], axis: str) -> None:
    """Axes, grid and labels."""
    held_out = [point.perplexity for run in runs for point in (run.held_out or run.training)]
    if held_out and max(held_out) / min(held_out) > _LEAST_RATIO:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.4g}"))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _shorten(value)))
    axes.set_xlim(left=0)
    axes.set_xlabel({"tokens": "tokens", "seconds": "seconds of training"}[axis], color=_INK)
    axes.tick_params(which="both", color=_INK, labelcolor=_INK)
    axes.grid(color=_INK, alpha=0.15)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_INK)
    axes.patch.set_visible(False)


def _shorten(value: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.4g}{unit}"
    return f"{value:.4g}"


def _stand_in(number: int) -> str:
    """A colour that stands for `--run-<number>` while Matplotlib draws."""
    return f"#0c0d{number:02x}"


def _fit_into_page(svg: str, prefix: str, label: str) -> str:
    """The element alone, with the page's colours and width, and ids that no other chart has."""
    svg = svg[svg.index("<svg") :]
    head, _, body = svg.partition(">")
    view_box = re.search(r'viewBox="[^"]*"', head)
    assert view_box
    body = body.replace(_INK, "currentColor")
    for number in range(NUM_COLORS):
        body = body.replace(_stand_in(number), f"var(--run-{number})")
    for quoted in (r'(?<= id=")', r'(?<=href="#)', r"(?<=url\(#)"):
        body = re.sub(quoted, f"{prefix}-", body)
    # `xlink:href` would need a declaration of its name, which holds an address.
    body = body.replace("xlink:href", "href")
    return f'<svg {view_box[0]} role="img" aria-label="{escape(label)}">{body}'
