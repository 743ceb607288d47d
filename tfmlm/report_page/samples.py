"""The sample texts, as each run filled them before and after training."""

from __future__ import annotations

from html import escape

from tfmlm.candidate import Candidate, Samples
from tfmlm.report_page.runs import ShownRun
from tfmlm.report_page.tables import mark_run


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
