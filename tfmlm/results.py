"""What a run, a command or a client gives: figures, and words for masks."""

from __future__ import annotations

import math
from typing import TypedDict


class Candidate(TypedDict):
    """A word for a mask, in the field names of the Hugging Face pipeline.

    Attributes:
        score: probability.
        token: id.
        token_str: the word.
        sequence: the text with this word in place of this mask; other masks stay.
    """

    score: float
    token: int
    token_str: str
    sequence: str


Samples = dict[str, list[list[Candidate]]]
"""For each text, one list of candidates a mask, best first."""


LARGEST_LOSS = 700.0
"""In nats; the exponential of a larger one soon is no float, and infinity is no JSON."""


def to_perplexity(loss: float) -> float:
    """Exponential of a loss in nats; about 1e304 for all those whose exponential is no finite number."""
    return math.exp(min(loss, LARGEST_LOSS))
