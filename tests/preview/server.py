"""A preview server that runs, and messages and requests of TensorFlow Serving's gRPC for it."""

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import grpc
import pytest
import tensorflow as tf
from google.protobuf import message_factory, text_format, wrappers_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from tensorflow_serving.apis import model_service_pb2_grpc, predict_pb2, prediction_service_pb2_grpc

from tests.waiting import WAIT_SECONDS


@dataclass
class Server:
    """A running server; `banner` is what it printed, `log` where its errors go."""

    process: subprocess.Popen[str]
    name: str
    rest: str
    grpc_address: str
    banner: str
    log: Path

    def ask(self, path: str, body: object = None, method: str | None = None) -> tuple[int, Any]:
        """HTTP status and JSON for a path below the model; a body that is no bytes is sent as JSON."""
        return self.ask_path(f"/v1/models/{self.name}{path}", body, method)

    def ask_path(self, path: str, body: object = None, method: str | None = None) -> tuple[int, Any]:
        sent = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        with closing(HTTPConnection(self.rest, timeout=WAIT_SECONDS)) as connection:
            connection.request(method or ("GET" if body is None else "POST"), path, sent)
            response = connection.getresponse()
            return response.status, json.loads(response.read() or b"null")

    @contextmanager
    def connect(self) -> Iterator[tuple[Any, Any]]:
        """Stubs of the prediction and the model service."""
        with grpc.insecure_channel(self.grpc_address) as channel:
            yield (
                prediction_service_pb2_grpc.PredictionServiceStub(channel),
                model_service_pb2_grpc.ModelServiceStub(channel),
            )

    def stop(self) -> int:
        """Exit code after SIGTERM."""
        self.process.terminate()
        return self.process.wait(WAIT_SECONDS)


@contextmanager
def run_server(folder: Path, *flags: str) -> Iterator[Server]:
    """A server of this folder on free ports, until the block ends."""
    command = [sys.executable, "-m", "tfmlm", "serve", str(folder), "--port", "0", "--grpc-port", "0", *flags]
    with (
        tempfile.TemporaryDirectory() as place,
        (log := Path(place, "errors.log")).open("w", encoding="utf-8") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        killer = threading.Timer(WAIT_SECONDS, process.kill)  # of one that says nothing
        killer.start()
        try:
            assert process.stdout
            banner = ""
            while "preview" not in banner:
                line = process.stdout.readline()
                assert line, log.read_text(encoding="utf-8")
                banner += line
            killer.cancel()
            words = banner.split()
            rest = words[words.index("page") + 1].removeprefix("http://").rstrip("/")
            yield Server(process, words[0], rest, words[words.index("gRPC") + 1], banner, log)
        finally:
            process.kill()
            killer.cancel()


def write_echo_export(version: Path, factor: float = 1.0) -> None:
    """An export with small functions: serving_default sleeps, hold waits, the others answer at once."""

    class Echo(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "seconds")])
        def sleep(self, seconds: tf.Tensor) -> dict[str, tf.Tensor]:
            start = tf.timestamp()
            turns = tf.while_loop(
                lambda _: tf.timestamp() - start < tf.cast(tf.reduce_max(seconds), tf.float64),
                lambda turns: (turns + 1,),
                [tf.constant(0)],
            )
            with tf.control_dependencies(turns):
                return {"slept": seconds * factor}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "path")])
        def hold(self, path: tf.Tensor) -> dict[str, tf.Tensor]:
            """Writes a file, and answers when somebody has removed it."""
            with tf.control_dependencies([tf.io.write_file(path[0], "")]):
                turns = tf.while_loop(
                    lambda _: tf.size(tf.io.matching_files(path[0])) > 0,
                    lambda turns: (turns + 1,),
                    [tf.constant(0)],
                )
            with tf.control_dependencies(turns):
                return {"held": tf.identity(path)}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "texts")])
        def echo(self, texts: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"texts": texts, "raw_bytes": texts}

        @tf.function(
            input_signature=[
                tf.TensorSpec([None, None], tf.int64, "big"),
                tf.TensorSpec([None, 2], tf.bool, "flags"),
            ]
        )
        def pair(self, big: tf.Tensor, flags: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"big": big, "flags": flags}

        @tf.function(input_signature=[tf.TensorSpec([], tf.float64, "number")])
        def scalar(self, number: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"half": number / 2}

        @tf.function(input_signature=[])
        def constant(self) -> dict[str, tf.Tensor]:
            return {"factor": tf.constant([factor, factor])}

    module = Echo()
    unfinished = version.parent / ".unfinished"
    tf.saved_model.save(
        module,
        str(unfinished),
        signatures={
            "serving_default": module.sleep,
            "hold": module.hold,
            "echo": module.echo,
            "pair": module.pair,
            "scalar": module.scalar,
            "constant": module.constant,
        },
    )
    unfinished.rename(version)


_FILE = """
name: "tensorflow_serving.proto"
package: "tensorflow.serving"
syntax: "proto3"
dependency: "google/protobuf/wrappers.proto"
message_type {
  name: "BatchingParameters"
  field { name: "max_batch_size" number: 1 type_name: ".google.protobuf.Int64Value" }
  field { name: "batch_timeout_micros" number: 2 type_name: ".google.protobuf.Int64Value" }
  field { name: "max_enqueued_batches" number: 3 type_name: ".google.protobuf.Int64Value" }
  field { name: "num_batch_threads" number: 4 type_name: ".google.protobuf.Int64Value" }
  field { name: "thread_pool_name" number: 5 type_name: ".google.protobuf.StringValue" }
  field { name: "allowed_batch_sizes" number: 6 type: TYPE_INT64 label: LABEL_REPEATED }
  field { name: "pad_variable_length_inputs" number: 7 type: TYPE_BOOL }
  field { name: "enable_large_batch_splitting" number: 8 type_name: ".google.protobuf.BoolValue" }
  field { name: "max_execution_batch_size" number: 9 type_name: ".google.protobuf.Int64Value" }
}
message_type {
  name: "PrometheusConfig"
  field { name: "enable" number: 1 type: TYPE_BOOL }
  field { name: "path" number: 2 type: TYPE_STRING }
}
message_type {
  name: "MonitoringConfig"
  field { name: "prometheus_config" number: 1 type_name: ".tensorflow.serving.PrometheusConfig" }
}
"""

_pool = DescriptorPool()
_pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
_pool.AddSerializedFile(text_format.Parse(_FILE, FileDescriptorProto()).SerializeToString())

BatchingParameters, MonitoringConfig = (
    message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"tensorflow.serving.{name}"))
    for name in ("BatchingParameters", "MonitoringConfig")
)


def make_request(name: str, signature: str = "", **inputs: Any) -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = name
    request.model_spec.signature_name = signature
    for key, value in inputs.items():
        request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
    return request


def code_of(call: Any, request: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as raised:
        call(request, timeout=WAIT_SECONDS)
    return raised.value.code(), raised.value.details()
