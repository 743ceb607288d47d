"""Puts words into the masks of a text, without the model's tokenizer."""

from __future__ import annotations

import re

from tfmlm.errors import UserError

_MASK_TOKENS = ("[MASK]", "<mask>")
"""Of every architecture that is exported."""

Span = tuple[int, int]


def find_masks(text: str, num_masks: int, mask_token: str | None) -> list[Span]:
    """Where a text has its masks, from the first to the character after the last one.

    Args:
        text: the text.
        num_masks: masks that the model found; with fewer than the text has, they are its first ones.
        mask_token: how the text writes a mask; None tries those that are known.

    Raises:
        UserError: the text does not have as many masks.
    """
    tokens = (mask_token,) if mask_token else _MASK_TOKENS
    spans = [[match.span() for match in re.finditer(re.escape(token), text)] for token in tokens]
    fitting = [found for found in spans if len(found) >= num_masks]
    if not fitting:
        raise UserError(
            f"the model found {num_masks} masks in {text!r}, which has not as many {' or '.join(tokens)}; "
            "say how it writes a mask (--mask-token)"
        )
    return min(fitting, key=len)[:num_masks]


def put_word(text: str, span: Span, word: str) -> str:
    """The text with a word in place of a mask.

    Byte-level words bring the space before them along, and are put behind a space that is there already.
    """
    start, end = span
    before = text[:start]
    return before + (word.lstrip() if before[-1:].isspace() else word) + text[end:]
