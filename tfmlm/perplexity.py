"""From a loss to a perplexity, in one place."""

from __future__ import annotations

import math

LARGEST_LOSS = 700.0
"""In nats; the exponential of a larger one soon is no float, and infinity is no JSON."""


def to_perplexity(loss: float) -> float:
    """Exponential of a loss in nats; about 1e304 for all those whose exponential is no finite number."""
    return math.exp(min(loss, LARGEST_LOSS))
