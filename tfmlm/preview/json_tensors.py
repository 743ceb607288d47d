"""The JSON of TensorFlow Serving's REST interface to arrays and back.

The forms and most messages are those of its `json_tensor.cc`. Stricter than it, as JSON is: NaN, Infinity,
duplicate keys and text after the end are refused. Lists are walked level by level with functions that run
in C, not value by value.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tfmlm.preview.signatures import Arrays, Signature, TensorSpec
from tfmlm.preview.status import ServingError, invalid

_JSON_TYPES = {bool: "Bool", dict: "Object", float: "Number", int: "Number", list: "Array", str: "String"}
_DEBUG_CHARACTERS = 256

_ALLOWED_TYPES: dict[str, set[type]] = {
    "O": {str, dict},
    "b": {bool},
    "f": {int, float},
    "i": {int},
    "u": {int},
}
"""Python types that JSON may hold for each kind of dtype."""


def decode_json(body: bytes) -> dict[str, Any]:
    """Reads the body of a request.

    Raises:
        ServingError: it is not one JSON object in UTF-8.
    """
    if not body:
        raise invalid("JSON Parse error: The document is empty")
    try:
        value = json.loads(
            body.decode("utf-8"), parse_constant=_refuse_constant, object_pairs_hook=_make_object
        )
    except UnicodeDecodeError as error:
        raise invalid(f"JSON Parse error: not UTF-8 at offset: {error.start}") from error
    except RecursionError as error:
        raise invalid("JSON Parse error: nested too deeply") from error
    except ValueError as error:
        raise invalid(f"JSON Parse error: {error}") from error
    if not isinstance(value, dict):
        raise invalid(f"JSON Value: {_show(value)} Is not object")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def _make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("an object has a key twice")
    return value


def _show(value: Any) -> str:
    try:
        return json.dumps(value)[:_DEBUG_CHARACTERS]
    except RecursionError:
        return "..."


def read_signature_name(request: Mapping[str, Any]) -> str:
    """The signature that a request names; empty for the default one.

    Raises:
        ServingError: the name is not a string.
    """
    name = request.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid(
            f"JSON Value: {_show(request)} not formatted correctly. "
            "'signature_name' key must be a string value."
        )
    return name


def read_inputs(request: Mapping[str, Any], signature: Signature) -> tuple[Arrays, bool]:
    """The arrays of a request.

    Returns:
        The arrays, and whether they came in rows (`instances`) and not in columns (`inputs`).

    Raises:
        ServingError: they are not of the form, the names or the types that the signature wants.
    """
    if "instances" in request:
        if "inputs" in request:
            raise invalid(
                f"JSON Value: {_show(request)} Not formatted correctly expecting only one of 'inputs' or "
                "'instances' keys to exist "
            )
        return _read_rows(request["instances"], request, signature), True
    if "inputs" in request:
        return _read_columns(request["inputs"], signature), False
    raise invalid("Missing 'inputs' or 'instances' key")


def _read_rows(rows: Any, request: Mapping[str, Any], signature: Signature) -> Arrays:
    if not isinstance(rows, list):
        raise invalid(f"JSON Value: {_show(request)} Expecting 'instances' to be an list/array")
    if not rows:
        raise invalid(f"JSON Value: {_show(request)} No values in 'instances' array")
    specs = signature.inputs
    if not _is_object(rows[0]):
        if len(specs) > 1:
            raise invalid(
                "instances is a plain list, but expecting list of objects as multiple input tensors "
                "required as per tensorinfo_map"
            )
        for number, row in enumerate(rows):
            if _is_object(row):
                raise invalid(f"Expecting value/list but got object at item {number} of input list")
        return {name: _make_array(rows, spec) for name, spec in specs.items()}
    for number, row in enumerate(rows):
        if not _is_object(row):
            raise invalid(f"Expecting object but got list at item {number} of input list")
        if row.keys() != specs.keys():
            raise invalid(
                f"Failed to process element: {number} of 'instances' list. JSON object: {_show(row)} "
                f"keys must be equal to: {','.join(specs)}"
            )
    return {name: _make_array([row[name] for row in rows], spec) for name, spec in specs.items()}


def _read_columns(value: Any, signature: Signature) -> Arrays:
    specs = signature.inputs
    if not _is_object(value):
        if len(specs) > 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required "
                "as per tensorinfo_map"
            )
        return {name: _make_array(value, spec) for name, spec in specs.items()}
    for name in specs:
        if name not in value:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
    for name in value.keys() - specs.keys():
        raise invalid(f"JSON object: does not have named input: {name}")
    return {name: _make_array(value[name], spec) for name, spec in specs.items()}


def _is_object(value: Any) -> bool:
    return isinstance(value, dict) and not _is_base64(value)


def _is_base64(value: dict[str, Any]) -> bool:
    return value.keys() == {"b64"} and isinstance(value["b64"], str)


def _make_array(value: Any, spec: TensorSpec) -> NDArray[Any]:
    shape, leaves = _flatten(value)
    kind = spec.dtype.kind
    allowed = _ALLOWED_TYPES.get(kind, set())
    if not set(map(type, leaves)) <= allowed:
        wrong = next(leaf for leaf in leaves if type(leaf) not in allowed)
        raise _wrong_type(wrong, spec)
    if kind == "O":
        strings = np.empty(len(leaves), object)
        strings[:] = [_read_string(leaf, spec) for leaf in leaves]
        return strings.reshape(shape)
    try:
        with np.errstate(over="ignore"):
            array = np.array(leaves, dtype=spec.dtype).reshape(shape)
    except OverflowError as error:
        raise invalid(f"a number of input {spec.name} is out of range for {spec.type_name}") from error
    if kind == "f" and not np.isfinite(array).all():
        raise invalid(f"a number of input {spec.name} is out of range for {spec.type_name}")
    return array


def _flatten(value: Any) -> tuple[tuple[int, ...], list[Any]]:
    """Shape and values of nested lists.

    Raises:
        ServingError: the lists are ragged.
    """
    shape: list[int] = []
    level = [value]
    while level and list in (types := set(map(type, level))):
        depth = len(shape)
        if len(types) > 1:
            wrong = next(item for item in level if type(item) is not list)
            raise invalid(f"JSON Value: {_show(wrong)} found at incorrect level: {depth} in the JSON DOM.")
        sizes = [*map(len, level)]
        if len(set(sizes)) > 1:
            other = next(size for size in sizes if size != sizes[0])
            raise invalid(
                f"Encountered list at unexpected size: {other} at level: {depth} expected size: {sizes[0]}"
            )
        shape.append(sizes[0])
        level = [*chain.from_iterable(level)]
    return tuple(shape), level


def _read_string(value: str | dict[str, Any], spec: TensorSpec) -> bytes:
    if isinstance(value, str):
        try:
            return value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise invalid(f"JSON Value: {_show(value)} is not text: it has a lone surrogate") from error
    if not _is_base64(value):
        raise _wrong_type(value, spec)
    try:
        return base64.b64decode(value["b64"], validate=True)
    except ValueError as error:
        raise invalid("Unable to base64 decode") from error


def _wrong_type(value: Any, spec: TensorSpec) -> ServingError:
    kind = _JSON_TYPES.get(type(value), "Null")
    return invalid(f"JSON Value: {_show(value)} Type: {kind} is not of expected type: {spec.type_name}")


def encode_outputs(outputs: Arrays, in_rows: bool) -> bytes:
    """The answer: `predictions` in rows or `outputs` in columns; a single output has no name."""
    columns = {name: _make_lists(name, array) for name, array in outputs.items()}
    answer: Any
    if len(columns) == 1:
        (answer,) = columns.values()
    elif in_rows:
        names = tuple(columns)
        answer = [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    else:
        answer = columns
    return json.dumps({"predictions" if in_rows else "outputs": answer}, ensure_ascii=False).encode()


def _make_lists(name: str, array: NDArray[Any]) -> Any:
    if array.dtype != object:
        return array.tolist()
    values: NDArray[Any] = np.empty(array.size, object)
    if name.endswith("_bytes"):
        values[:] = [{"b64": base64.b64encode(value).decode()} for value in array.ravel()]
    else:
        values[:] = [value.decode("utf-8", "replace") for value in array.ravel()]
    return values.reshape(array.shape).tolist()
