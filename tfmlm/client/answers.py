"""Answers of a served model about the masks of a text, and the text with its words put in."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from tfmlm.errors import UserError

T = TypeVar("T")

# === Answers ===


@dataclass(frozen=True)
class Answer:
    """The outputs of the export for one text, without the padding for texts with more masks.

    Attributes:
        positions: for each mask its index among the tokens.
        token_ids: for each mask the candidates, best first.
        tokens: their words.
        scores: their probabilities.
        note: what the export had to say about the text, or nothing.
    """

    positions: list[int]
    token_ids: list[list[int]]
    tokens: list[list[str]]
    scores: list[list[float]]
    note: str


def read_answers(outputs: Mapping[str, Any], num_texts: int) -> list[Answer]:
    """The answers in the outputs of `Predict`.

    Args:
        outputs: `positions` [N, M], `token_ids`, `tokens` and `scores` [N, M, K], and maybe `notes` [N], as
            nested lists. A mask without a word has position -1, a candidate without one token id -1.
        num_texts: N.

    Raises:
        UserError: an output is missing or has another shape.
    """
    with _explained():
        rows = _zip_rows(outputs, num_texts, "positions", "token_ids", "tokens", "scores")
        answers = [_read_row(*row) for row in rows]
    return _check(answers, num_texts)


def read_target_answers(
    outputs: Mapping[str, Any], num_texts: int, num_targets: int, top_k: int | None
) -> list[Answer]:
    """The answers in the outputs of `Predict` whose candidates are the targets, best first and each once.

    Args:
        outputs: `positions` [N, M], `target_ids` and `target_tokens` [N, T], `target_scores` [N, M, T], and
            maybe `notes` [N], as nested lists.
        num_texts: N.
        num_targets: those that were asked for; a server may have added others, of other clients.
        top_k: the most candidates for each mask; None gives all.

    Raises:
        UserError: an output is missing or has another shape.
    """
    with _explained():
        rows = _zip_rows(outputs, num_texts, "positions", "target_ids", "target_tokens", "target_scores")
        answers = [
            _read_row(
                positions,
                [target_ids[:num_targets]] * len(positions),
                [tokens[:num_targets]] * len(positions),
                [of_mask[:num_targets] for of_mask in scores],
                note,
            )
            for positions, target_ids, tokens, scores, note in rows
        ]
    return [_rank(answer, top_k) for answer in _check(answers, num_texts)]


def _zip_rows(outputs: Mapping[str, Any], num_texts: int, *names: str) -> Iterator[tuple[Any, ...]]:
    """For each text what the outputs of these names say, and its note; a version without notes has none."""
    return zip(*(outputs[name] for name in names), outputs.get("notes", [""] * num_texts), strict=True)


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"the server's outputs are not those of a tfmlm export ({error!r})") from error


def _check(answers: list[Answer], num_texts: int) -> list[Answer]:
    if not all(math.isfinite(score) for answer in answers for scores in answer.scores for score in scores):
        raise UserError(
            "the server's scores are not finite: its model's weights are damaged; export it again"
        )
    if len(answers) != num_texts:
        raise UserError(f"the server answered {len(answers)} texts of {num_texts}")
    return answers


def _read_row(
    positions: list[int],
    token_ids: list[list[int]],
    tokens: list[list[str]],
    scores: list[list[float]],
    note: str,
) -> Answer:
    masks = [
        (position, [word for word in zip(*words, strict=True) if word[0] >= 0])
        for position, *words in zip(positions, token_ids, tokens, scores, strict=True)
        if position >= 0
    ]
    return Answer(
        positions=[int(position) for position, _ in masks],
        token_ids=[[int(token_id) for token_id, _, _ in words] for _, words in masks],
        tokens=[[str(token) for _, token, _ in words] for _, words in masks],
        scores=[[float(score) for _, _, score in words] for _, words in masks],
        note=str(note),
    )


def _rank(answer: Answer, top_k: int | None) -> Answer:
    """Each word once, best first; of equally good ones, the first."""

    def choose(token_ids: list[int], scores: list[float]) -> list[int]:
        once = {token_id: place for place, token_id in reversed([*enumerate(token_ids)])}
        return sorted(once.values(), key=lambda place: (-scores[place], place))[:top_k]

    places = [choose(*of_mask) for of_mask in zip(answer.token_ids, answer.scores, strict=True)]
    return replace(
        answer,
        token_ids=_take(answer.token_ids, places),
        tokens=_take(answer.tokens, places),
        scores=_take(answer.scores, places),
    )


def _take(rows: list[list[T]], places: list[list[int]]) -> list[list[T]]:
    return [[row[place] for place in of_row] for row, of_row in zip(rows, places, strict=True)]


# === Masks in a text ===


MASK_TOKENS = ("[MASK]", "<mask>")
"""Of every architecture that is exported."""

Span = tuple[int, int]


def find_masks(text: str, num_masks: int, mask_token: str | None) -> list[Span]:
    """Where a text has its masks, from the first to the character after the last one.

    Args:
        text: the text.
        num_masks: masks that the model found; with fewer than the text has, they are its first ones.
        mask_token: how the text writes a mask; None tries those that are known, of which a text has one.

    Raises:
        UserError: the text does not have as many masks.
    """
    tokens = (mask_token,) if mask_token else MASK_TOKENS
    spans = [[match.span() for match in re.finditer(re.escape(token), text)] for token in tokens]
    most = max(spans, key=len)
    if len(most) < num_masks:
        raise UserError(
            f"the model found {num_masks} masks in {text!r}, which has not as many {' or '.join(tokens)}; "
            "say how it writes a mask (--mask-token)"
        )
    return most[:num_masks]


def is_ambiguous(text: str) -> bool:
    """True for a text that holds more than one of the known mask tokens, of which one is a mask."""
    return sum(token in text for token in MASK_TOKENS) > 1


def put_word(text: str, span: Span, word: str) -> str:
    """The text with a word in place of a mask.

    Byte-level words bring the space before them along, and are put behind a space that is there already.
    """
    start, end = span
    before = text[:start]
    return before + (word.lstrip() if before[-1:].isspace() else word) + text[end:]
