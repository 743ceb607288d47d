"""TensorFlow Serving's gRPC services: prediction, metadata and status."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import Any, NoReturn, TypeVar

import grpc
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from tfmlm.errors import in_one_line
from tfmlm.preview.connections import STILL_SECONDS
from tfmlm.preview.memory import Memory
from tfmlm.preview.metrics import to_microseconds
from tfmlm.preview.options import ServeOptions
from tfmlm.preview.protos import make_tensor, read_predict_inputs
from tfmlm.preview.service import PredictionService
from tfmlm.preview.signatures import Signature
from tfmlm.preview.status import Code, ServingError, invalid
from tfmlm.preview.versions import ModelSpec, Versions

logger = logging.getLogger("tfmlm.preview")

Answer = TypeVar("Answer")

_NUM_THREADS = 64
"""Each holds one request while it waits; more requests wait in gRPC."""

_MAX_INPUT_VALUES = 2**20
"""In one input: as much as a request of 4 MiB holds as int32."""

_IDLE_MILLISECONDS = 300_000
"""Of a connection without calls, which clients open again by themselves."""

_LONGEST_WAIT_SECONDS = 86_400.0

_ERROR_UNKNOWN = 2


def make_grpc_server(options: ServeOptions) -> Any:
    """A gRPC server without services, whose ports no other process may share."""
    return grpc.server(
        ThreadPoolExecutor(_NUM_THREADS, thread_name_prefix="tfmlm-grpc"),
        options=[
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", options.max_body_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.server_handshake_timeout_ms", round(STILL_SECONDS * 1000)),
            ("grpc.max_connection_idle_ms", _IDLE_MILLISECONDS),
        ],
        maximum_concurrent_rpcs=options.max_waiting + _NUM_THREADS,
    )


def add_services(server: Any, versions: Versions, options: ServeOptions, memory: Memory) -> None:
    """Adds the services to a server that has not been started."""
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        _PredictionService(versions, options, memory), server
    )
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(_ModelService(versions), server)


class _PredictionService:
    """`tensorflow.serving.PredictionService`; its method names are the service's."""

    def __init__(self, versions: Versions, options: ServeOptions, memory: Memory) -> None:
        self._versions = versions
        self._service = PredictionService(versions, options, memory, _make_unknown_signature)

    def Predict(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._count("Predict", request, context, lambda: self._predict(request, context))

    def GetModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        return _answer(context, lambda: self._get_metadata(request))

    def Classify(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._count("Classify", request, context, lambda: self._refuse(request, "classify"))

    def Regress(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._count("Regress", request, context, lambda: self._refuse(request, "regress"))

    def MultiInference(self, request: Any, context: Any) -> Any:  # noqa: N802
        del request
        return _answer(context, lambda: _raise_unimplemented("MultiInference"))

    def _count(self, method: str, request: Any, context: Any, work: Callable[[], Answer]) -> Answer:
        """Answers and counts; other methods TensorFlow Serving does not count either."""
        metrics = self._versions.metrics
        name = metrics.choose_name(request.model_spec.name)
        start = time.monotonic()
        answer = _answer(context, work, lambda code: metrics.request_count.add(name, code))
        latency = to_microseconds(time.monotonic() - start)
        metrics.request_latency.observe(latency, name, method, "GRPC")
        return answer

    def _predict(self, request: Any, context: Any) -> Any:
        spec = _read_spec(request)
        with self._service.begin(spec, request.model_spec.signature_name) as prediction:
            signature = prediction.signature
            outputs = _filter_outputs(request, signature)
            future = prediction.submit(read_predict_inputs(request, signature, _MAX_INPUT_VALUES))
            if not context.add_callback(future.cancel):  # the client has gone already
                future.cancel()
            arrays = future.result(_read_timeout(context))
        response = predict_pb2.PredictResponse()
        response.model_spec.name = spec.name
        response.model_spec.signature_name = signature.name
        response.model_spec.version.value = prediction.version.servable.number
        for name in outputs:
            response.outputs[name].CopyFrom(make_tensor(arrays[name]))
        return response

    def _get_metadata(self, request: Any) -> Any:
        spec = _read_spec(request)
        if not request.metadata_field:
            raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
        for name in request.metadata_field:
            if name != "signature_def":
                raise invalid(f"Metadata field {name} is not supported")
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        with self._versions.lease(spec) as version:
            response.model_spec.name = spec.name
            response.model_spec.version.value = version.servable.number
            response.metadata["signature_def"].Pack(version.servable.metadata)
        return response

    def _refuse(self, request: Any, method: str) -> NoReturn:
        with self._service.begin(_read_spec(request), request.model_spec.signature_name, method):
            raise AssertionError(f"no signature is for {method}")


class _ModelService:
    """`tensorflow.serving.ModelService`; its method names are the service's."""

    def __init__(self, versions: Versions) -> None:
        self._versions = versions

    def GetModelStatus(self, request: Any, context: Any) -> Any:  # noqa: N802
        return _answer(context, lambda: self._get_status(request))

    def HandleReloadConfigRequest(self, request: Any, context: Any) -> Any:  # noqa: N802
        del request
        return _answer(context, lambda: _raise_unimplemented("HandleReloadConfigRequest"))

    def _get_status(self, request: Any) -> Any:
        response = get_model_status_pb2.GetModelStatusResponse()
        for status in self._versions.list_statuses(_read_spec(request)):
            item = response.model_version_status.add(version=status.number, state=status.state.value)
            item.status.error_message = status.error
            item.status.error_code = _ERROR_UNKNOWN if status.error else 0
        return response


def _answer(
    context: Any, work: Callable[[], Answer], note_code: Callable[[str], None] = lambda _: None
) -> Answer:
    """Runs a method, turns its errors into the status of the call, and notes the code before it is sent."""
    try:
        answer = work()
    except ServingError as error:
        code, message = error.code, in_one_line(error)  # names that the client chose may be in it
    except (TimeoutError, CancelledError):
        code, message = Code.DEADLINE_EXCEEDED, "the deadline passed before the answer was ready"
    except Exception:
        logger.exception("a gRPC request failed")
        code, message = Code.INTERNAL, "internal error; the server's log has more"
    else:
        note_code("OK")
        return answer
    note_code(code.name)
    context.abort(grpc.StatusCode[code.name], message)
    raise AssertionError("abort raises")


def _read_timeout(context: Any) -> float | None:
    """Seconds that the client waits; without a deadline gRPC says centuries, which no lock takes."""
    seconds: float | None = context.time_remaining()
    return None if seconds is None or seconds > _LONGEST_WAIT_SECONDS else max(0.0, seconds)


def _raise_unimplemented(method: str) -> NoReturn:
    raise ServingError(Code.UNIMPLEMENTED, f"{method} is not part of the preview; TensorFlow Serving has it")


def _read_spec(request: Any) -> ModelSpec:
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")
    spec = request.model_spec
    choice = spec.WhichOneof("version_choice")
    return ModelSpec(
        spec.name,
        spec.version.value if choice == "version" else None,
        spec.version_label if choice == "version_label" else None,
    )


def _make_unknown_signature(name: str) -> ServingError:
    return ServingError(Code.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.')


def _filter_outputs(request: Any, signature: Signature) -> list[str]:
    """Outputs that the request wants: all, or those that it lists."""
    wanted = list(request.output_filter)
    for name in wanted:
        if name not in signature.outputs:
            known = ",".join(signature.outputs)
            raise invalid(
                f"output tensor alias not found in signature: {name} Outputs expected to be in the set "
                f"{{{known}}}."
            )
        if wanted.count(name) > 1:
            raise invalid(f"duplicate output tensor alias: {name}")
    return wanted or list(signature.outputs)
