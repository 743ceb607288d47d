"""Writes the trained model as the Hugging Face folder that PyTorch and TensorFlow read as it is.

PyTorch is not needed for it: TensorFlow's variables are given PyTorch's names and shapes.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from huggingface_hub import split_state_dict_into_shards_factory
from huggingface_hub.constants import SAFETENSORS_INDEX_FILE, SAFETENSORS_WEIGHTS_FILE_PATTERN
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import save_file
from transformers import PreTrainedTokenizerFast, TFPreTrainedModel
from transformers.modeling_tf_pytorch_utils import (
    TransposeType,
    apply_transpose,
    convert_tf_weight_name_to_pt_weight_name,
)

from tfmlm.atomic_files import begin_folder
from tfmlm.data.tokenizers import save_tokenizer_folder
from tfmlm.errors import UserError, reason_of

MAX_SHARD_BYTES = 5 * 10**9
"""The size above which PyTorch's own `save_pretrained` splits the weights."""

# === Folder ===


def save_model_folder(
    model: TFPreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    texts: Mapping[str, str],
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Writes weights, configuration and tokenizer, and puts the whole folder in the place of an older one.

    Args:
        model: a built masked language model.
        tokenizer: its tokenizer.
        folder: where to; it never holds a part of a model, whenever the process is killed.
        texts: further files, by name.
        max_shard_bytes: size above which the weights are split.

    Raises:
        UserError: the folder cannot be written, for want of room for one. An older one is as it was.
    """
    try:
        with begin_folder(folder) as unfinished:
            _write_config(model, unfinished)
            write_weights(model, unfinished, max_shard_bytes)
            save_tokenizer_folder(tokenizer, unfinished)
            for name, text in texts.items():
                (unfinished / name).write_text(text, encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"model folder {str(folder)!r} cannot be written: {reason_of(error)}; "
            "make room, and the same command goes on from the last checkpoint"
        ) from error


def _write_config(model: TFPreTrainedModel, folder: Path) -> None:
    config = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__.removeprefix("TF")]
    # As the weights are written, whatever the checkpoint was before; transformers 5 calls it `dtype`.
    config.torch_dtype = "float32"
    if hasattr(config, "dtype"):
        del config.dtype
    config.save_pretrained(folder)


# === Weights under PyTorch's names and shapes ===


_BYTES_PER_VALUE = 4  # float32

# TensorFlow's MPNet always has a pooler, which the masked language model leaves untrained.
_WITHOUT_PYTORCH_NAME = "mpnet.pooler."

# ALBERT's two variables for the one bias of the output: TensorFlow adds the second to the logits and never
# uses the first; PyTorch ties them, and its file holds the first alone.
_ALBERT_BIAS, _ALBERT_DECODER_BIAS = "predictions.bias", "predictions.decoder.bias"


class _Weight(NamedTuple):
    variable: tf.Variable
    transpose: TransposeType

    @property
    def num_bytes(self) -> int:
        return int(self.variable.shape.num_elements()) * _BYTES_PER_VALUE

    def read(self) -> NDArray[np.float32]:
        """The values in PyTorch's layout: a Dense kernel [in, out] is a Linear weight [out, in]."""
        values = apply_transpose(self.transpose, self.variable.numpy(), pt_to_tf=False)
        return np.ascontiguousarray(values, np.float32)  # safetensors writes the memory as it lies


def write_weights(model: TFPreTrainedModel, folder: Path, max_shard_bytes: int = MAX_SHARD_BYTES) -> None:
    """Writes `model.safetensors`, or numbered shards and `model.safetensors.index.json`, in float32.

    The output embeddings are the input embeddings and are written once, as those. At most one shard is held
    in memory beside the model.

    Args:
        model: a built masked language model.
        folder: an existing folder without weights.
        max_shard_bytes: size of a shard; a larger tensor has a shard of its own.

    Raises:
        OSError, SafetensorError: the files cannot be written.
    """
    weights = _name_as_pytorch(model)
    split = split_state_dict_into_shards_factory(
        weights,
        get_storage_size=lambda weight: weight.num_bytes,
        filename_pattern=SAFETENSORS_WEIGHTS_FILE_PATTERN,
        max_shard_size=max_shard_bytes,
    )
    for file_name, names in split.filename_to_tensors.items():
        shard = {name: weights[name].read() for name in names}
        _save_file(shard, folder / file_name)
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        (folder / SAFETENSORS_INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _save_file(tensors: dict[str, NDArray[np.float32]], path: Path) -> None:
    """Writes a safetensors file with the mode that the umask gives; the library's own is 0600."""
    path.touch()
    mode = path.stat().st_mode
    save_file(tensors, path, metadata={"format": "pt"})
    path.chmod(mode)


def _name_as_pytorch(model: TFPreTrainedModel) -> dict[str, _Weight]:
    weights = {}
    for variable in model.weights:
        name, transpose = convert_tf_weight_name_to_pt_weight_name(
            variable.name, tf_weight_shape=variable.shape
        )
        if not name.startswith(_WITHOUT_PYTORCH_NAME):
            assert name not in weights, f"two weights are named {name}"
            weights[name] = _Weight(variable, transpose)
    if model.config.model_type == "albert":
        # Under both names: PyTorch ties them again, and TensorFlow's own loader wants the second.
        weights[_ALBERT_BIAS] = weights[_ALBERT_DECODER_BIAS]
    return weights


def tie_output_bias(model: TFPreTrainedModel, missing: list[str]) -> list[str]:
    """Gives ALBERT's output bias to both its variables if the weights hold it under one name.

    Args:
        model: a model just loaded.
        missing: names that the weights did not have.

    Returns:
        The names that are still missing.
    """
    if model.config.model_type != "albert":
        return missing
    biases = model.get_lm_head().get_bias()
    pair = {_ALBERT_BIAS: biases["bias"], _ALBERT_DECODER_BIAS: biases["decoder_bias"]}
    absent = pair.keys() & set(missing)
    if len(absent) != 1:
        return missing
    (name,) = absent
    (present,) = pair.keys() - absent
    pair[name].assign(pair[present])
    return [other for other in missing if other != name]


def find_missing(model: TFPreTrainedModel, names: Iterable[str]) -> list[str]:
    """PyTorch's names of the variables that a loader missed.

    Args:
        model: a built model.
        names: as the loader tells them: PyTorch's, without the encoder's prefix if no name in the weights has
            it; TensorFlow's; or, of an h5 file, layers'.
    """
    prefix = f"{model.base_model_prefix}."
    missing = set(names)
    return [
        name
        for name, weight in _name_as_pytorch(model).items()
        if missing & {name, name.removeprefix(prefix), *_names_in_tensorflow(weight.variable)}
    ]


def _names_in_tensorflow(variable: tf.Variable) -> tuple[str, str, str]:
    """Its whole name, the name without the model's, and its layer's."""
    whole: str = variable.name
    _, _, inner = whole.partition("/")
    return whole, inner, inner.partition("/")[0]


def list_names(model: TFPreTrainedModel) -> list[str]:
    """PyTorch's names of all its variables."""
    return list(_name_as_pytorch(model))


def name_output_bias(model: TFPreTrainedModel) -> set[str]:
    """PyTorch's names of the bias that is added to the logits."""
    biases = {id(bias) for bias in model.get_lm_head().get_bias().values()}
    return {name for name, weight in _name_as_pytorch(model).items() if id(weight.variable) in biases}
