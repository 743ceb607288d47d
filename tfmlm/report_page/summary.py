"""The first table of the page: what came out of each run, and where it lies."""

from __future__ import annotations

import os
from collections.abc import Callable
from html import escape
from pathlib import Path
from urllib.parse import quote

from tfmlm.report_page.runs import ShownRun
from tfmlm.report_page.tables import make_row, make_table
from tfmlm.run_folder import Result

_FIGURES: dict[str, Callable[[Result], str]] = {
    "perplexity before": lambda result: f"{result.initial_perplexity:,.2f}",
    "perplexity": lambda result: f"{result.perplexity:,.2f}",
    "first guess": lambda result: f"{result.eval_top_1:.1%}",
    "within five": lambda result: f"{result.eval_top_5:.1%}",
    "steps": lambda result: f"{result.steps:,}",
    "tokens": lambda result: f"{result.tokens:,}",
    "training time": lambda result: f"{result.train_seconds:,.0f} s",
    "speed": lambda result: f"{result.tokens_per_second:,.0f} tokens/s",
}
_MISSING = '<span class="quiet">none</span>'


def show_summary(runs: list[ShownRun], page_dir: Path) -> str:
    """The table, and the notes of the runs below it."""
    best = min((run.result.perplexity for run in runs if run.result), default=None)

    def show(name: str, figure: Callable[[Result], str], run: ShownRun) -> str:
        if not run.result:
            return _show_unfinished(name, run)
        is_best = name == "perplexity" and len(runs) > 1 and run.result.perplexity == best
        return f"<strong>{figure(run.result)}</strong> best" if is_best else figure(run.result)

    rows = [make_row("state", [_show_state(run) for run in runs])]
    rows += [make_row(name, [show(name, figure, run) for run in runs]) for name, figure in _FIGURES.items()]
    rows += [
        make_row("model", [_link_model(run, page_dir) for run in runs]),
        make_row("export", [_link_export(run, page_dir) for run in runs]),
    ]
    notes = [
        f"<li>{escape(run.name)}: {escape(note)}</li>"
        for run in runs
        for note in (run.result.notes if run.result else [])
    ]
    return make_table("result", runs, rows) + (f"\n<ul class='quiet'>{''.join(notes)}</ul>" if notes else "")


def _show_state(run: ShownRun) -> str:
    if run.result:
        return "finished"
    return f'<span class="unfinished">unfinished, step {run.steps:,}</span>'


def _show_unfinished(name: str, run: ShownRun) -> str:
    """What the log of a run that is not finished tells already."""
    if name == "perplexity" and len(run.held_out) > 1:
        return f"{run.held_out[-1].perplexity:,.2f} so far"
    if name == "perplexity before" and run.held_out:
        return f"{run.held_out[0].perplexity:,.2f}"
    if name == "training time" and run.training:
        return f"{run.training[-1].seconds:,.0f} s so far"
    if name == "tokens" and run.training:
        return f"{run.training[-1].tokens:,.0f} so far"
    if name == "steps":
        return f"{run.steps:,} so far"
    return _MISSING


def _link_model(run: ShownRun, page_dir: Path) -> str:
    return _link(run.folder.model_dir, page_dir) if run.folder.model_dir.is_dir() else _MISSING


def _link_export(run: ShownRun, page_dir: Path) -> str:
    """A link, or the name alone if the export lies elsewhere: the run tells it as its own process saw it."""
    if not run.result or not run.result.saved_model_dir:
        return _MISSING
    path = Path(run.result.saved_model_dir)
    return _link(path, page_dir) if path.is_dir() else f"{escape(str(path))} (not here)"


def _link(path: Path, page_dir: Path) -> str:
    address = quote(os.path.relpath(path, page_dir)) + "/"
    return f'<a href="{escape(address)}">{escape(str(path))}</a>'
