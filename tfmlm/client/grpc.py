"""`Predict` over gRPC."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

import grpc

from tfmlm.client import failures
from tfmlm.client.address import Address
from tfmlm.client.attempts import PassingError, ask_until
from tfmlm.client.messages import PredictRequest, PredictResponse, make_tensor, read_tensor
from tfmlm.client.options import ClientOptions
from tfmlm.errors import UserError

_SERVICE = "tensorflow.serving.PredictionService"
_ADVICE = {
    grpc.StatusCode.NOT_FOUND: failures.UNKNOWN,
    grpc.StatusCode.UNAUTHENTICATED: failures.FORBIDDEN,
    grpc.StatusCode.PERMISSION_DENIED: failures.FORBIDDEN,
    grpc.StatusCode.RESOURCE_EXHAUSTED: failures.BUSY,
    grpc.StatusCode.UNIMPLEMENTED: "no TensorFlow Serving listens there; check the port",
}
_TOO_LARGE = re.compile(r"message (size )?(larger|exceeds)|larger than max|exceeds (soft|hard) limit", re.I)


class GrpcTransport:
    """One channel, which connects when it is used; threads may share it."""

    def __init__(self, address: Address, options: ClientOptions, token: str | None) -> None:
        self._address = address
        self._options = options
        self._token = token
        self._metadata = [("authorization", f"Bearer {token}")] if token else []
        settings = [
            ("grpc.enable_retries", 0),  # `ask_until` tells apart what gRPC has one code for
            ("grpc.initial_reconnect_backoff_ms", int(_bound(options.backoff_seconds) * 1000)),
            ("grpc.max_receive_message_length", -1),
            ("grpc.enable_http_proxy", 0),  # REST uses none either
        ]
        if address.is_encrypted:
            pem = options.read_ca_file()
            credentials = grpc.ssl_channel_credentials(pem and pem.encode())
            self._channel = grpc.secure_channel(address.authority, credentials, settings)
        else:
            self._channel = grpc.insecure_channel(address.authority, settings)
        self._predict = self._channel.unary_unary(
            f"/{_SERVICE}/Predict",
            request_serializer=PredictRequest.SerializeToString,
            response_deserializer=PredictResponse.FromString,
        )

    def predict(self, signature_name: str, inputs: Mapping[str, Any], deadline: float) -> Mapping[str, Any]:
        """Asks, and again while that may help; see `Transport.predict`."""
        request = PredictRequest()
        spec = request.model_spec
        spec.name, spec.signature_name = self._address.model, signature_name
        if self._address.version is not None:
            spec.version.value = self._address.version
        elif self._address.label:
            spec.version_label = self._address.label
        for name, values in inputs.items():
            request.inputs[name].CopyFrom(make_tensor(values))
        response = ask_until(deadline, self._address, self._options, lambda: self._ask(request, deadline))
        return {name: read_tensor(tensor) for name, tensor in response.outputs.items()}

    def close(self) -> None:
        """Closes the channel."""
        self._channel.close()

    def _ask(self, request: Any, deadline: float) -> Any:
        seconds = max(deadline - time.monotonic(), 0.001)
        try:
            return self._predict(request, timeout=seconds, metadata=self._metadata)
        except grpc.RpcError as error:
            code, details = error.code(), error.details() or ""
        # Outside the handler, for gRPC's error may quote the server.
        if failure := failures.other_protocol(self._address, details):
            raise failure
        failure = self._explain(code, details)
        if code is grpc.StatusCode.UNAVAILABLE or _is_busy(code, details):
            raise PassingError(failure)
        raise failure

    def _explain(self, code: grpc.StatusCode, details: str) -> UserError:
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return failures.late(self._address, self._options.timeout_seconds)
        if code is grpc.StatusCode.UNAVAILABLE:
            return failures.out_of_reach(self._address, details, self._token)
        advice = _ADVICE.get(code, failures.OTHER)
        if code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION):
            advice = failures.advise_misfit(details)
        elif code is grpc.StatusCode.RESOURCE_EXHAUSTED and not _is_busy(code, details):
            advice = failures.TOO_LARGE
        return failures.refused(self._address, code.name, details, advice, self._token)


def _is_busy(code: grpc.StatusCode, details: str) -> bool:
    """True if a server is; gRPC has the same code for a message or for headers over a limit."""
    return code is grpc.StatusCode.RESOURCE_EXHAUSTED and not _TOO_LARGE.search(details)


def _bound(seconds: float) -> float:
    """Seconds within the range that gRPC takes.

    It counts whole milliseconds, and 2**31 of them are too many. It refuses none; and of one, which its
    chance makes none at times, some calls never come back.
    """
    return min(max(seconds, 0.01), 1e6)
