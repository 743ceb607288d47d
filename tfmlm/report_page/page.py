"""The whole page: one HTML file that needs no other, no script and no network."""

from __future__ import annotations

from html import escape
from importlib import resources
from pathlib import Path

from tfmlm.atomic_files import write_atomically
from tfmlm.errors import UserError
from tfmlm.report_page.curves import draw_curves
from tfmlm.report_page.runs import ShownRun, read_runs
from tfmlm.report_page.samples import show_samples
from tfmlm.report_page.settings import show_settings
from tfmlm.report_page.summary import show_summary
from tfmlm.report_page.tables import mark_run


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
