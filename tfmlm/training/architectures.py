"""Which models go the whole way: trained, saved, read again, asked, exported, and the same in PyTorch.

Transformers has TensorFlow classes for more, and for more configurations of these. What cannot be saved, or
is another model in PyTorch, is refused here, before it is found after the last step, or never.
"""

from __future__ import annotations

import json
from typing import NamedTuple

import tensorflow as tf
from transformers import PretrainedConfig, TFAutoModelForMaskedLM, TFPreTrainedModel

from tfmlm.data.tokenizers import PADS_AT_ONE
from tfmlm.errors import UserError

SUPPORTED = (
    *("albert", "bert", "camembert", "convbert", "deberta", "deberta-v2", "distilbert", "electra", "esm"),
    *("flaubert", "layoutlm", "longformer", "mobilebert", "mpnet", "rembert", "roberta"),
    *("roberta-prelayernorm", "roformer", "tapas", "xlm", "xlm-roberta"),
)
"""The `model_type`s that go the whole way."""

_FAULTS = {
    "funnel": "PyTorch (transformers 5) does not read its embeddings back as it has saved them",
}

FURTHER_FIELDS = {
    "deberta": frozenset({"embedding_size"}),
    "deberta-v2": frozenset(
        {"attention_head_size", "conv_act", "conv_kernel_size", "embedding_size", "norm_rel_ebd"}
        | {"position_buckets", "share_att_key"}
    ),
}
"""Fields that a model reads and its configuration's class does not name; DeBERTa v3 is made of them."""


class _Field(NamedTuple):
    """A field that one of the frameworks ignores or cannot compute with, unless it has one of these values.

    Attributes:
        name: of the field.
        values: those that both compute with; the first is that of a configuration without the field.
        reason: why no other.
        model_types: whose configurations this is about.
    """

    name: str
    values: tuple[object, ...]
    reason: str
    model_types: tuple[str, ...] = SUPPORTED


_ALWAYS_TIED = "a TensorFlow model always takes its input embeddings for the output"
_NEVER_TIED = "its output always has embeddings of its own"

_SEES_ONE_SIDE = "it would not see the words behind a mask"
_DEBERTA = ("deberta", "deberta-v2")
_XLM = ("flaubert", "xlm")

_FIELDS = (
    _Field("tie_word_embeddings", (True,), _ALWAYS_TIED, tuple(set(SUPPORTED) - {"rembert"})),
    _Field("tie_word_embeddings", (False,), _NEVER_TIED, ("rembert",)),
    _Field("is_decoder", (False,), _SEES_ONE_SIDE),
    _Field(
        "position_embedding_type",
        ("absolute",),
        "TensorFlow has absolute positions only",
        tuple(set(SUPPORTED) - {"esm"}),
    ),
    _Field("position_embedding_type", ("absolute", "rotary"), "TensorFlow has no such positions", ("esm",)),
    _Field("is_folding_model", (False,), "it has a head of another kind", ("esm",)),
    _Field("talking_head", (False,), "TensorFlow cannot build it", ("deberta",)),
    _Field("inner_group_num", (1,), "TensorFlow cannot compute with more", ("albert",)),
    _Field("conv_groups", (1,), "TensorFlow always has one", ("deberta-v2",)),
    _Field("pruned_heads", ({},), "TensorFlow keeps all heads"),
    _Field("quantization_config", (None,), "TensorFlow reads no quantized weights"),
    _Field("relative_attention_num_buckets", (32,), "PyTorch always has 32", ("mpnet",)),
    _Field("legacy", (True,), "TensorFlow has the older head only", _DEBERTA),
    _Field("causal", (False,), _SEES_ONE_SIDE, _XLM),
    _Field("is_encoder", (True,), _SEES_ONE_SIDE, _XLM),
    _Field("asm", (False,), "TensorFlow has no adaptive softmax", _XLM),
    _Field("head_ratio", (2,), "TensorFlow cannot compute with another", ("convbert",)),
    _Field("key_query_shared_bottleneck", (True,), "TensorFlow cannot compute without", ("mobilebert",)),
    _Field("normalization_type", ("no_norm",), "PyTorch's has another epsilon", ("mobilebert",)),
    _Field("pre_norm", (False,), "PyTorch cannot compute with it", ("flaubert",)),
    _Field("layerdrop", (0,), "TensorFlow leaves out the same layers in every step", ("flaubert",)),
    _Field("sinusoidal_embeddings", (False,), "TensorFlow has learned positions only", _XLM),
)


def check_architecture(model_config: PretrainedConfig) -> None:
    """Checks that the model goes the whole way, as far as its configuration tells.

    Raises:
        UserError: it does not, or nobody has tried.
    """
    model_type = model_config.model_type
    if model_type not in SUPPORTED:
        fault = _FAULTS.get(model_type, "nobody has compared it with PyTorch's")
        raise UserError(
            f"model type {model_type!r} is not supported: {fault}; use one of {', '.join(SUPPORTED)}"
        )
    for field in _FIELDS:
        value = getattr(model_config, field.name, field.values[0])
        if model_type in field.model_types and value not in field.values:
            raise UserError(
                f"model.config.{field.name} is {json.dumps(value, default=str)}, and {field.reason}; "
                f"use a {model_type} in which it is {' or '.join(map(json.dumps, field.values))}"
            )
    for name, value in model_config.to_dict().items():
        is_rate = "dropout" in name and type(value) in (int, float)  # `token_dropout` is a switch
        if is_rate and not 0 <= value < 1:
            raise UserError(f"model.config.{name} is {value}; it must be 0 or more and less than 1")
    if model_type == "deberta" and model_config.relative_attention and model_config.num_attention_heads == 1:
        raise UserError(
            "model.config.num_attention_heads is 1, and TensorFlow crashes where deberta has relative "
            "positions and one head; use more"
        )


def build_model(model_config: PretrainedConfig) -> TFPreTrainedModel:
    """Makes a model with random weights, all of whose variables are there.

    Two of TensorFlow's classes have two variables where PyTorch has one, which would go apart in training.
    """
    model = TFAutoModelForMaskedLM.from_config(model_config)
    if model_config.model_type == "esm":
        # It is built already, for the output to take it, and building it again would make a second one.
        model.esm.embeddings.word_embeddings.build = lambda _: None
    model.build_in_name_scope()
    if model_config.model_type == "mobilebert":
        _replace_variable(model.get_lm_head(), "decoder", model.mobilebert.embeddings.weight)
    return model


def _replace_variable(layer: tf.keras.layers.Layer, name: str, variable: tf.Variable) -> None:
    delattr(layer, name)
    setattr(layer, name, variable)


def max_block_size(model_config: PretrainedConfig) -> int:
    """Longest input, in tokens. Types that pad at 1 count positions from 2."""
    positions = int(model_config.max_position_embeddings)
    if model_config.model_type == "esm":
        is_absolute = model_config.position_embedding_type == "absolute"
        return positions - int(model_config.pad_token_id) - 1 if is_absolute else positions
    return positions - 2 if model_config.model_type in PADS_AT_ONE else positions
