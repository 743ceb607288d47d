"""Nested lists to and from the messages that carry tensors."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from math import prod
from typing import Any

from tfmlm.client.messages import DT_FLOAT, DT_INT32, DT_INT64, DT_STRING, TensorProto
from tfmlm.errors import UserError

_FIELDS = {DT_FLOAT: "float_val", DT_INT32: "int_val", DT_INT64: "int64_val", DT_STRING: "string_val"}
_LETTERS = {DT_FLOAT: "f", DT_INT32: "i", DT_INT64: "q"}
"""Of `struct`; the bytes of `tensor_content` are little-endian."""
_ZEROS: dict[int, Any] = {DT_FLOAT: 0.0, DT_INT32: 0, DT_INT64: 0, DT_STRING: b""}


def make_tensor(values: list[str] | list[list[int]]) -> Any:
    """A `TensorProto`: string [N] of texts, or int32 [N, L] of rows that are equally long."""
    shape = [len(values)]
    tensor = TensorProto(dtype=DT_INT32)
    for value in values:
        if isinstance(value, str):
            tensor.dtype = DT_STRING
            tensor.string_val.append(value.encode())
        else:
            shape[1:] = [len(value)]
            tensor.int_val.extend(value)
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    return tensor


def read_tensor(tensor: Any) -> Any:
    """The values of a float32, int32, int64 or string `TensorProto`, as lists nested like its shape.

    Raises:
        UserError: another dtype, or fewer or more values than the shape has.
    """
    if tensor.dtype not in _FIELDS:
        raise UserError(f"the server answered with a tensor of dtype {tensor.dtype}; export the model again")
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    values = _read_values(tensor, prod(shape))
    if len(values) != prod(shape):
        raise UserError(f"the server answered with {len(values)} values for a tensor of shape {shape}")
    return _nest(iter(values), shape)


def _nest(values: Iterator[Any], shape: list[int]) -> Any:
    return [_nest(values, shape[1:]) for _ in range(shape[0])] if shape else next(values)


def _read_values(tensor: Any, num_values: int) -> list[Any]:
    if tensor.tensor_content:
        letter = _LETTERS.get(tensor.dtype)
        if letter is None or len(tensor.tensor_content) != num_values * struct.calcsize(f"<{letter}"):
            raise UserError(f"the server answered with {len(tensor.tensor_content)} bytes that fit no tensor")
        return list(struct.unpack(f"<{num_values}{letter}", tensor.tensor_content))
    values = list(getattr(tensor, _FIELDS[tensor.dtype]))
    # In this encoding the last value stands for all that follow it, and none at all for zeros.
    last = values[-1] if values else _ZEROS[tensor.dtype]
    values += [last] * (num_values - len(values))
    return [value.decode("utf-8", "replace") for value in values] if tensor.dtype == DT_STRING else values
