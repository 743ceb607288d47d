"""Token-weighted loss and perplexity over a whole evaluation set."""

from __future__ import annotations

import math
from typing import NamedTuple

import tensorflow as tf

from tfmlm.training.masked_lm import MaskedLanguageModel


class Evaluation(NamedTuple):
    """A result over all masked tokens of a set.

    Attributes:
        loss: mean cross-entropy of a masked token, in nats.
        top_1: share of the masked tokens that the model puts first.
        top_5: share that it puts among its first five.
    """

    loss: float
    top_1: float
    top_5: float

    @property
    def perplexity(self) -> float:
        """Exponential of the loss; infinite where that overflows."""
        return math.exp(self.loss) if self.loss < 700 else math.inf


def evaluate(model: MaskedLanguageModel, batches: tf.data.Dataset) -> Evaluation:
    """Evaluates a compiled model on the batches of `make_evaluation_batches`."""
    results = model.evaluate(batches, verbose=0, return_dict=True)
    return Evaluation(**{name: float(results[name]) for name in Evaluation._fields})
