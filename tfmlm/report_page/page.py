"""The whole page: one HTML file that needs no other, no script and no network."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tfmlm.atomic_files import write_atomically
from tfmlm.config.schema import list_keys
from tfmlm.errors import UserError
from tfmlm.report_page.curves import NUM_COLORS, draw_curves
from tfmlm.report_page.runs import ShownRun, read_runs
from tfmlm.results import Candidate, Result, Samples


def write_report(paths: list[Path], output: Path) -> None:
    """Writes the page about the runs in these folders.

    Raises:
        UserError: a folder holds no run, or the page cannot be written.
    """
    if output.is_dir():
        raise UserError(f"--output {str(output)!r} is a folder; give a file such as report.html")
    html = make_page(read_runs(paths), output.parent)
    try:
        write_atomically(output, html)
    except OSError as error:
        raise UserError(f"--output {str(output)!r} cannot be written: {error.strerror}") from error


def make_page(runs: list[ShownRun], page_dir: Path) -> str:
    """The page as HTML.

    Args:
        runs: one or more.
        page_dir: where the page will lie, which its links start from.
    """
    names = ", ".join(run.name for run in runs)
    style = resources.files(__package__).joinpath("style.css").read_text(encoding="utf-8")
    # Not Jinja: one page of a few parts, each escaped where it is written, is no reason for a dependency.
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{escape(names)} · tfmlm report</title>
<style>
{style}</style>
</head>
<body>
<main>
<h1>{"Run" if len(runs) == 1 else f"{len(runs)} runs"}</h1>
{show_summary(runs, page_dir)}
{_show_curves(runs)}
{show_samples(runs)}
{show_settings(runs)}
</main>
</body>
</html>
"""


def _show_curves(runs: list[ShownRun]) -> str:
    drawn = [run for run in runs if run.training or run.held_out]
    if not drawn:
        return "<h2>Perplexity</h2>\n<p>No run has made a step yet.</p>"
    # Drawn in the order of all runs, so that each has its colour everywhere.
    charts = "\n".join(
        f'<div class="chart">{draw_curves(runs, axis)}</div>' for axis in ("tokens", "seconds")
    )
    keys = " ".join(mark_run(number, run) for number, run in enumerate(runs))
    return f"""<h2>Perplexity</h2>
<p class="keys">{keys}</p>
<div class="charts">
{charts}
</div>
<p class="quiet">Bold with dots: held-out text. Faint: the training batches, smoothed.</p>"""


# === Summary ===


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
    """The figures of a run that is not finished, as far as its log has them."""
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


# === Samples ===


def show_samples(runs: list[ShownRun]) -> str:
    """One block for each text, with the runs below each other."""
    after: list[Samples] = [run.result.samples_after if run.result else {} for run in runs]
    texts = dict.fromkeys(
        text for run, filled in zip(runs, after, strict=True) for text in [*run.samples_before, *filled]
    )
    if not texts:
        return "<h2>Filled masks</h2>\n<p>No run kept any: <code>run.sample_texts</code> names the texts.</p>"
    blocks = [
        "\n".join(
            _show_run(number, run, run.samples_before.get(text), filled.get(text))
            for number, (run, filled) in enumerate(zip(runs, after, strict=True))
        )
        for text in texts
    ]
    return "<h2>Filled masks</h2>\n" + "\n".join(
        f'<section class="sample"><h3>{escape(text)}</h3>\n{block}</section>'
        for text, block in zip(texts, blocks, strict=True)
    )


def _show_run(
    number: int, run: ShownRun, before: list[list[Candidate]] | None, after: list[list[Candidate]] | None
) -> str:
    missing = "not kept" if run.result else "not finished"
    return (
        f'<div class="filled">{mark_run(number, run)}'
        f"<div><h4>before</h4>{_show_masks(before, 'not kept')}</div>"
        f"<div><h4>after</h4>{_show_masks(after, missing)}</div></div>"
    )


def _show_masks(masks: list[list[Candidate]] | None, missing: str) -> str:
    if masks is None:
        return f'<p class="quiet">{missing}</p>'
    return "".join(f"<ol>{''.join(map(_show_candidate, candidates))}</ol>" for candidates in masks)


def _show_candidate(candidate: Candidate) -> str:
    share = f"{candidate['score']:.1%}"
    word = escape(candidate["token_str"].strip()) or "␣"
    return f'<li><span class="bar" style="width: {share}"></span><span>{word}</span><span>{share}</span></li>'


# === Settings ===


_PLACES = ("run.name", "run.output_dir")
"""Differ in any two runs and say nothing."""

_WHAT_IS_MEASURED = ("data.", "tokenizer.", "masking.")
"""Sections that may change which tokens a perplexity is of."""

_BESIDE_THAT = ("data.num_proc", "data.streaming")


def show_settings(runs: list[ShownRun]) -> str:
    """Differing settings first and the others folded up; of one run, those that are not the defaults."""
    defaults = {str(key): key.default for key in list_keys()}
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    if len(runs) > 1:
        marked = [key for key in keys if _differs([run.settings.get(key) for run in runs])]
        heading, others = "in which the runs differ", "are the same"
    else:
        marked = [key for key in keys if _differs([runs[0].settings[key], defaults.get(key)])]
        heading, others = "that are not the defaults", "are the defaults"
    rest = [key for key in keys if key not in marked]
    folded = make_table("setting", runs, [_show_key(key, runs) for key in rest])
    return f"""<h2>Settings {heading}</h2>
{_warn(runs, marked)}{make_table("setting", runs, [_show_key(key, runs, "differs") for key in marked])}
<details><summary>{len(rest)} settings {others}</summary>
{folded}
</details>"""


def _differs(values: Sequence[Any]) -> bool:
    return any(value != values[0] for value in values)


def _warn(runs: list[ShownRun], marked: list[str]) -> str:
    """A note if the perplexities may not be of the same tokens."""
    keys = [key for key in marked if key.startswith(_WHAT_IS_MEASURED) and key not in _BESIDE_THAT]
    if len(runs) < 2 or not keys:
        return ""
    return (
        f"<p>The runs differ in {', '.join(f'<code>{escape(key)}</code>' for key in keys)}: "
        "their perplexities may not be of the same tokens.</p>\n"
    )


def _show_key(key: str, runs: list[ShownRun], kind: str = "") -> str:
    mark = '<span class="mark" title="differs">≠</span> ' if kind and key not in _PLACES else ""
    values = [f"<code>{escape(_show_value(run.settings.get(key)))}</code>" for run in runs]
    return make_row(f"{mark}<code>{escape(key)}</code>", values, kind if mark else "")


def _show_value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


# === Tables ===


def mark_run(number: int, run: ShownRun) -> str:
    """The run's name behind a dot of its colour."""
    dot = f'<span class="dot" style="background: var(--run-{number % NUM_COLORS})"></span>'
    return f'<span class="run">{dot}{escape(run.name)}</span>'


def make_table(corner: str, runs: Sequence[ShownRun], rows: Iterable[str]) -> str:
    """A table with a column for each run, which scrolls by itself where the screen is narrow."""
    heads = "".join(f'<th scope="col">{mark_run(number, run)}</th>' for number, run in enumerate(runs))
    body = "\n".join(rows)
    return f"""<div class="scroll" tabindex="0" role="region" aria-label="{corner}">
<table>
<thead><tr><th scope="col">{corner}</th>{heads}</tr></thead>
<tbody>
{body}
</tbody>
</table>
</div>"""


def make_row(name: str, cells: Iterable[str], kind: str = "") -> str:
    """A row of HTML cells behind its name.

    Args:
        name: HTML.
        cells: HTML, one cell for each run.
        kind: a class of the row.
    """
    inside = "".join(f"<td>{cell}</td>" for cell in cells)
    return f'<tr{f" class={kind!r}" if kind else ""}><th scope="row">{name}</th>{inside}</tr>'
