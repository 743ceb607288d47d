"""The preview server under arbitrary requests: it refuses or answers, and neither fails, hangs nor grows.

Bytes that are no `PredictRequest` are refused by grpcio before our code sees them: as INTERNAL where the
message cannot be decoded. That one status, with grpcio's own words, is the only failure that is allowed.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import predict_pb2

from tests.finished import Finished
from tests.preview.server import Server, run_server
from tests.waiting import WAIT_SECONDS

TEXT = "Return the <mask> of the given array."
UNDECODABLE = "Exception deserializing request!"
"""What grpcio says of bytes that are no message."""

MAX_GROWTH_BYTES = 64 * 2**20
fuzzed = settings(
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.fixture(scope="module")
def server(byte_run: Finished) -> Iterator[Server]:
    with run_server(byte_run.version.parent, "--name", "tiny") as running:
        expected = ask(running)
        warm_up(running)
        before = read_memory(running)
        yield running
        assert ask(running) == expected
        grown = read_memory(running) - before
        assert grown < MAX_GROWTH_BYTES, f"{grown:,} bytes more"
        assert running.stop() == 0
        assert "Traceback" not in running.log.read_text(encoding="utf-8").replace(UNDECODABLE, "")


def ask(server: Server) -> object:
    status, answer = server.ask(":predict", {"inputs": [TEXT]})
    assert status == 200
    return answer


def warm_up(server: Server) -> None:
    """So that only what stays behind counts as growth: threads and arenas are made once."""
    for num_texts in range(1, 17):
        assert server.ask(":predict", {"inputs": [TEXT] * num_texts})[0] == 200


def read_memory(server: Server) -> int:
    """Resident bytes of the server."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return 1024 * int(status.partition("VmRSS:")[2].split()[0])


# === REST ===


@pytest.mark.long
def test_rest_keeps_to_its_own_description(server: Server, tmp_path: Path) -> None:
    """Not checked: that what fits the description is accepted, since what fits depends on the signature."""
    done = subprocess.run(
        [
            *(sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"),
            *("run", f"http://{server.rest}/openapi.json", "--exclude-checks", "positive_data_acceptance"),
            *("--max-examples", "15", "--max-time", "25", "--request-timeout", "120", "--no-color"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "11 selected / 11 total" in done.stdout


# === gRPC ===


def send(server: Server, body: bytes, method: str = "Predict") -> tuple[grpc.StatusCode, str]:
    """Status and message for the bytes of a request."""
    with grpc.insecure_channel(server.grpc_address) as channel:
        call = channel.unary_unary(f"/tensorflow.serving.PredictionService/{method}")
        try:
            call(body, timeout=WAIT_SECONDS)
        except grpc.RpcError as error:
            return error.code(), error.details() or ""
    return grpc.StatusCode.OK, ""


def assert_answered(status: tuple[grpc.StatusCode, str]) -> None:
    code, message = status
    assert "\n" not in message
    assert code in {
        grpc.StatusCode.OK,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.UNIMPLEMENTED,
    }, status


def make_request(**inputs: object) -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "tiny"
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return request


VALID = [
    make_request(texts=[TEXT]),
    make_request(texts=[TEXT, "<mask>"]),
    make_request(input_ids=np.array([[0, 4, 2]], np.int32), attention_mask=np.ones((1, 3), np.int32)),
]
VALID[2].model_spec.signature_name = "ids"

DTYPES = list(types_pb2.DataType.values())
sizes = st.integers(-3, 4) | st.sampled_from([2**31, 2**62, 2**63 - 1, -(2**63), 10**6])


@st.composite
def tensors(draw: st.DrawFn) -> tensor_pb2.TensorProto:
    tensor = tensor_pb2.TensorProto()
    tensor.dtype = draw(st.sampled_from([types_pb2.DT_STRING, types_pb2.DT_INT32]) | st.sampled_from(DTYPES))
    for size in draw(st.lists(sizes, max_size=4)):
        tensor.tensor_shape.dim.add(size=size)
    tensor.tensor_shape.unknown_rank = draw(st.integers(0, 9)) == 0
    tensor.tensor_content = draw(st.just(b"") | st.binary(max_size=40))
    tensor.int_val.extend(draw(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=6)))
    tensor.string_val.extend(draw(st.lists(st.binary(max_size=12) | st.just(TEXT.encode()), max_size=4)))
    tensor.float_val.extend(draw(st.lists(st.floats(width=32), max_size=3)))
    tensor.int64_val.extend(draw(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3)))
    return tensor


@st.composite
def requests(draw: st.DrawFn) -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest()
    if draw(st.integers(0, 9)):
        request.model_spec.name = draw(st.just("tiny") | st.text(max_size=5))
    signatures = ["", "text", "ids", "ids_int64", "logits", "serving_default"]
    request.model_spec.signature_name = draw(st.sampled_from(signatures) | st.text(max_size=5))
    version = draw(st.none() | st.sampled_from([1, 0, -1, 2**62]))
    if version is not None:
        request.model_spec.version.value = version
    names = st.sampled_from([["texts"], ["input_ids", "attention_mask"]]) | st.lists(
        st.text(max_size=5), max_size=3
    )
    for name in draw(names):
        request.inputs[name].CopyFrom(draw(tensors()))
    request.output_filter.extend(draw(st.just([]) | st.lists(st.sampled_from(["scores", "x"]), max_size=3)))
    return request


@fuzzed
@given(request=requests())
def test_any_request(request: predict_pb2.PredictRequest, server: Server) -> None:
    assert_answered(send(server, request.SerializeToString()))


@fuzzed
@given(body=st.binary(max_size=200), method=st.sampled_from(["Predict", "GetModelMetadata", "Classify"]))
def test_any_bytes(body: bytes, method: str, server: Server) -> None:
    code, message = send(server, body, method)
    if (code, message) != (grpc.StatusCode.INTERNAL, UNDECODABLE):
        assert_answered((code, message))


@fuzzed
@given(valid=st.sampled_from(VALID), data=st.data())
def test_a_request_with_bytes_changed(
    valid: predict_pb2.PredictRequest, data: st.DataObject, server: Server
) -> None:
    body = bytearray(valid.SerializeToString())
    for place in data.draw(st.lists(st.integers(0, len(body) - 1), min_size=1, max_size=4)):
        body[place] = data.draw(st.integers(0, 255))
    del body[data.draw(st.just(len(body)) | st.integers(0, len(body))) :]
    code, message = send(server, bytes(body))
    if (code, message) != (grpc.StatusCode.INTERNAL, UNDECODABLE):
        assert_answered((code, message))


texts = st.lists(
    st.binary(max_size=40) | st.text("<mask> a\0é\ud7ff\U0001f600", max_size=20), min_size=1, max_size=4
)


@fuzzed
@given(values=texts)
def test_any_texts_are_answered(values: list[bytes | str], server: Server) -> None:
    array = np.array([value.encode() if isinstance(value, str) else value for value in values], object)
    assert send(server, make_request(texts=array).SerializeToString())[0] is grpc.StatusCode.OK
