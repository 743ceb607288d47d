"""How deep in the network a variable lies, read off its name."""

from __future__ import annotations

import re
from collections.abc import Sequence

import tensorflow as tf

from tfmlm.config import ModelConfig
from tfmlm.errors import UserError

_EMBEDDINGS = re.compile(
    r"/(embeddings|embeddings_project|embedding_hidden_mapping_in|embed_positions|relative_attention_bias)/"
)
_LAYER = re.compile(r"/(?:layer|albert_layer_groups)_\._(\d+)/")


def measure_depths(variables: Sequence[tf.Variable]) -> dict[str, int]:
    """Depth by variable name: 0 for embeddings, n + 1 for layer n, one more than the last for the head.

    ALBERT's layers share their weights and count as one.
    """
    layers = {variable.name: _LAYER.search(variable.name) for variable in variables}
    top = 1 + max((int(match[1]) + 1 for match in layers.values() if match), default=0)
    return {
        name: 0 if _EMBEDDINGS.search(name) else int(match[1]) + 1 if match else top
        for name, match in layers.items()
    }


def choose_trained(variables: Sequence[tf.Variable], config: ModelConfig) -> list[tf.Variable]:
    """The variables that are not frozen, in order.

    Raises:
        UserError: more layers are to be frozen than there are.
    """
    depths = measure_depths(variables)
    num_layers = max(depths.values()) - 1
    if config.freeze_layers > num_layers:
        raise UserError(
            f"model.freeze_layers is {config.freeze_layers}, and the model has {num_layers} layers"
        )
    return [
        variable
        for variable in variables
        if (depths[variable.name] > 0 or not config.freeze_embeddings)
        and not 1 <= depths[variable.name] <= config.freeze_layers
    ]


def scale_by_depth(variables: Sequence[tf.Variable], layer_decay: float) -> dict[str, float]:
    """Factor of each variable's learning rate: 1 for the head, times `layer_decay` for each layer below.

    Raises:
        UserError: the names of the variables tell no layers apart.
    """
    depths = measure_depths(variables)
    top = max(depths.values())
    if top < 2:
        raise UserError(
            f"optimizer.layer_decay is {layer_decay}, and the layers of this model type cannot be told apart "
            "by their names; set optimizer.layer_decay=1"
        )
    return {name: layer_decay ** (top - depth) for name, depth in depths.items()}
