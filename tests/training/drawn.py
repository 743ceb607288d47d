"""Draws configurations of every architecture: widths, depths, positions and the options of each type."""

import random
from typing import Any

from transformers import AutoConfig

_POSITIONS = (40, 72, 130)


def draw_fields(model_type: str, rng: random.Random) -> dict[str, Any]:
    """Fields of `model.config`, without `model_type`; not every draw is one that is supported."""
    names = AutoConfig.for_model(model_type).to_dict().keys()
    num_heads = rng.choice([1, 2, 4])
    common = {
        "hidden_size": 8 * num_heads * rng.choice([1, 2]),
        "num_hidden_layers": rng.randint(1, 3),
        "num_attention_heads": num_heads,
        "intermediate_size": rng.choice([24, 64]),
        "max_position_embeddings": rng.choice(_POSITIONS),
        "hidden_act": rng.choice(["gelu", "relu", "gelu_new"]),
        "layer_norm_eps": rng.choice([1e-12, 1e-5]),
        "type_vocab_size": rng.choice([1, 2]),
    }
    return {name: value for name, value in common.items() if name in names} | _OWN.get(
        model_type, lambda *_: {}
    )(rng, common)


def _draw_albert(rng: random.Random, common: dict[str, Any]) -> dict[str, Any]:
    return {
        "embedding_size": rng.choice([8, 16]),
        "num_hidden_groups": rng.randint(1, common["num_hidden_layers"]),
    }


def _draw_convbert(rng: random.Random, common: dict[str, Any]) -> dict[str, Any]:
    return {
        "embedding_size": rng.choice([8, common["hidden_size"]]),
        "num_attention_heads": rng.choice([2, 4]),
        "hidden_size": 32,
        "head_ratio": rng.choice([1, 2]),
        "num_groups": rng.choice([1, 2]),
        "conv_kernel_size": rng.choice([3, 9]),
    }


def _draw_deberta(rng: random.Random, _: dict[str, Any]) -> dict[str, Any]:
    is_relative = rng.random() < 0.8
    return {
        "relative_attention": is_relative,
        "pos_att_type": rng.choice([["c2p"], ["p2c"], ["c2p", "p2c"], "c2p|p2c"]) if is_relative else [],
        "position_biased_input": not is_relative or rng.random() < 0.5,
        "max_relative_positions": rng.choice([-1, 12]),
        "type_vocab_size": rng.choice([0, 2]),
    }


def _draw_deberta_v2(rng: random.Random, common: dict[str, Any]) -> dict[str, Any]:
    return _draw_deberta(rng, common) | {
        "share_att_key": rng.random() < 0.5,
        "position_buckets": rng.choice([-1, 4, 8]),
        "norm_rel_ebd": rng.choice(["none", "layer_norm"]),
        "conv_kernel_size": rng.choice([0, 3]),
        "conv_act": rng.choice(["tanh", "gelu"]),
    }


def _draw_distilbert(rng: random.Random, common: dict[str, Any]) -> dict[str, Any]:
    return {
        "dim": common["hidden_size"],
        "n_layers": common["num_hidden_layers"],
        "n_heads": common["num_attention_heads"],
        "hidden_dim": common["intermediate_size"],
        "activation": rng.choice(["gelu", "relu"]),
        "sinusoidal_pos_embds": rng.random() < 0.5,
    }


def _draw_esm(rng: random.Random, _: dict[str, Any]) -> dict[str, Any]:
    return {
        "position_embedding_type": rng.choice(["absolute", "rotary"]),
        "token_dropout": rng.random() < 0.5,
        "emb_layer_norm_before": rng.random() < 0.5,
    }


def _draw_longformer(rng: random.Random, common: dict[str, Any]) -> dict[str, Any]:
    windows = [rng.choice([4, 8, 16]) for _ in range(common["num_hidden_layers"])]
    return {"attention_window": rng.choice([windows[0], [windows[0]] * len(windows)])}


def _draw_mobilebert(rng: random.Random, _: dict[str, Any]) -> dict[str, Any]:
    has_bottleneck = rng.random() < 0.7
    return {
        "hidden_size": 32,
        "num_attention_heads": 2,
        "embedding_size": rng.choice([8, 16]),
        "intra_bottleneck_size": 16 if has_bottleneck else 32,
        "use_bottleneck": has_bottleneck,
        "use_bottleneck_attention": rng.random() < 0.3,
        "key_query_shared_bottleneck": rng.random() < 0.5,
        "num_feedforward_networks": rng.choice([1, 3]),
        "normalization_type": rng.choice(["no_norm", "layer_norm"]),
        "trigram_input": rng.random() < 0.5,
    }


def _draw_rembert(rng: random.Random, _: dict[str, Any]) -> dict[str, Any]:
    return {
        "input_embedding_size": rng.choice([8, 16]),
        "output_embedding_size": rng.choice([16, 24]),
    }


def _draw_roformer(rng: random.Random, _: dict[str, Any]) -> dict[str, Any]:
    return {"embedding_size": rng.choice([8, 16]), "rotary_value": rng.random() < 0.5}


def _draw_tapas(rng: random.Random, _: dict[str, Any]) -> dict[str, Any]:
    return {
        "reset_position_index_per_cell": rng.random() < 0.5,
        "type_vocab_sizes": rng.choice([[3, 256, 256, 2, 256, 256, 10], [2, 4, 4, 2, 4, 4, 2]]),
    }


def _draw_xlm(rng: random.Random, common: dict[str, Any]) -> dict[str, Any]:
    return {
        "emb_dim": common["hidden_size"],
        "n_layers": common["num_hidden_layers"],
        "n_heads": common["num_attention_heads"],
        "max_position_embeddings": common["max_position_embeddings"],
        "gelu_activation": rng.random() < 0.5,
        "n_langs": rng.choice([1, 3]),
    }


def _draw_flaubert(rng: random.Random, common: dict[str, Any]) -> dict[str, Any]:
    return _draw_xlm(rng, common) | {"pre_norm": rng.random() < 0.5}


_OWN = {
    "albert": _draw_albert,
    "convbert": _draw_convbert,
    "deberta": _draw_deberta,
    "deberta-v2": _draw_deberta_v2,
    "distilbert": _draw_distilbert,
    "electra": lambda rng, _: {"embedding_size": rng.choice([8, 16])},
    "esm": _draw_esm,
    "flaubert": _draw_flaubert,
    "longformer": _draw_longformer,
    "mobilebert": _draw_mobilebert,
    "rembert": _draw_rembert,
    "roformer": _draw_roformer,
    "tapas": _draw_tapas,
    "xlm": _draw_xlm,
}
