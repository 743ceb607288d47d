"""Small text, small models of every architecture with random weights, and folders in the Hub's layout."""

import json
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file
from transformers import (
    AutoConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
    TFPreTrainedModel,
)

from tfmlm.training.architectures import build_model

SENTENCES = [
    f"{verb} the {adjective} {noun} of the given {whole}{tail}"
    for verb, adjective, noun, (whole, tail) in product(
        ["Return", "Compute", "Load", "Write"],
        ["first", "default", "unsafe", "longest"],
        ["name", "size", "value", "path", "index"],
        [("array", "."), ("file", ", if it exists."), ("tokenizer", ": see below.")],
    )
]
"""240 sentences in the manner of docstrings."""

_COMMON = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 72,
}

TINY_CONFIGS: dict[str, dict[str, Any]] = {
    "albert": _COMMON | {"embedding_size": 16},
    "bert": _COMMON,
    "camembert": _COMMON,
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "max_position_embeddings": 72},
    "electra": _COMMON | {"embedding_size": 16},
    "mpnet": _COMMON,
    "roberta": _COMMON,
    "xlm-roberta": _COMMON,
}
"""Fields of a Hugging Face configuration, by `model_type`."""

_XLM = {"emb_dim": 32, "n_layers": 2, "n_heads": 2, "max_position_embeddings": 72, "pad_index": 0}

OTHER_TINY_CONFIGS: dict[str, dict[str, Any]] = {
    "convbert": _COMMON | {"embedding_size": 16},
    "deberta": _COMMON | {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    "deberta-v2": _COMMON
    | {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_biased_input": False}
    | {"share_att_key": True, "position_buckets": 8, "norm_rel_ebd": "layer_norm"},
    "esm": _COMMON
    | {"position_embedding_type": "rotary", "token_dropout": True}
    | {"pad_token_id": 0, "mask_token_id": 4},
    "flaubert": _XLM,
    "layoutlm": _COMMON,
    "longformer": _COMMON | {"attention_window": 16},
    "mobilebert": _COMMON
    | {"embedding_size": 16, "intra_bottleneck_size": 16, "num_feedforward_networks": 2},
    "rembert": _COMMON | {"input_embedding_size": 16, "output_embedding_size": 24},
    "roberta-prelayernorm": _COMMON,
    "roformer": _COMMON | {"embedding_size": 16},
    "tapas": _COMMON,
    "xlm": _XLM,
}
"""The same of architectures whose logits are computed at every position."""

ALL_TINY_CONFIGS = TINY_CONFIGS | OTHER_TINY_CONFIGS


def with_one_layer(model_type: str) -> dict[str, Any]:
    """The tiny configuration for what is slow and does not depend on the depth."""
    fields = ALL_TINY_CONFIGS[model_type]
    return fields | {"n_layers" if "n_layers" in fields else "num_hidden_layers": 1}


def long_but(model_types: Iterable[str], *short: str) -> list[Any]:
    """All of these as cases of a test; a test of minutes takes the short ones, for each its own tokenizer."""
    return [
        model_type if model_type in short else pytest.param(model_type, marks=pytest.mark.long)
        for model_type in model_types
    ]


PAD_IS_ONE = {"camembert", "longformer", "mpnet", "roberta", "roberta-prelayernorm", "xlm-roberta"}
"""Architectures whose padding id is 1, as their tokenizers have it."""


def without_dropout(model_type: str) -> dict[str, Any]:
    """The tiny configuration with all dropout off."""
    names = (
        ("dropout", "attention_dropout")
        if model_type == "distilbert"
        else ("hidden_dropout_prob", "attention_probs_dropout_prob")
    )
    return TINY_CONFIGS[model_type] | dict.fromkeys(names, 0.0)


def make_tiny(model_type: str, **fields: object) -> TFPreTrainedModel:
    defaults = {"vocab_size": 60, "pad_token_id": int(model_type in PAD_IS_ONE)}
    config = AutoConfig.for_model(model_type, **defaults | fields)
    return build_model(config)


TEXTS = ["Return the <mask> size.", "Load the default <mask> of the <mask> file, if it exists."]


def make_pytorch_weights(config: RobertaConfig) -> dict[str, NDArray[np.float32]]:
    """Random weights under the names that PyTorch's RobertaForMaskedLM has."""
    rng = np.random.default_rng(0)
    hidden, inner = config.hidden_size, config.intermediate_size

    def normal(*shape: int) -> NDArray[np.float32]:
        return rng.normal(scale=0.02, size=shape).astype(np.float32)

    def linear(name: str, num_outputs: int, num_inputs: int) -> dict[str, NDArray[np.float32]]:
        return {f"{name}.weight": normal(num_outputs, num_inputs), f"{name}.bias": normal(num_outputs)}

    def norm(name: str) -> dict[str, NDArray[np.float32]]:
        return {f"{name}.weight": 1 + normal(hidden), f"{name}.bias": normal(hidden)}

    weights = {
        "roberta.embeddings.word_embeddings.weight": normal(config.vocab_size, hidden),
        "roberta.embeddings.position_embeddings.weight": normal(config.max_position_embeddings, hidden),
        "roberta.embeddings.token_type_embeddings.weight": normal(1, hidden),
        "lm_head.bias": normal(config.vocab_size),
        **norm("roberta.embeddings.LayerNorm"),
        **linear("lm_head.dense", hidden, hidden),
        **norm("lm_head.layer_norm"),
    }
    for number in range(config.num_hidden_layers):
        layer = f"roberta.encoder.layer.{number}"
        for part in ("query", "key", "value"):
            weights |= linear(f"{layer}.attention.self.{part}", hidden, hidden)
        weights |= linear(f"{layer}.attention.output.dense", hidden, hidden)
        weights |= norm(f"{layer}.attention.output.LayerNorm")
        weights |= linear(f"{layer}.intermediate.dense", inner, hidden)
        weights |= linear(f"{layer}.output.dense", hidden, inner)
        weights |= norm(f"{layer}.output.LayerNorm")
    return weights


def write_hub_folder(folder: Path, tokenizer: PreTrainedTokenizerFast) -> dict[str, NDArray[np.float32]]:
    """Writes config.json, model.safetensors, vocab.json and merges.txt, as distilroberta-base has them."""
    config = RobertaConfig(
        vocab_size=len(tokenizer),
        type_vocab_size=1,
        architectures=["RobertaForMaskedLM"],
        **TINY_CONFIGS["roberta"],
    )
    folder.mkdir()
    config.to_json_file(folder / "config.json", use_diff=True)
    weights = make_pytorch_weights(config)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False), encoding="utf-8")
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    return weights


def write_eli5_rows(path: Path, texts: list[str]) -> None:
    """JSON lines in the shape of ELI5: each question has several answers, as lists side by side."""
    with path.open("w", encoding="utf-8") as file:
        for number in range(0, len(texts) - 1, 2):
            answers = texts[number : number + 2]
            row = {
                "q_id": str(number),
                "title": f"Why {number}?",
                "answers": {"a_id": ["a", "b"], "text": answers, "score": [3, 1]},
            }
            file.write(json.dumps(row) + "\n")
