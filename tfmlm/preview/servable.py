"""One loaded version of a model: its signatures, run with NumPy arrays."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_text  # noqa: F401 registers the operations that a text signature needs
from google.protobuf.json_format import MessageToDict
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, prediction_log_pb2

from tfmlm.export_layout import DESCRIPTION_FILE, WARMUP_FILE
from tfmlm.preview.protos import read_predict_inputs
from tfmlm.preview.signatures import Arrays, Signature, TensorSpec
from tfmlm.preview.status import Code, ServingError, invalid

DEFAULT_MAX_LENGTH = 512
"""For an export that does not say how long its texts may be: attention takes memory with the square of it."""

MAX_WARMUP_RECORDS = 1000
"""TensorFlow Serving's own limit."""


class Servable:
    """A version that is loaded and warm.

    Attributes:
        number: the version.
        signatures: its functions, by name.
        metadata: the `SignatureDefMap` that clients may ask for.
        metadata_json: the same as JSON values.
        description: what the export says of itself, empty if it says nothing.
        max_length: tokens in a row of ids at most.
    """

    def __init__(self, folder: Path, number: int) -> None:
        self.number = number
        self._model = tf.saved_model.load(str(folder))
        self.metadata = _read_signature_defs(folder)
        self.metadata_json: dict[str, Any] = MessageToDict(
            self.metadata, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
        self.signatures = {
            name: _make_signature(name, definition, self._model.signatures[name])
            for name, definition in self.metadata.signature_def.items()
            if name in self._model.signatures
        }
        self.description = _read_description(folder)
        length = self.description.get("max_length")
        self.max_length = length if isinstance(length, int) else DEFAULT_MAX_LENGTH
        self._warm_up(folder / WARMUP_FILE)

    def check(self, signature: Signature, inputs: Arrays, max_texts: int, max_answer_values: int) -> None:
        """Refuses what the signature or the model does not take.

        Raises:
            ServingError: says what and why.
        """
        signature.check(inputs, max_texts, max_answer_values)
        for name, array in inputs.items():
            if array.ndim == 2 and array.shape[1] > self.max_length:
                raise invalid(
                    f"input {name} has {array.shape[1]} tokens in a row; the model takes {self.max_length}"
                )

    def _warm_up(self, path: Path) -> None:
        """Runs the requests that the export brings along.

        Raises:
            ServingError, tf.errors.OpError: one of them fails, so the version must not be served.
        """
        if not path.exists():
            return
        for record in tf.data.TFRecordDataset(str(path)).take(MAX_WARMUP_RECORDS).as_numpy_iterator():
            log = prediction_log_pb2.PredictionLog.FromString(record)
            if log.HasField("predict_log"):
                try:
                    self._run_warmup(log.predict_log.request)
                except ServingError as error:
                    where = f"a request in {WARMUP_FILE} of version {self.number}"
                    raise ServingError(error.code, f"{where} is refused: {error}") from error

    def _run_warmup(self, request: Any) -> None:
        name = request.model_spec.signature_name or "serving_default"
        signature = self.signatures.get(name)
        if signature is None:
            raise invalid(f"there is no signature {name!r}, only {', '.join(sorted(self.signatures))}")
        signature.call(read_predict_inputs(request, signature, max_values=2**22))


def _read_signature_defs(folder: Path) -> Any:
    saved_model = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    (graph,) = [graph for graph in saved_model.meta_graphs if "serve" in graph.meta_info_def.tags]
    signature_defs = get_model_metadata_pb2.SignatureDefMap()
    for name, definition in graph.signature_def.items():
        signature_defs.signature_def[name].CopyFrom(definition)
    return signature_defs


def _read_description(folder: Path) -> dict[str, Any]:
    path = folder / DESCRIPTION_FILE
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def _make_signature(name: str, definition: Any, function: Any) -> Signature:
    return Signature(
        name=name,
        method_name=definition.method_name,
        inputs={key: _make_spec(key, definition.inputs[key]) for key in sorted(definition.inputs)},
        outputs={key: _make_spec(key, definition.outputs[key]) for key in sorted(definition.outputs)},
        call=_make_call(function),
    )


def _make_spec(name: str, info: Any) -> TensorSpec:
    dtype = tf.as_dtype(info.dtype)
    shape = None
    if not info.tensor_shape.unknown_rank:
        shape = tuple(None if dim.size < 0 else int(dim.size) for dim in info.tensor_shape.dim)
    return TensorSpec(name, np.dtype(dtype.as_numpy_dtype), dtype.name, shape)


def _make_call(function: Any) -> Callable[[Arrays], Arrays]:
    def call(arrays: Arrays) -> Arrays:
        try:
            outputs = function(**{name: tf.constant(array) for name, array in arrays.items()})
            # Of a single string NumPy makes no array by itself.
            return {
                name: np.asarray(outputs[name].numpy(), outputs[name].dtype.as_numpy_dtype)
                for name in sorted(outputs)
            }
        except tf.errors.OpError as error:
            code = _CODES.get(error.error_code, Code.INTERNAL)
            raise ServingError(code, _find_reason(error.message)) from error

    return call


def _find_reason(message: str) -> str:
    """The one line that tells what is wrong, between where it happened and the names of nodes."""
    said = message.partition("\n\t [[")[0]
    return (said.strip().splitlines() or ["the model failed"])[-1]


_CODES = {code.number: code for code in Code} | {tf.errors.OUT_OF_RANGE: Code.INVALID_ARGUMENT}
