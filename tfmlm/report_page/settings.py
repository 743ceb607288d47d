"""The settings of the runs, with those marked in which they differ."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from typing import Any

from tfmlm.config.keys import list_keys
from tfmlm.report_page.runs import ShownRun
from tfmlm.report_page.tables import make_row, make_table

_PLACES = ("run.name", "run.output_dir")
"""Differ in any two runs and say nothing."""

_WHAT_IS_MEASURED = ("data.", "tokenizer.", "masking.")
"""Sections that may change which tokens a perplexity is of."""

_BESIDE_THAT = ("data.num_proc", "data.streaming")


def show_settings(runs: list[ShownRun]) -> str:
    """Differing settings first and the others folded up; of one run, those that are not the defaults."""
    defaults = {f"{section}.{key}": default for section, key, default, _ in list_keys()}
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
