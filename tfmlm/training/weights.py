"""The weights of a model under PyTorch's names and shapes: read into it with a diagnosis, and written.

PyTorch is not needed for either. The loader of transformers drops what it finds no place for, starts at
random what it does not find, and names the layers of an h5 file instead of its tensors. So files are read
here, tensor by tensor, and whatever is missing, left over, of another kind or not finite is told.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import tensorflow as tf
from huggingface_hub import split_state_dict_into_shards_factory
from huggingface_hub.constants import (
    SAFETENSORS_INDEX_FILE,
    SAFETENSORS_SINGLE_FILE,
    SAFETENSORS_WEIGHTS_FILE_PATTERN,
)
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from transformers import PretrainedConfig, TFPreTrainedModel
from transformers.modeling_tf_pytorch_utils import TransposeType, convert_tf_weight_name_to_pt_weight_name
from transformers.utils import TF2_WEIGHTS_INDEX_NAME, TF2_WEIGHTS_NAME

from tfmlm.errors import UserError, first_line
from tfmlm.inside import find_inside, read_json, stays_inside
from tfmlm.model_layouts import refuse_pointer

_LOGGER = logging.getLogger(__name__)

MAX_SHARD_BYTES = 5 * 10**9
"""The size above which PyTorch's own `save_pretrained` splits the weights."""

Array = NDArray[np.float32]

# === Names and shapes ===


class _Layout(NamedTuple):
    """How PyTorch has a tensor of TensorFlow's.

    Attributes:
        name: PyTorch's name.
        axes: of TensorFlow's tensor, in PyTorch's order.
        shape: PyTorch's.
    """

    name: str
    axes: tuple[int, ...]
    shape: tuple[int, ...]


class Weight(NamedTuple):
    """A variable, and how PyTorch has it."""

    variable: tf.Variable
    layout: _Layout

    @property
    def num_bytes(self) -> int:
        """Size in float32."""
        return int(self.variable.shape.num_elements()) * np.float32().itemsize

    def read(self) -> Array:
        """The values in PyTorch's shape."""
        values = self.variable.numpy().transpose(self.layout.axes).reshape(self.layout.shape)
        return np.ascontiguousarray(values, np.float32)  # safetensors writes the memory as it lies

    def assign(self, values: Array) -> None:
        """Takes values in PyTorch's shape."""
        permuted = [int(self.variable.shape[axis]) for axis in self.layout.axes]
        self.variable.assign(values.reshape(permuted).transpose(np.argsort(self.layout.axes)))


_RENAMED = {
    # Of TensorFlow's two variables for the one bias of the output, the second is added to the logits.
    "albert": {"predictions.bias": "predictions.no_bias", "predictions.decoder.bias": "predictions.bias"},
    "deberta-v2": {".pos_proj.": ".pos_key_proj.", ".pos_q_proj.": ".pos_query_proj."},
}
"""Parts of names that the conversion of transformers leaves as TensorFlow has them, and PyTorch's."""

_ALBERT_BIAS = "predictions.bias"

_DEPTHWISE, _DEPTHWISE_BIAS = ".depthwise.weight", ".key_conv_attn_layer.bias"  # ConvBERT's


def _convert_name(name: str, shape: tuple[int, ...], model_config: PretrainedConfig) -> _Layout:
    """PyTorch's layout of the tensor that TensorFlow calls `name`, its model's own name in front."""
    converted, transpose = convert_tf_weight_name_to_pt_weight_name(name, tf_weight_shape=shape)
    for ours, theirs in _RENAMED.get(model_config.model_type, {}).items():
        converted = converted.replace(ours, theirs)
    axes = _permute(transpose, len(shape))
    if converted.endswith(_DEPTHWISE) and len(shape) == 3:
        axes = (1, 2, 0)  # [K, C, 1] of a Keras SeparableConv1D is [C, 1, K] of a Conv1d with C groups
    permuted = tuple(shape[axis] for axis in axes)
    if converted.endswith(_DEPTHWISE_BIAS):
        permuted = (*permuted, 1)
    return _Layout(converted, axes, permuted)


def _permute(transpose: TransposeType, rank: int) -> tuple[int, ...]:
    if transpose is TransposeType.CONV2D:
        return (3, 2, 0, 1)
    if transpose is TransposeType.NO:
        return tuple(range(rank))
    # A Dense kernel [in, out] is a Linear weight [out, in]; Conv1D's [K, in, out] is [out, in, K].
    return tuple(reversed(range(rank)))


def name_as_pytorch(model: TFPreTrainedModel) -> dict[str, Weight]:
    """The variables of a built model that PyTorch's model has, by PyTorch's names."""
    weights: dict[str, Weight] = {}
    for variable in model.weights:
        layout = _convert_name(variable.name, tuple(variable.shape), model.config)
        if not _is_only_tensorflows(layout.name, model.config):
            assert layout.name not in weights, f"two weights are named {layout.name}"
            weights[layout.name] = Weight(variable, layout)
    return weights


def _is_only_tensorflows(name: str, model_config: PretrainedConfig) -> bool:
    """True for what TensorFlow's model has beside PyTorch's, without computing with it."""
    return (
        name.startswith("mpnet.pooler.")
        or name == "predictions.no_bias"
        or (
            name == "esm.embeddings.position_embeddings.weight"
            and model_config.position_embedding_type != "absolute"
        )
    )


def name_output_bias(model: TFPreTrainedModel) -> set[str]:
    """PyTorch's names of the bias that is added to the logits."""
    biases = {id(bias) for bias in model.get_lm_head().get_bias().values()}
    return {name for name, weight in name_as_pytorch(model).items() if id(weight.variable) in biases}


# === A vocabulary that grows ===

_FURTHER_AXES = {
    "flaubert": {"transformer.embeddings.weight": 0},
    "mobilebert": {"cls.predictions.dense.weight": 1},  # a part of the output's embeddings, transposed
    "rembert": {"cls.predictions.decoder.weight": 0},  # the output has embeddings of its own
    "xlm": {"transformer.embeddings.weight": 0},
}
"""By model type, tensors with a vocabulary beside `word_embeddings` and the output's bias, and its axis."""


def find_vocabulary_axes(model: TFPreTrainedModel) -> dict[str, int]:
    """PyTorch's names of the tensors with a row for each token, and on which of their axes."""
    embeddings = [
        name for name in name_as_pytorch(model) if name.endswith("embeddings.word_embeddings.weight")
    ]
    others = _FURTHER_AXES.get(model.config.model_type, {})
    return dict.fromkeys([*embeddings, *name_output_bias(model)], 0) | others


class NewRows(NamedTuple):
    """The rows of new tokens, each of which starts as the mean of old ones.

    Attributes:
        num_stored: rows in the files; the last may belong to no token.
        first: the first new id.
        origins: old ids of each new one, in order.
    """

    num_stored: int
    first: int
    origins: list[list[int]]

    @property
    def num_rows(self) -> int:
        """With the new ones."""
        return max(self.num_stored, self.first + len(self.origins))

    def add_to(self, values: Array, axis: int) -> Array:
        """The stored values with the new rows on that axis."""
        rows = np.moveaxis(values, axis, 0)
        new = [rows[old].mean(axis=0, dtype=np.float64).astype(np.float32) for old in self.origins]
        grown = np.concatenate([rows[: self.first], np.array(new), rows[self.first + len(new) :]])
        return np.moveaxis(grown, 0, axis)


# === Reading ===


class Diagnosis(NamedTuple):
    """What a model's files do not hold, and what they hold beside it.

    Attributes:
        new: PyTorch's names of tensors of the vocabulary head that start at random.
        unused: names of tensors of the encoder or of that head for which the model has no place.
    """

    new: list[str]
    unused: list[str]


class _Stored(NamedTuple):
    """A tensor in a file.

    Attributes:
        path: the file.
        key: its name there.
        layout: PyTorch's name, and how to come to PyTorch's shape.
        dtype: as the file names it.
        read: gives the values as they lie there.
    """

    path: Path
    key: str
    layout: _Layout
    dtype: str
    read: Callable[[], NDArray[np.generic]]


_FLOATS = {"F16", "BF16", "F32", "F64", "float16", "float32", "float64"}

_COMPUTED = (".position_ids", ".token_type_ids", ".inv_freq", ".embed_positions.weight")
"""Ends of names of what is not trained; a file may have it or not."""

_LARGEST = 1e6
"""No trained weight comes near; squares of larger ones leave float32's range soon."""


def read_weights(
    model: TFPreTrainedModel, folder: Path, name_or_path: str, new_rows: NewRows | None = None
) -> Diagnosis:
    """Gives a built model the values that lie in its folder.

    Reads what `list_weight_files` finds, under PyTorch's or TensorFlow's names, in any float dtype.

    Args:
        model: it is given the values.
        folder: with its files.
        name_or_path: what the user gave, for messages.
        new_rows: of tokens that the model has beside those in the files.

    Raises:
        UserError: a file cannot be read, or a tensor is of another shape, of no float dtype or not finite, or
            the encoder lacks some.
    """
    expected = name_as_pytorch(model)
    prefix = f"{model.base_model_prefix}."
    with ExitStack() as files:
        stored = _open_all(folder, model.config, files)
        if not any(name.startswith(prefix) for name in stored):  # as an encoder alone is saved
            stored = {(name if name in expected else prefix + name): of for name, of in stored.items()}
        found = {name: _find(name, stored) for name in expected}
        new = [name for name, key in found.items() if key is None and not name.endswith(_COMPUTED)]
        in_encoder = [name for name in new if name.startswith(prefix)]
        if in_encoder:
            raise UserError(
                f"weights of {name_or_path!r} lack {len(in_encoder)} tensors of the encoder, {in_encoder[0]} "
                "for one; they belong to another model or architecture"
            )
        grown = find_vocabulary_axes(model) if new_rows and new_rows.origins else {}
        for name, key in found.items():
            if key is not None:
                shape = expected[name].layout.shape
                if new_rows and name in grown:
                    axis = grown[name]
                    shape = (*shape[:axis], new_rows.num_stored, *shape[axis + 1 :])
                    values = new_rows.add_to(_read(stored[key], shape, name_or_path), axis)
                else:
                    values = _read(stored[key], shape, name_or_path)
                expected[name].assign(values)
        unused = {name: stored[name] for name in sorted(stored.keys() - found.values())}
        return Diagnosis(new, _find_surplus(model, expected, unused, new_rows.first if new_rows else None))


def list_weight_files(folder: Path) -> list[Path]:
    """The files that hold a model's weights: safetensors before h5, and of each the single file first.

    Raises:
        UserError: an index names a file that is not there, or a file is a link out of the folder, or a
            pointer of Git LFS.
    """
    for single, index in (
        (SAFETENSORS_SINGLE_FILE, SAFETENSORS_INDEX_FILE),
        (TF2_WEIGHTS_NAME, TF2_WEIGHTS_INDEX_NAME),
    ):
        whose = f"model {str(folder)!r}"
        if find_inside(folder, single, whose):
            refuse_pointer(folder / single, whose)
            return [folder / single]
        if find_inside(folder, index, whose):
            refuse_pointer(folder / index, whose)
            return _read_index(folder / index)
    return []


def _read_index(path: Path) -> list[Path]:
    try:
        names = set(read_json(path)["weight_map"].values())
    except (OSError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise UserError(f"{str(path)!r} is no index of weights: {first_line(error)}") from error
    for name in names:
        is_name = stays_inside(name) and "/" not in name
        if not is_name or find_inside(path.parent, name, f"model {str(path.parent)!r}") is None:
            raise UserError(
                f"{str(path)!r} names {name!r}, which is no file beside it; fetch the model again"
            )
        refuse_pointer(path.parent / name, f"model {str(path.parent)!r}")
    return [path.parent / name for name in sorted(names)]


def list_tensor_names(folder: Path, model_config: PretrainedConfig) -> list[str]:
    """Names of the tensors in a folder's files, without reading one.

    Raises:
        UserError: a file cannot be read.
    """
    with ExitStack() as files:
        return list(_open_all(folder, model_config, files))


def _open_all(folder: Path, model_config: PretrainedConfig, files: ExitStack) -> dict[str, _Stored]:
    """The tensors of all files by PyTorch's names; they can be read until `files` is closed."""
    stored: dict[str, _Stored] = {}
    for path in list_weight_files(folder):
        opened = _open_h5(path, files) if path.suffix == ".h5" else _open_safetensors(path, files)
        for key, shape, dtype, read in opened:
            layout = _Layout(key, tuple(range(len(shape))), shape)
            if key.endswith(":0"):
                layout = _convert_name(f"model/{key}", shape, model_config)
            name = re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", layout.name))
            if not _is_only_tensorflows(name, model_config):
                stored[name] = _Stored(path, key, layout, dtype, read)
    return stored


_Opened = Iterator[tuple[str, tuple[int, ...], str, Callable[[], NDArray[np.generic]]]]
"""Name, shape, dtype and contents of each tensor of a file."""


def _open_safetensors(path: Path, files: ExitStack) -> _Opened:
    with _explained(path):
        file = files.enter_context(safe_open(path, framework="np"))
        for key in file.keys():  # noqa: SIM118 it is no mapping
            part = file.get_slice(key)
            yield key, tuple(part.get_shape()), part.get_dtype(), partial(file.get_tensor, key)


def _open_h5(path: Path, files: ExitStack) -> _Opened:
    """The tensors of a Keras file, `LAYER/MODEL/LAYER/…:0` there, or of a shard, which begins with LAYER."""
    with _explained(path):
        file = files.enter_context(h5py.File(path))
        datasets: list[h5py.Dataset] = []
        file.visititems(lambda _, item: datasets.append(item) if isinstance(item, h5py.Dataset) else None)
        for dataset in datasets:
            # HDF5 would take its values from other files, of any kind; links to them are not followed.
            if dataset.external or dataset.is_virtual:
                raise ValueError(f"{dataset.name} lies in another file")
            parts = dataset.name.strip("/").split("/")
            key = "/".join(parts[2:] if parts[2:3] == parts[:1] else parts)
            yield key, dataset.shape, dataset.dtype.name, partial(dataset.__getitem__, ())


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError, ValueError, LookupError, RuntimeError, TypeError) as error:
        raise UserError(
            f"weights {str(path)!r} cannot be read: {first_line(error)}; fetch them again"
        ) from error


def _find(name: str, stored: Mapping[str, _Stored]) -> str | None:
    """Under which of its names a tensor is there: PyTorch ties the bias of the output to its decoder's."""
    head, _, last = name.rpartition(".")
    spellings = [name]
    if last == "bias":
        spellings.append(
            f"{head.removesuffix('.decoder')}.bias" if head.endswith(".decoder") else f"{head}.decoder.bias"
        )
    return next((spelling for spelling in spellings if spelling in stored), None)


def _read(tensor: _Stored, shape: tuple[int, ...], name_or_path: str) -> Array:
    """Values in float32 and in PyTorch's shape."""
    what = f"weights of {name_or_path!r} cannot be used: {tensor.key}"
    if tensor.dtype not in _FLOATS:
        raise UserError(f"{what} is {tensor.dtype}; float32, float16 or bfloat16 is needed")
    if tensor.layout.shape != shape:
        raise UserError(
            f"{what} has the shape {list(tensor.layout.shape)}, and by its config.json {list(shape)}; use "
            "those that belong together"
        )
    values = _in_float32(tensor)
    # Of NaN every comparison is false.
    if not (np.abs(values) <= _LARGEST).all():
        raise UserError(
            f"{what} holds {_name_strange(values)}, and every answer would be noise; fetch or train it again"
        )
    return values


def _in_float32(tensor: _Stored) -> Array:
    with _explained(tensor.path), np.errstate(over="ignore"):
        values = np.asarray(tensor.read()).astype(np.float32)
    return values.transpose(tensor.layout.axes).reshape(tensor.layout.shape)


def _name_strange(values: Array) -> str:
    strange = values[~(np.abs(values) <= _LARGEST)]
    return f"{strange.size:,} values such as {strange.flat[0]:g}"


def _find_surplus(
    model: TFPreTrainedModel,
    used: Mapping[str, Weight],
    unused: Mapping[str, _Stored],
    num_old_rows: int | None,
) -> list[str]:
    """Names of tensors that would change the answers of the model if it had a place for them.

    Poolers and heads of other tasks do not, nor do copies of the tied weights, of a vocabulary that has grown
    in `num_old_rows`.
    """
    encoder = f"{model.base_model_prefix}."
    head = tuple(_name_part(name) for name in used if not name.startswith(encoder))
    surplus = [
        name
        for name in unused
        if name.startswith((encoder, *head))
        and not name.startswith(f"{encoder}pooler.")
        and not name.endswith(_COMPUTED)
    ]
    tied = [model.get_input_embeddings(), *model.get_lm_head().get_bias().values()]
    embeddings = {id(variable) for variable in getattr(tied[0], "weights", []) + tied[1:]}
    copied = [weight.read() for weight in used.values() if id(weight.variable) in embeddings]
    surplus = [name for name in surplus if not _is_copy(unused[name], copied, num_old_rows)]
    if len(surplus) < len(unused):
        others = [name for name in unused if name not in surplus]
        _LOGGER.info("not a part of this model, and left out: %s", ", ".join(others))
    return surplus


def _name_part(name: str) -> str:
    """`lm_head.` of a name, or `cls.predictions.`, for `cls` holds heads of other tasks too."""
    parts = name.split(".")
    return ".".join(parts[: 2 if parts[0] == "cls" else 1]) + "."


def _is_copy(tensor: _Stored, used: list[Array], num_rows: int | None) -> bool:
    same_rank = [values[:num_rows] for values in used if values.shape[1:] == tensor.layout.shape[1:]]
    return bool(same_rank) and any(
        np.array_equal(_in_float32(tensor)[:num_rows], values) for values in same_rank
    )


# === Writing ===


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
    weights = name_as_pytorch(model)
    if model.config.model_type == "albert":
        # Under its second name too, which TensorFlow's own loader wants; PyTorch ties them again.
        weights["predictions.decoder.bias"] = weights[_ALBERT_BIAS]
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


def _save_file(tensors: dict[str, Array], path: Path) -> None:
    """Writes a safetensors file with the mode that the umask gives; the library's own is 0600."""
    path.touch()
    mode = path.stat().st_mode
    save_file(tensors, path, metadata={"format": "pt"})
    path.chmod(mode)
