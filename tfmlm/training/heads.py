"""An encoder and its vocabulary head, apart, so that logits are computed only where they count.

The head of a vocabulary of 30,000 costs more than a third of a small model's step, and 85 % of it is for
positions that the loss ignores. The weights stay those of the Hugging Face model, in name and shape.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf
from transformers import TFPreTrainedModel


def _distilbert_head(model: TFPreTrainedModel, hidden: tf.Tensor) -> tf.Tensor:
    transformed = model.vocab_layer_norm(model.act(model.vocab_transform(hidden)))
    return model.vocab_projector(transformed)


_HEADS: dict[str, Callable[[TFPreTrainedModel, tf.Tensor], tf.Tensor]] = {
    "albert": lambda model, hidden: model.predictions(hidden),
    "bert": lambda model, hidden: model.mlm(hidden),
    "camembert": lambda model, hidden: model.lm_head(hidden),
    "distilbert": _distilbert_head,
    "electra": lambda model, hidden: model.generator_lm_head(model.generator_predictions(hidden)),
    "mpnet": lambda model, hidden: model.lm_head(hidden),
    "roberta": lambda model, hidden: model.lm_head(hidden),
    "xlm-roberta": lambda model, hidden: model.lm_head(hidden),
}

ARCHITECTURES = tuple(sorted(_HEADS))
"""The `model_type`s whose head can be applied to chosen positions."""

READS_PADDING = ("convbert", "mobilebert")
"""Those whose words see what lies behind the text, whatever the attention mask says: by a convolution, or by
the embedding of the next token. To be answered as they were trained, their texts must not be padded."""

BRANCHING = ("deberta", "deberta-v2", "longformer")
"""Those with branches that hang on a tensor, which AutoGraph has to rewrite."""


def compute_logits_at(
    model: TFPreTrainedModel,
    input_ids: tf.Tensor,
    attention_mask: tf.Tensor,
    indices: tf.Tensor,
    training: bool = False,
) -> tf.Tensor:
    """Vocabulary logits at chosen positions.

    Args:
        model: any TensorFlow masked language model; one whose type is not in `ARCHITECTURES` computes
            the logits everywhere first.
        input_ids: int [B, L].
        attention_mask: int [B, L].
        indices: int [P], positions in the flattened [B * L].
        training: whether dropout is on.

    Returns:
        [P, V] in the model's compute dtype.
    """
    hidden = compute_hidden_at(model, input_ids, attention_mask, indices, training)
    return apply_head(model, hidden)


def compute_logits(
    model: TFPreTrainedModel, input_ids: tf.Tensor, attention_mask: tf.Tensor, training: bool = False
) -> tf.Tensor:
    """Vocabulary logits [B, L, V] at every position; arguments as in `compute_logits_at`."""

    def call(input_ids: tf.Tensor, attention_mask: tf.Tensor) -> tf.Tensor:
        return model(input_ids=input_ids, attention_mask=attention_mask, training=training).logits

    if model.config.model_type not in BRANCHING or not tf.inside_function():
        return call(input_ids, attention_mask)
    # A function of its own, since the one around it may be traced without AutoGraph.
    return tf.function(call, autograph=True)(input_ids, attention_mask)


def compute_hidden_at(
    model: TFPreTrainedModel,
    input_ids: tf.Tensor,
    attention_mask: tf.Tensor,
    indices: tf.Tensor,
    training: bool = False,
) -> tf.Tensor:
    """The input of `apply_head` at chosen positions; arguments as in `compute_logits_at`.

    Returns:
        [P, D] in the model's compute dtype, see `hidden_spec`.
    """
    if model.config.model_type not in ARCHITECTURES:
        return _gather_rows(compute_logits(model, input_ids, attention_mask, training), indices)
    inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "training": training}
    # None of these has a branch that hangs on a tensor; rewriting them would delay a run by seconds.
    encoder = tf.autograph.experimental.do_not_convert(getattr(model, model.base_model_prefix))
    return _gather_rows(encoder(**inputs)[0], indices)


def apply_head(model: TFPreTrainedModel, hidden: tf.Tensor) -> tf.Tensor:
    """Logits [P, V] of [P, D]; a model that is not in `ARCHITECTURES` has applied its head already."""
    if model.config.model_type not in ARCHITECTURES:
        return hidden
    return _HEADS[model.config.model_type](model, hidden[tf.newaxis])[0]


def hidden_spec(model: TFPreTrainedModel) -> tf.TensorSpec:
    """Shape [None, D] and dtype of what `compute_hidden_at` returns."""
    has_head_apart = model.config.model_type in ARCHITECTURES
    width = model.config.hidden_size if has_head_apart else model.config.vocab_size
    return tf.TensorSpec([None, width], model.compute_dtype)


def _gather_rows(values: tf.Tensor, indices: tf.Tensor) -> tf.Tensor:
    """Rows [P, D] of [B, L, D]."""
    return tf.gather(tf.reshape(values, [-1, values.shape[-1]]), indices)
