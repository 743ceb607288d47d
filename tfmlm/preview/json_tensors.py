"""The JSON of TensorFlow Serving's REST interface to arrays and back.

The forms, the numbers and most messages are those of its `json_tensor.cc`; `docs/rest-conformance.md` has the
cases and where this is stricter. Lists are walked level by level with functions that run in C, not value by
value.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tfmlm.preview.signatures import Arrays, Signature, TensorSpec
from tfmlm.preview.status import Code, ServingError, invalid

_DEBUG_CHARACTERS = 256
_WHITESPACE = " \t\n\r"
_PADDING = b"=."


class _Constant(float):
    """NaN, Infinity or -Infinity that a request spells out; a number that overflows is a plain float."""


_NUMBERS = {int, float, _Constant}
_ALLOWED_TYPES: dict[str, set[type]] = {
    "bool": {bool},
    "float32": _NUMBERS,
    "float64": _NUMBERS,
    "int16": {int},
    "int32": {int},
    "int64": {int},
    "int8": {int},
    "string": {str, dict},
    "uint32": {int},
    "uint64": {int},
    "uint8": {int},
}
"""Python types that JSON may hold for each dtype; TensorFlow Serving has no JSON for the other dtypes."""

_TYPE_NAMES = {"float16": "half", "float32": "float", "float64": "double"}
"""What TensorFlow's C++ calls them."""

_JSON_TYPES: dict[type, str] = {dict: "Object", list: "Array", str: "String"}

_SHORT_DIGITS = 6
_FLOAT32_DIGITS = 9
_EXACT_POWERS = np.array([float(f"1e{power}") for power in range(23)])
"""The powers of ten that a float64 holds exactly."""


def decode_json(body: bytes) -> dict[str, Any]:
    """Reads the body of a request.

    Raises:
        ServingError: it is not one JSON object in UTF-8.
    """
    try:
        text = body.decode("utf-8-sig")
        start = len(text) - len(text.lstrip(_WHITESPACE))
        if start == len(text):
            raise invalid("JSON Parse error: The document is empty")
        value, _ = _DECODER.raw_decode(text, start)  # what follows the end is not read, as there
    except UnicodeDecodeError as error:
        raise invalid(f"JSON Parse error: not UTF-8 at offset: {error.start}") from error
    except RecursionError as error:
        raise invalid("JSON Parse error: nested too deeply") from error
    except json.JSONDecodeError as error:
        message = "Invalid value." if error.msg == "Expecting value" else error.msg
        raise invalid(f"JSON Parse error: {message} at offset: {error.pos}") from error
    except ValueError as error:
        raise invalid(f"JSON Parse error: {error}") from error
    if not isinstance(value, dict):
        raise invalid(f"JSON Value: {_show(value)} Is not object")
    return value


def _make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("an object has a key twice")
    return value


_DECODER = json.JSONDecoder(parse_constant=_Constant, object_pairs_hook=_make_object)


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
    if not signature.inputs:
        raise invalid(f"Failed to get input map for signature: {signature.name}")
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
        return {name: _make_rows(rows, spec, "") for name, spec in specs.items()}
    return _read_objects(rows, specs)


def _read_objects(rows: list[Any], specs: Mapping[str, TensorSpec]) -> Arrays:
    for number, row in enumerate(rows):
        if not _is_object(row):
            raise invalid(f"Expecting object but got list at item {number} of input list")
        for name in row.keys() - specs.keys():
            reason = f"JSON object: does not have named input: {name}"
            raise _refuse_row(number, f" key: {name}", reason)
        if row.keys() != specs.keys():
            raise invalid(
                f"Failed to process element: {number} of 'instances' list. JSON object: {_show(row)} "
                f"keys must be equal to: {','.join(specs)}"
            )
    return {
        name: _make_rows([row[name] for row in rows], spec, f" key: {name}") for name, spec in specs.items()
    }


def _make_rows(rows: list[Any], spec: TensorSpec, place: str) -> NDArray[Any]:
    """One array of rows; where one row is unlike the first, the error says so."""
    try:
        return _make_array(rows, spec)
    except ServingError as error:
        wanted = _measure(rows[0])
        for number, row in enumerate(rows):
            shape = _measure(row)
            if math.prod(shape) != math.prod(wanted):
                reason = f"Expecting tensor size: {math.prod(wanted)} but got: {math.prod(shape)}"
                raise _refuse_row(number, place, reason) from error
            if shape != wanted:
                reason = f"Expecting shape {_show_shape(wanted)} but got: {_show_shape(shape)}"
                raise _refuse_row(number, place, reason) from error
        raise


def _measure(value: Any) -> list[int]:
    """Shape of nested lists, by the first of each."""
    shape = []
    while isinstance(value, list):
        shape.append(len(value))
        value = value[0] if value else None
    return shape


def _show_shape(shape: list[int]) -> str:
    return f"[{','.join(map(str, shape))}]"


def _refuse_row(number: int, place: str, reason: str) -> ServingError:
    return invalid(
        f"Failed to process element: {number}{place} of 'instances' list. Error: INVALID_ARGUMENT: {reason}"
    )


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
    return {name: _make_array(value[name], spec) for name, spec in specs.items()}


def _is_object(value: Any) -> bool:
    return isinstance(value, dict) and not _is_base64(value)


def _is_base64(value: dict[str, Any]) -> bool:
    return value.keys() == {"b64"} and isinstance(value["b64"], str)


def _make_array(value: Any, spec: TensorSpec) -> NDArray[Any]:
    shape, leaves = _flatten(value)
    allowed = _ALLOWED_TYPES.get(spec.type_name)
    if allowed is None:
        message = f"Conversion of JSON Value: {_show(value)} to type: {_name_type(spec)}"
        raise ServingError(Code.UNIMPLEMENTED, message)
    if not set(map(type, leaves)) <= allowed:
        wrong = next(leaf for leaf in leaves if type(leaf) not in allowed)
        raise _wrong_type(wrong, spec)
    if spec.dtype == object:
        strings = np.empty(len(leaves), object)
        strings[:] = [_read_string(leaf) for leaf in leaves]
        return strings.reshape(shape)
    try:
        with np.errstate(over="ignore"):
            array = np.array(leaves, dtype=spec.dtype).reshape(shape)
    except OverflowError as error:
        raise invalid(f"a number of input {spec.name} is out of range for {spec.type_name}") from error
    is_inf = spec.dtype.kind == "f" and np.isinf(array).any()
    if is_inf and any(type(leaf) is float and math.isinf(leaf) for leaf in leaves):
        raise invalid("JSON Parse error: Number too big to be stored in double.")
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


def _read_string(value: str | dict[str, Any]) -> bytes:
    if isinstance(value, str):
        try:
            return value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise invalid(f"JSON Value: {_show(value)} is not text: it has a lone surrogate") from error
    if not _is_base64(value):
        raise invalid(f"JSON Value: {_show(value)} not formatted correctly for base64 data")
    try:
        return _decode_base64(value["b64"])
    except ValueError as error:
        raise invalid("Unable to base64 decode") from error


def _decode_base64(text: str) -> bytes:
    """Bytes of base64 as Abseil's `Base64Unescape` takes it: spaces anywhere, and all of the padding or none.

    Raises:
        ValueError: it is not that.
    """
    data = b"".join(text.encode("ascii").split())
    digits = data.rstrip(_PADDING)
    missing = -len(digits) % 4
    if len(data) - len(digits) not in {0, missing}:
        raise ValueError("wrong padding")
    return base64.b64decode(digits + b"=" * missing, validate=True)


def _wrong_type(value: Any, spec: TensorSpec) -> ServingError:
    kind = _name_json_type(value)
    return invalid(f"JSON Value: {_show(value)} Type: {kind} is not of expected type: {_name_type(spec)}")


def _name_json_type(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return "Null" if value is None else str(value)
    return _JSON_TYPES.get(type(value), "Number")


def _name_type(spec: TensorSpec) -> str:
    return _TYPE_NAMES.get(spec.type_name, spec.type_name)


def encode_outputs(outputs: Arrays, in_rows: bool) -> bytes:
    """The answer: `predictions` in rows or `outputs` in columns; a single output has no name.

    Raises:
        ServingError: the outputs are of a type without JSON, or are no rows.
    """
    if in_rows:
        _check_rows(outputs)
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


def _check_rows(outputs: Arrays) -> None:
    batch_size = None
    for name, output in outputs.items():
        if not output.ndim:
            raise invalid(f"Tensor name: {name} has no shape information; it is no row, use 'inputs'")
        if batch_size is not None and len(output) != batch_size:
            raise invalid(
                f"Tensor name: {name} has inconsistent batch size: {len(output)} expecting: {batch_size}; "
                "use 'inputs'"
            )
        batch_size = len(output)


def _make_lists(name: str, array: NDArray[Any]) -> Any:
    if array.dtype == np.float32:
        return round_as_written(array).tolist()
    if array.dtype != object:
        if array.dtype.name not in _ALLOWED_TYPES:
            kind = _TYPE_NAMES.get(array.dtype.name, array.dtype.name)
            raise invalid(f"Failed to write JSON value for tensor type: {kind}")
        return array.tolist()
    values: NDArray[Any] = np.empty(array.size, object)
    if name.endswith("_bytes"):
        values[:] = [{"b64": base64.b64encode(value).decode()} for value in array.ravel()]
    else:
        values[:] = [value.decode("utf-8", "replace") for value in array.ravel()]
    return values.reshape(array.shape).tolist()


def round_as_written(array: NDArray[np.float32]) -> NDArray[np.float64]:
    """The numbers that TensorFlow Serving writes for float32.

    They have six digits if these are the number again, else nine, where Python would write the digits of
    the float64: 0.2 is 0.20000000298023224.
    """
    with np.errstate(all="ignore"):
        values = array.ravel().astype(np.float64)
        exponents = np.floor(np.log10(np.abs(values)))
        short = _round(values, exponents, _SHORT_DIGITS)
        is_short = short.astype(np.float32) == values
    rounded: NDArray[np.float64] = np.where(is_short, short, _round(values, exponents, _FLOAT32_DIGITS))
    rounded = np.where(np.isfinite(exponents), rounded, values)  # 0, NaN and the infinities stay
    return rounded.reshape(array.shape)


def _round(values: NDArray[np.float64], exponents: NDArray[np.float64], digits: int) -> NDArray[np.float64]:
    powers = np.where(np.isfinite(exponents), digits - 1 - exponents, 0).astype(np.int64)
    is_exact = np.abs(powers) < len(_EXACT_POWERS)
    scale = _EXACT_POWERS[np.where(is_exact, np.abs(powers), 0)]
    with np.errstate(invalid="ignore"):
        rounded: NDArray[np.float64] = np.where(
            powers < 0, np.rint(values / scale) * scale, np.rint(values * scale) / scale
        )
    for place in np.flatnonzero(~is_exact):  # beyond 1e30 or below 1e-14: rare
        rounded[place] = float(f"{values[place]:.{digits}g}")
    return rounded
