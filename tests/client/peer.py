"""Servers of an exported model, REST and gRPC, that fail as they are told to: the other side for a client."""

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from tfmlm.client.client import FillMaskClient
from tfmlm.errors import UserError


class ServedModel:
    """A loaded export."""

    def __init__(self, version: Path) -> None:
        self.loaded = tf.saved_model.load(str(version))

    def predict(self, signature: str, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        tensors = {
            name: tf.constant(value, tf.string if name in ("texts", "targets") else tf.int32)
            for name, value in inputs.items()
        }
        return {name: value.numpy() for name, value in self.loaded.signatures[signature](**tensors).items()}


@dataclass
class Request:
    """One request that came in: where to, with which headers and signature, for how many texts."""

    where: str
    headers: dict[str, str]
    signature: str
    num_texts: int


@dataclass
class Fault:
    """Instead of an answer.

    Attributes:
        status: HTTP status or gRPC code; `cut` ends the connection, `silent` never answers, `drip` sends a
            byte of the answer every now and then.
        message: what the server says.
        headers: HTTP headers.
    """

    status: int | str | grpc.StatusCode
    message: str = ""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Peer:
    """A server.

    Attributes:
        port: where it listens.
        requests: those that came in.
        faults: what the next requests meet, first one first.
    """

    model: ServedModel
    port: int = 0
    requests: list[Request] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    is_over: threading.Event = field(default_factory=threading.Event)

    def next_fault(self) -> Fault | None:
        return self.faults.pop(0) if self.faults else None


def _to_json(values: np.ndarray) -> Any:
    as_lists = values.tolist()
    return json.loads(json.dumps(as_lists, default=lambda text: text.decode()))


class RestHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: "RestServer"

    def do_POST(self) -> None:
        peer = self.server.peer
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        num_texts = len(next(iter(body["inputs"].values())))
        peer.requests.append(Request(self.path, dict(self.headers), body["signature_name"], num_texts))
        fault = peer.next_fault()
        if fault is None:
            outputs = peer.model.predict(body["signature_name"], body["inputs"])
            self.answer(200, json.dumps({"outputs": {k: _to_json(v) for k, v in outputs.items()}}))
        elif isinstance(fault.status, int):
            self.answer(fault.status, fault.message, **fault.headers)
        else:
            self.close_connection = True
            {"cut": self.cut, "silent": peer.is_over.wait, "drip": self.drip}[fault.status]()

    def answer(self, status: int, content: str, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content.encode())))
        self.end_headers()
        self.wfile.write(content.encode())

    def cut(self) -> None:
        self.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"outputs"')
        self.connection.shutdown(socket.SHUT_RDWR)

    def drip(self) -> None:
        for byte in b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 1000:
            if self.server.peer.is_over.wait(0.05):
                break
            self.wfile.write(bytes([byte]))

    def log_message(self, *arguments: object) -> None:
        """Says nothing."""


class RestServer(ThreadingHTTPServer):
    daemon_threads = True
    peer: Peer

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.connections: list[socket.socket] = []

    def process_request(self, request: socket.socket, client_address: object) -> None:
        self.connections.append(request)
        super().process_request(request, client_address)

    def server_close(self) -> None:
        """Ends the connections too, as the end of a process does."""
        super().server_close()
        for connection in self.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is part of the tests."""


@contextmanager
def serve_rest(
    model: ServedModel, certificate: tuple[Path, Path] | None = None, port: int = 0
) -> Iterator[Peer]:
    """A REST server on a port, or a free one; with a certificate and its key it speaks TLS."""
    server = RestServer(("127.0.0.1", port), RestHandler)
    server.peer = Peer(model, port=server.server_address[1])
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server.peer
    finally:
        server.peer.is_over.set()
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def serve_grpc(
    model: ServedModel, certificate: tuple[Path, Path] | None = None, port: int = 0
) -> Iterator[Peer]:
    """A gRPC server on a port, or a free one, with the messages of the package `tensorflow_serving`."""
    peer = Peer(model)

    class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(  # noqa: N802 - gRPC's name
            self, request: predict_pb2.PredictRequest, context: grpc.ServicerContext
        ) -> predict_pb2.PredictResponse:
            spec = request.model_spec
            where = f"{spec.name}/{spec.version.value or spec.version_label}"
            inputs = {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}
            headers = dict(context.invocation_metadata())
            num_texts = len(next(iter(inputs.values())))
            peer.requests.append(Request(where, headers, spec.signature_name, num_texts))
            fault = peer.next_fault()
            if fault is not None and fault.status == "silent":
                peer.is_over.wait()
            elif fault is not None:
                context.abort(fault.status, fault.message)
            if "texts" in inputs:
                inputs["texts"] = [text.decode() for text in inputs["texts"].tolist()]
            response = predict_pb2.PredictResponse()
            for name, values in model.predict(spec.signature_name, inputs).items():
                response.outputs[name].CopyFrom(tf.make_tensor_proto(values))
            return response

    server = grpc.server(ThreadPoolExecutor(8))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Service(), server)
    if certificate:
        chain, key = (path.read_bytes() for path in certificate)
        credentials = grpc.ssl_server_credentials([(key, chain)])
        peer.port = server.add_secure_port(f"127.0.0.1:{port}", credentials)
    else:
        peer.port = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        yield peer
    finally:
        peer.is_over.set()
        server.stop(None).wait()


TEXTS = [
    "Return the <mask> size.",
    "Load the default <mask> of the <mask> file, if it exists.",
    "Compute the first<mask> of the given array.",
]
QUICK = {"backoff_seconds": 0.05, "timeout_seconds": 120.0}
TOKEN = "sesame-1f9a"

REST_BUSY, GRPC_BUSY = Fault(503, '{"error": "not ready"}'), Fault(grpc.StatusCode.UNAVAILABLE, "not ready")

Connect = Callable[..., FillMaskClient]


def fail(client: FillMaskClient, texts: list[str] = TEXTS) -> str:
    """The one line that asking ends in."""
    with pytest.raises(UserError) as caught:
        client.fill(texts)
    message = str(caught.value)
    assert "\n" not in message
    assert TOKEN not in message
    assert caught.value.__cause__ is None
    return message
