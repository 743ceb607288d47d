"""The messages of TensorFlow Serving's `Predict`, built without TensorFlow.

The package `tensorflow_serving` has them too, and imports TensorFlow. These are the fields that a client
needs, with the same names and numbers (`predict.proto`, `model.proto`, `tensor.proto`, `tensor_shape.proto`),
in a pool of their own, so that both may be loaded in one process;
what protoc writes would go into the pool of all. What they lack is skipped when it is read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from math import prod
from typing import Any

from google.protobuf import wrappers_pb2
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from tfmlm.errors import UserError

# === Messages ===


DT_FLOAT, DT_INT32, DT_STRING, DT_INT64 = 1, 3, 7, 9
"""Values of `TensorProto.dtype`."""

_Kind = FieldDescriptorProto
_OF_MESSAGE = _Kind.TYPE_MESSAGE


def _field(name: str, number: int, kind: int, of: str = "", *, repeated: bool = False) -> Any:
    label = _Kind.LABEL_REPEATED if repeated else _Kind.LABEL_OPTIONAL
    return FieldDescriptorProto(name=name, number=number, type=kind, label=label, type_name=of or None)


def _map_of_tensors(message: DescriptorProto, name: str, number: int, entry: str) -> None:
    """A `map<string, TensorProto>`, which is a repeated message with a key and a value."""
    pair = message.nested_type.add(name=entry)
    pair.options.map_entry = True
    pair.field.extend(
        [_field("key", 1, _Kind.TYPE_STRING), _field("value", 2, _OF_MESSAGE, ".tensorflow.TensorProto")]
    )
    full_name = f".tensorflow.serving.{message.name}.{entry}"
    message.field.append(_field(name, number, _OF_MESSAGE, full_name, repeated=True))


def _describe_tensors() -> FileDescriptorProto:
    file = FileDescriptorProto(name="tensors.proto", package="tensorflow", syntax="proto3")
    shape = file.message_type.add(name="TensorShapeProto")
    shape.nested_type.add(name="Dim").field.append(_field("size", 1, _Kind.TYPE_INT64))
    shape.field.append(_field("dim", 2, _OF_MESSAGE, ".tensorflow.TensorShapeProto.Dim", repeated=True))
    file.message_type.add(name="TensorProto").field.extend(
        [
            _field("dtype", 1, _Kind.TYPE_INT32),  # an enum there; the bytes are the same
            _field("tensor_shape", 2, _OF_MESSAGE, ".tensorflow.TensorShapeProto"),
            _field("tensor_content", 4, _Kind.TYPE_BYTES),
            _field("float_val", 5, _Kind.TYPE_FLOAT, repeated=True),
            _field("int_val", 7, _Kind.TYPE_INT32, repeated=True),
            _field("string_val", 8, _Kind.TYPE_BYTES, repeated=True),
            _field("int64_val", 10, _Kind.TYPE_INT64, repeated=True),
        ]
    )
    return file


def _describe_predict() -> FileDescriptorProto:
    file = FileDescriptorProto(name="predict.proto", package="tensorflow.serving", syntax="proto3")
    file.dependency.extend(["tensors.proto", wrappers_pb2.DESCRIPTOR.name])
    spec = file.message_type.add(name="ModelSpec")
    spec.oneof_decl.add(name="version_choice")
    version = _field("version", 2, _OF_MESSAGE, ".google.protobuf.Int64Value")
    label = _field("version_label", 4, _Kind.TYPE_STRING)
    version.oneof_index = label.oneof_index = 0
    names = [_field("name", 1, _Kind.TYPE_STRING), _field("signature_name", 3, _Kind.TYPE_STRING)]
    spec.field.extend([*names, version, label])
    request = file.message_type.add(name="PredictRequest")
    request.field.append(_field("model_spec", 1, _OF_MESSAGE, ".tensorflow.serving.ModelSpec"))
    _map_of_tensors(request, "inputs", 2, "InputsEntry")
    _map_of_tensors(file.message_type.add(name="PredictResponse"), "outputs", 1, "OutputsEntry")
    return file


def _make_pool() -> DescriptorPool:
    pool = DescriptorPool()
    wrappers = FileDescriptorProto.FromString(wrappers_pb2.DESCRIPTOR.serialized_pb)
    for file in (wrappers, _describe_tensors(), _describe_predict()):
        pool.Add(file)
    return pool


_POOL = _make_pool()


def _make_class(name: str) -> Any:
    return GetMessageClass(_POOL.FindMessageTypeByName(name))


TensorProto = _make_class("tensorflow.TensorProto")
PredictRequest = _make_class("tensorflow.serving.PredictRequest")
PredictResponse = _make_class("tensorflow.serving.PredictResponse")


# === Tensors ===


_FIELDS = {DT_FLOAT: "float_val", DT_INT32: "int_val", DT_INT64: "int64_val", DT_STRING: "string_val"}
_LETTERS = {DT_FLOAT: "f", DT_INT32: "i", DT_INT64: "q"}
"""Of `struct`; the bytes of `tensor_content` are little-endian."""
_ZEROS: dict[int, Any] = {DT_FLOAT: 0.0, DT_INT32: 0, DT_INT64: 0, DT_STRING: b""}


def make_tensor(values: list[Any]) -> Any:
    """A `TensorProto` of strings or int32: [N], or [N, L] of rows that are equally long."""
    shape = [len(values)]
    if values and isinstance(values[0], list):
        shape.append(len(values[0]))
        values = [value for row in values for value in row]
    tensor = TensorProto(dtype=DT_INT32)
    if values and isinstance(values[0], str):
        tensor.dtype = DT_STRING
        tensor.string_val.extend(value.encode() for value in values)
    else:
        tensor.int_val.extend(values)
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
