"""Token-weighted loss and perplexity over a whole evaluation set."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import tensorflow as tf

from tfmlm.errors import UserError
from tfmlm.results import Evaluation
from tfmlm.training.masked_lm import MaskedLanguageModel
from tfmlm.training.setup import Setup, explained_failures


def evaluate(
    model: MaskedLanguageModel,
    batches: tf.data.Dataset,
    callbacks: Sequence[tf.keras.callbacks.Callback] = (),
) -> Evaluation:
    """Evaluates a compiled model on the batches of `make_evaluation_batches`.

    Raises:
        UserError: the loss is not a number, because the model's weights are none or far too large.
    """
    with _one_batch_at_once(model):
        results = model.evaluate(batches, callbacks=[*callbacks], verbose=0, return_dict=True)
    evaluation = Evaluation(**{name: float(results[name]) for name in Evaluation._fields})
    if not math.isfinite(evaluation.loss):
        raise UserError(
            f"loss on the held-out text is {evaluation.loss}: the weights have diverged; train anew with a "
            "lower optimizer.learning_rate or more optimizer.warmup_steps"
        )
    return evaluation


def evaluate_held_out(setup: Setup, callbacks: Sequence[tf.keras.callbacks.Callback] = ()) -> Evaluation:
    """Evaluates the model of a run on its held-out text.

    Raises:
        UserError: as `evaluate`, or a row or a shard cannot be read.
        WorkerLostError: another worker of the run is gone.
    """
    with explained_failures(setup):
        return evaluate(setup.model, setup.validation, callbacks)


@contextmanager
def _one_batch_at_once(model: MaskedLanguageModel) -> Iterator[None]:
    """Several in one execution need to know how many there are, which blocks that are rebatched do not tell.

    `train.steps_per_execution` is compiled into the model, and Keras has no public way to evaluate without.
    """
    steps_per_execution = model._steps_per_execution  # noqa: SLF001
    in_training = int(steps_per_execution.numpy())
    steps_per_execution.assign(1)
    try:
        yield
    finally:
        steps_per_execution.assign(in_training)
