"""An export of small functions, served: values of every type arrive, what is wrong or too much is refused."""

import base64
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
)

from tests.preview.server import Server, code_of, make_request, run_server, write_echo_export
from tests.waiting import WAIT_SECONDS, wait_until


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("serve_echo") / "echo"
    write_echo_export(folder / "1")
    limits = ("--max-texts", "8", "--max-body-bytes", "20000", "--max-waiting", "3")
    with run_server(folder, *limits, "--host", "0.0.0.0") as running:
        yield running
        assert running.stop() == 0
        assert "Traceback" not in running.log.read_text(encoding="utf-8")


def test_other_machines_are_warned_of(echo: Server) -> None:
    assert "warning: other machines can reach it" in echo.banner


# === Values ===


def test_single_inputs_and_outputs_have_no_names(echo: Server) -> None:
    assert echo.ask(":predict", {"instances": [0, 0.5]}) == (200, {"predictions": [0.0, 0.5]})
    assert echo.ask(":predict", {"instances": [{"seconds": 0}]}) == (200, {"predictions": [0.0]})
    assert echo.ask(":predict", {"inputs": [0, 0.25]}) == (200, {"outputs": [0.0, 0.25]})
    assert echo.ask(":predict", {"inputs": {"seconds": [0]}}) == (200, {"outputs": [0.0]})
    assert echo.ask(":predict", {"signature_name": "scalar", "inputs": 3}) == (200, {"outputs": 1.5})


def test_a_signature_without_inputs(echo: Server) -> None:
    """TensorFlow Serving has no JSON for it."""
    for form in ({"inputs": {}}, {"instances": [{}]}):
        status, answer = echo.ask(":predict", {"signature_name": "constant"} | form)
        assert (status, answer) == (400, {"error": "Failed to get input map for signature: constant"})
    with echo.connect() as (prediction, _):
        request = predict_pb2.PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = "echo", "constant"
        response = prediction.Predict(request, timeout=WAIT_SECONDS)
        assert list(response.outputs["factor"].float_val) == [1.0, 1.0]


def test_strings_bytes_and_big_numbers(echo: Server) -> None:
    texts = ["", "naïve 𝄞", {"b64": base64.b64encode(b"\xff\x00").decode()}]
    status, answer = echo.ask(":predict", {"signature_name": "echo", "inputs": texts})
    assert status == 200
    assert answer["outputs"]["texts"] == ["", "naïve 𝄞", "\ufffd\x00"]
    sent = [b"", "naïve 𝄞".encode(), b"\xff\x00"]
    assert [base64.b64decode(item["b64"]) for item in answer["outputs"]["raw_bytes"]] == sent
    rows = [{"big": [2**62 + 1, -1], "flags": [True, False]}]
    body = {"signature_name": "pair", "instances": rows}
    assert echo.ask(":predict", body) == (200, {"predictions": rows})


# === Errors ===


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"signature_name": "echo", "inputs": ["\ud800"]}, "lone surrogate"),
        ({"signature_name": "echo", "inputs": [{"b64": "a"}]}, "Unable to base64 decode"),
        ({"signature_name": "echo", "instances": ["a", {"c": 1}]}, "got object at item 1"),
        ({"inputs": [10**400]}, "out of range for float32"),
        ({"instances": [0] * 9}, "9 texts; at most 8"),
        ({"signature_name": "pair", "inputs": {"big": [[2**63]], "flags": [[True, True]]}}, "out of range"),
    ],
)
def test_wrong_values(echo: Server, body: object, message: str) -> None:
    status, answer = echo.ask(":predict", body)
    assert status == 400
    assert message in answer["error"]


def test_wrong_methods(echo: Server) -> None:
    assert echo.ask(":classify", {})[0] == 400
    status, answer = echo.ask(":regress", {"signature_name": "echo"})
    assert status == 400
    assert "tensorflow/serving/regress. Was: tensorflow/serving/predict" in answer["error"]
    assert echo.ask("", {})[0] == 405
    assert echo.ask("", method="DELETE")[0] == 405


def test_a_body_that_is_too_large(echo: Server) -> None:
    assert echo.ask(":predict", b" " * 20001) == (413, {"error": "the request is larger than 20000 bytes"})

    with socket.create_connection(echo.rest.split(":"), timeout=WAIT_SECONDS) as connection:
        # Without a length.
        head = b"POST /v1/models/echo:predict HTTP/1.1\r\nHost: [::1]\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head + b"4e21\r\n" + b" " * 20001 + b"\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 413")


def list_wrong_requests() -> list[tuple[predict_pb2.PredictRequest, grpc.StatusCode]]:
    """Each with the code that refuses it."""
    codes = grpc.StatusCode
    hostile = make_request("echo", seconds=np.zeros(1, np.float32))
    hostile.inputs["seconds"].tensor_shape.dim[0].size = 10**12
    short = make_request("echo", seconds=np.zeros(2, np.float32))
    short.inputs["seconds"].tensor_content = b"123"
    negative = make_request("echo", seconds=np.zeros(1, np.float32))
    negative.inputs["seconds"].tensor_shape.dim[0].size = -1
    unknown_type = make_request("echo", seconds=np.zeros(1, np.float32))
    unknown_type.inputs["seconds"].dtype = 12345
    filtered = make_request("echo", seconds=np.zeros(1, np.float32))
    filtered.output_filter.append("other")
    other_version = make_request("echo", seconds=np.zeros(1, np.float32))
    other_version.model_spec.version.value = -3
    other_label = make_request("echo", seconds=np.zeros(1, np.float32))
    other_label.model_spec.version_label = "none"
    return [
        (predict_pb2.PredictRequest(), codes.INVALID_ARGUMENT),
        (make_request("other"), codes.NOT_FOUND),
        (other_version, codes.NOT_FOUND),
        (other_label, codes.INVALID_ARGUMENT),
        (make_request("echo", "none"), codes.FAILED_PRECONDITION),
        (make_request("echo"), codes.INVALID_ARGUMENT),
        (make_request("echo", seconds=np.zeros(1, np.int32)), codes.INVALID_ARGUMENT),
        (make_request("echo", seconds=np.zeros((1, 1), np.float32)), codes.INVALID_ARGUMENT),
        (make_request("echo", seconds=np.array([np.nan], np.float32)), codes.INVALID_ARGUMENT),
        (make_request("echo", seconds=np.zeros(9, np.float32)), codes.INVALID_ARGUMENT),
        (make_request("echo", "echo", texts=[b"a" * 20000]), codes.RESOURCE_EXHAUSTED),
        (hostile, codes.INVALID_ARGUMENT),
        (short, codes.INVALID_ARGUMENT),
        (negative, codes.INVALID_ARGUMENT),
        (unknown_type, codes.INVALID_ARGUMENT),
        (filtered, codes.INVALID_ARGUMENT),
    ]


def test_grpc_errors(echo: Server) -> None:
    codes = grpc.StatusCode
    with echo.connect() as (prediction, model):
        for request, code in list_wrong_requests():
            assert code_of(prediction.Predict, request)[0] is code, request
        classify = classification_pb2.ClassificationRequest()
        classify.model_spec.name = "echo"
        assert "tensorflow/serving/classify" in code_of(prediction.Classify, classify)[1]
        several = inference_pb2.MultiInferenceRequest()
        assert code_of(prediction.MultiInference, several)[0] is codes.UNIMPLEMENTED
        reload = model_management_pb2.ReloadConfigRequest()
        assert code_of(model.HandleReloadConfigRequest, reload)[0] is codes.UNIMPLEMENTED
        status = get_model_status_pb2.GetModelStatusRequest()
        assert code_of(model.GetModelStatus, status)[0] is codes.INVALID_ARGUMENT
        status.model_spec.name = "other"
        assert code_of(model.GetModelStatus, status)[0] is codes.NOT_FOUND
        slow = make_request("echo", seconds=np.full(1, 1.0, np.float32))
        with pytest.raises(grpc.RpcError) as raised:
            prediction.Predict(slow, timeout=0.2)
        assert raised.value.code() is codes.DEADLINE_EXCEEDED


# === Load ===


def test_when_too_many_wait_the_next_is_refused_and_the_loop_answers(echo: Server, tmp_path: Path) -> None:
    held = tmp_path / "held"
    answers: list[int] = []

    def work(signature: str, value: object) -> None:
        # Different signatures cannot be merged, so each takes a place in the queue.
        answers.append(echo.ask(":predict", {"signature_name": signature, "inputs": value})[0])

    holding = threading.Thread(target=work, args=("hold", [str(held)]))
    holding.start()
    wait_until(held.exists)  # it runs
    others = [threading.Thread(target=work, args=("scalar", 1)) for _ in range(6)]
    for thread in others:
        thread.start()
    wait_until(lambda: len(answers) == 3)
    assert answers == [503] * 3
    assert echo.ask("")[0] == 200  # the model is busy, the server is not
    held.unlink()
    for thread in [holding, *others]:
        thread.join()
    assert answers[3:] == [200] * 4


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_requests_in_flight_finish(tmp_path: Path, number: signal.Signals) -> None:
    """One in each of two versions, for a version runs one at a time."""
    for version in ("1", "2"):
        write_echo_export(tmp_path / "echo" / version)
    by_rest, by_grpc = tmp_path / "rest", tmp_path / "grpc"
    with run_server(tmp_path / "echo") as running, running.connect() as (prediction, _):
        body = {"signature_name": "hold", "inputs": [str(by_rest)]}
        answers: list[object] = []
        rest = threading.Thread(target=lambda: answers.append(running.ask("/versions/1:predict", body)))
        rest.start()
        request = make_request("echo", "hold", path=[str(by_grpc).encode()])
        request.model_spec.version.value = 2
        call = prediction.Predict.future(request)
        wait_until(lambda: by_rest.exists() and by_grpc.exists())
        assert running.ask_path("/readyz") == (200, {"status": "ready"})
        running.process.send_signal(number)
        # It goes on to answer as long as a request is in flight, so that probes and clients are told.
        wait_until(lambda: running.ask_path("/readyz") == (503, {"status": "stopping"}))
        assert running.ask_path("/healthz") == (200, {"status": "alive"})
        assert running.ask(":predict", {"inputs": [0]}) == (503, {"error": "the server is stopping"})
        by_grpc.unlink()
        assert call.result(timeout=WAIT_SECONDS).outputs["held"].string_val == [str(by_grpc).encode()]
        by_rest.unlink()
        rest.join()
        assert answers == [(200, {"outputs": [str(by_rest)]})]
        assert running.process.wait(WAIT_SECONDS) == 0
        assert "Traceback" not in running.log.read_text(encoding="utf-8")
