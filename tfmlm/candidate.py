"""A word for a mask, as every command and client of the package gives it."""

from __future__ import annotations

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
