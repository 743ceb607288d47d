"""TensorFlow's tensor messages to arrays and back, trusting nothing that a client sent."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.core.framework import tensor_pb2

from tfmlm.preview.signatures import MAX_RANK, Arrays, Signature, TensorSpec
from tfmlm.preview.status import invalid

_FIELDS = {
    "bool": "bool_val",
    "float32": "float_val",
    "float64": "double_val",
    "int16": "int_val",
    "int32": "int_val",
    "int64": "int64_val",
    "int8": "int_val",
    "object": "string_val",
    "uint32": "uint32_val",
    "uint64": "uint64_val",
    "uint8": "int_val",
}
"""Which field of a `TensorProto` holds values of a dtype."""


def read_predict_inputs(request: Any, signature: Signature, max_values: int) -> Arrays:
    """The inputs of a `PredictRequest`.

    Args:
        request: the message.
        signature: what it asks for.
        max_values: values in one input at most: a small message can claim any shape.

    Raises:
        ServingError: names are missing or unknown, or a tensor is not what it says.
    """
    sent, wanted = set(request.inputs), set(signature.inputs)
    if sent != wanted:
        raise invalid(
            f"input size does not match signature: {len(sent)}!={len(wanted)} "
            f"len({_braces(sent)}) != len({_braces(wanted)}). "
            f"Sent extra: {_braces(sent - wanted)}. Missing but required: {_braces(wanted - sent)}."
        )
    return {
        name: _read_tensor(request.inputs[name], spec, max_values) for name, spec in signature.inputs.items()
    }


def _braces(names: Iterable[str]) -> str:
    return "{" + ",".join(sorted(names)) + "}"


def _read_tensor(tensor: Any, spec: TensorSpec, max_values: int) -> NDArray[Any]:
    if tensor.dtype not in _DTYPES or tf.as_dtype(tensor.dtype).name != spec.type_name:
        sent = _DTYPES.get(tensor.dtype, f"unknown type {tensor.dtype}")
        raise invalid(f"input {spec.name} is of {sent}, expected {spec.type_name}")
    sizes = tuple(int(dim.size) for dim in tensor.tensor_shape.dim)
    if tensor.tensor_shape.unknown_rank or any(size < 0 for size in sizes):
        raise invalid(f"input {spec.name} has no definite shape")
    if not spec.fits(sizes):
        raise invalid(
            f"input {spec.name} has shape [{','.join(map(str, sizes))}], expected {spec.describe_shape()}"
        )
    if len(sizes) > MAX_RANK:
        raise invalid(f"input {spec.name} has {len(sizes)} dimensions; at most {MAX_RANK} are taken")
    # NumPy multiplies the sizes without the zeros, in 64 bits.
    if math.prod(max(size, 1) for size in sizes) > max_values:
        shape = ",".join(map(str, sizes))
        raise invalid(f"input {spec.name} has shape [{shape}]; at most {max_values} values are taken")
    num_values = math.prod(sizes)
    values = _read_values(tensor, spec)
    if values.size not in {num_values, 1}:
        raise invalid(f"input {spec.name} has {values.size} values, its shape says {num_values}")
    # A single value stands for a whole tensor of it, as in TensorFlow.
    array = values.reshape(sizes) if values.size == num_values else np.full(sizes, values[0], spec.dtype)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise invalid(f"input {spec.name} has values that are not finite")
    return array


def _read_values(tensor: Any, spec: TensorSpec) -> NDArray[Any]:
    """Values in a row, however many the message holds."""
    is_string = spec.dtype == object
    try:
        if tensor.tensor_content and not is_string:
            return np.frombuffer(tensor.tensor_content, spec.dtype)
        items = getattr(tensor, _FIELDS[spec.dtype.name])
        values = np.empty(len(items), spec.dtype)
        values[:] = items
    except (KeyError, OverflowError, ValueError) as error:
        raise invalid(f"input {spec.name} does not hold values of {spec.type_name}") from error
    return values


_DTYPES = {tf.as_dtype(name).as_datatype_enum: name for name in _FIELDS.keys() - {"object"} | {"string"}}


def make_tensor(array: NDArray[Any]) -> Any:
    """A `TensorProto` with its values in typed fields, where TensorFlow Serving puts them."""
    name = array.dtype.name
    if name not in _FIELDS:
        return tf.make_tensor_proto(array)
    dtype = tf.string if name == "object" else tf.as_dtype(name)
    tensor = tensor_pb2.TensorProto(dtype=dtype.as_datatype_enum)
    for size in array.shape:
        tensor.tensor_shape.dim.add().size = size
    getattr(tensor, _FIELDS[name]).extend(array.ravel().tolist())
    return tensor
