"""Answers of a served model about the masks of a text, and the text with its words put in."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tfmlm.errors import UserError

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
            nested lists.
        num_texts: N.

    Raises:
        UserError: an output is missing or has another shape.
    """
    try:
        rows = zip(
            outputs["positions"],
            outputs["token_ids"],
            outputs["tokens"],
            outputs["scores"],
            outputs.get("notes", [""] * num_texts),
            strict=True,
        )
        answers = [_read_row(*row) for row in rows]
        if not all(
            math.isfinite(score) for answer in answers for scores in answer.scores for score in scores
        ):
            raise UserError(
                "the server's scores are not finite: its model's weights are damaged; export it again"
            )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"the server's outputs are not those of a tfmlm export ({error!r})") from error
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
    masks = [mask for mask, position in enumerate(positions) if position >= 0]
    return Answer(
        positions=[int(positions[mask]) for mask in masks],
        token_ids=[[int(token_id) for token_id in token_ids[mask]] for mask in masks],
        tokens=[[str(token) for token in tokens[mask]] for mask in masks],
        scores=[[float(score) for score in scores[mask]] for mask in masks],
        note=str(note),
    )


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
