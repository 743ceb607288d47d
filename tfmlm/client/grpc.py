"""`Predict` over gRPC."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import grpc

from tfmlm.client import failures
from tfmlm.client.address import Address
from tfmlm.client.messages import PredictRequest, PredictResponse, make_tensor, read_tensor
from tfmlm.client.options import ClientOptions

_SERVICE = "tensorflow.serving.PredictionService"
_ADVICE = {
    grpc.StatusCode.INVALID_ARGUMENT: failures.MISFIT,
    grpc.StatusCode.FAILED_PRECONDITION: failures.MISFIT,
    grpc.StatusCode.NOT_FOUND: failures.UNKNOWN,
    grpc.StatusCode.UNAUTHENTICATED: failures.FORBIDDEN,
    grpc.StatusCode.PERMISSION_DENIED: failures.FORBIDDEN,
    grpc.StatusCode.RESOURCE_EXHAUSTED: failures.BUSY,
    grpc.StatusCode.UNIMPLEMENTED: "no TensorFlow Serving listens there; check the port",
}


class GrpcTransport:
    """One channel, which connects when it is used; threads may share it."""

    def __init__(self, address: Address, options: ClientOptions, token: str | None) -> None:
        self._address = address
        self._options = options
        self._token = token
        self._metadata = [("authorization", f"Bearer {token}")] if token else []
        settings = [
            ("grpc.service_config", _make_service_config(options)),
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
        """Asks; gRPC itself asks again while that may help; see `Transport.predict`."""
        request = PredictRequest()
        spec = request.model_spec
        spec.name, spec.signature_name = self._address.model, signature_name
        if self._address.version is not None:
            spec.version.value = self._address.version
        elif self._address.label:
            spec.version_label = self._address.label
        for name, values in inputs.items():
            request.inputs[name].CopyFrom(make_tensor(values))
        seconds = max(deadline - time.monotonic(), 0.001)
        try:
            response = self._predict(request, timeout=seconds, metadata=self._metadata)
        except grpc.RpcError as error:
            failure = self._explain(error.code(), error.details() or "")
        else:
            return {name: read_tensor(tensor) for name, tensor in response.outputs.items()}
        raise failure  # outside the handler: the error of gRPC may quote what the server said

    def close(self) -> None:
        """Closes the channel."""
        self._channel.close()

    def _explain(self, code: grpc.StatusCode, details: str) -> Exception:
        if code == grpc.StatusCode.DEADLINE_EXCEEDED:
            return failures.late(self._address, self._options.timeout_seconds)
        if code == grpc.StatusCode.UNAVAILABLE:
            return failures.out_of_reach(self._address, details, self._token)
        advice = _ADVICE.get(code, failures.OTHER)
        return failures.refused(self._address, code.name, details, advice, self._token)


def _bound(seconds: float) -> float:
    """Seconds within the range that gRPC takes.

    It counts whole milliseconds, and 2**31 of them are too many. It refuses none; and of one, which its
    chance makes none at times, some calls never come back.
    """
    return min(max(seconds, 0.01), 1e6)


def _make_service_config(options: ClientOptions) -> str:
    """Retries as gRPC does them (gRFC A6): `Predict` changes nothing, so it may be sent again."""
    method: dict[str, Any] = {"name": [{"service": _SERVICE}]}
    if options.max_attempts > 1:
        method["retryPolicy"] = {
            "maxAttempts": options.max_attempts,
            "initialBackoff": f"{_bound(options.backoff_seconds):.3f}s",
            "maxBackoff": f"{_bound(options.max_backoff_seconds):.3f}s",
            "backoffMultiplier": 2,
            "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
        }
    return json.dumps({"methodConfig": [method]})
