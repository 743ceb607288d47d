"""Pieces of HTML that several parts of the page are made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from tfmlm.report_page.curves import NUM_COLORS
from tfmlm.report_page.runs import ShownRun


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
