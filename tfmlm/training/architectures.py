"""Which models go the whole way: trained, saved, read again, asked, exported, and the same in PyTorch.

Transformers has TensorFlow classes for more. Some cannot be saved, and some are another model in PyTorch,
which would be found after the last step, or never.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from transformers import PretrainedConfig

from tfmlm.config import Config
from tfmlm.errors import UserError
from tfmlm.training.heads import ARCHITECTURES

ANSWERING = (
    *ARCHITECTURES,
    *("flaubert", "layoutlm", "rembert", "roberta-prelayernorm", "roformer", "tapas", "xlm"),
)
"""The `model_type`s that go the whole way."""

TRAINED_ONLY = ("deberta", "deberta-v2", "longformer")
"""Those that are trained, saved and evaluated, and whose graph cannot be traced for answers and exports."""

SUPPORTED = (*ANSWERING, *TRAINED_ONLY)

_FAULTS = {
    "convbert": "its convolutions cannot be saved in PyTorch's shapes",
    "esm": "TensorFlow makes its word embeddings twice",
    "funnel": "its logits are others in PyTorch",
    "mobilebert": "its input embeddings are not those of its output in TensorFlow, and in PyTorch they are",
}


class _Field(NamedTuple):
    """A field that one of the frameworks ignores or cannot compute with, unless it has this value."""

    name: str
    value: object
    reason: str
    model_types: tuple[str, ...] = SUPPORTED


_ALWAYS_TIED = "a TensorFlow model always takes its input embeddings for the output"
_NEVER_TIED = "its output always has embeddings of its own"

_SEES_ONE_SIDE = "it would not see the words behind a mask"
_DEBERTA = ("deberta", "deberta-v2")
_XLM = ("flaubert", "xlm")

_FIELDS = (
    _Field("tie_word_embeddings", True, _ALWAYS_TIED, tuple(set(SUPPORTED) - {"rembert"})),
    _Field("tie_word_embeddings", False, _NEVER_TIED, ("rembert",)),
    _Field("is_decoder", False, _SEES_ONE_SIDE),
    _Field("position_embedding_type", "absolute", "TensorFlow has absolute positions only"),
    _Field("pruned_heads", {}, "TensorFlow keeps all heads"),
    _Field("quantization_config", None, "TensorFlow reads no quantized weights"),
    _Field("relative_attention_num_buckets", 32, "PyTorch always has 32", ("mpnet",)),
    _Field("legacy", True, "TensorFlow has the older head only", _DEBERTA),
    _Field("causal", False, _SEES_ONE_SIDE, _XLM),
    _Field("is_encoder", True, _SEES_ONE_SIDE, _XLM),
    _Field("asm", False, "TensorFlow has no adaptive softmax", _XLM),
    _Field("sinusoidal_embeddings", False, "TensorFlow has learned positions only", _XLM),
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
        value = getattr(model_config, field.name, field.value)
        if model_type in field.model_types and value != field.value:
            raise UserError(
                f"model.config.{field.name} is {json.dumps(value, default=str)}, and {field.reason}; "
                f"use a {model_type} in which it is {json.dumps(field.value)}"
            )
    # Where the class of the configuration has no such field, it is false.
    shares_keys = getattr(model_config, "share_att_key", False)
    if model_type == "deberta-v2" and model_config.relative_attention and not shares_keys:
        raise UserError(
            "model.config.share_att_key is false, and TensorFlow gives keys of positions other names than "
            "PyTorch; use a deberta-v2 in which it is true"
        )


def check_answers(model_config: PretrainedConfig) -> None:
    """Checks that masks can be filled with the model, and that it can be exported.

    Raises:
        UserError: it can only be trained.
    """
    if model_config.model_type in TRAINED_ONLY:
        raise UserError(
            f"model type {model_config.model_type!r} can be trained and evaluated, and not be asked or "
            "exported with TensorFlow; ask it in PyTorch, which reads its folder"
        )


def check_use(model_config: PretrainedConfig, config: Config) -> None:
    """Checks that a run asks nothing of the model that it cannot do.

    Raises:
        UserError: names the key that asks for it.
    """
    if model_config.model_type not in TRAINED_ONLY:
        return
    for key, is_asked, remedy in (
        ("export.enabled", config.export.enabled, "set export.enabled=false"),
        ("run.sample_texts", bool(config.run.sample_texts), "set run.sample_texts=[]"),
    ):
        if is_asked:
            raise UserError(
                f"{key} asks for an export or answers, and model type {model_config.model_type!r} can only "
                f"be trained with TensorFlow; {remedy}"
            )
