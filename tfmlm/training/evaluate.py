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
    """

    loss: float

    @property
    def perplexity(self) -> float:
        """Exponential of the loss; infinite where that overflows."""
        return math.exp(self.loss) if self.loss < 700 else math.inf


def evaluate(model: MaskedLanguageModel, batches: tf.data.Dataset) -> Evaluation:
    """Evaluates a compiled model on the batches of `make_evaluation_batches`."""
    return Evaluation(float(model.evaluate(batches, verbose=0, return_dict=True)["loss"]))
