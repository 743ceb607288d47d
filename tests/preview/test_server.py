"""`tfmlm serve` in a process of its own: REST and gRPC give what the SavedModel gives in this process."""

import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf.json_format import ParseDict
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2

from tests.finished import Finished
from tests.preview.server import Server, code_of, make_request, run_server
from tfmlm.cli.main import main
from tfmlm.config import ExportConfig
from tfmlm.export.saved_model import export_saved_model

IDS = [[0, 4, 9, 4, 2], [0, 9, 4, 2, 1]]
MASK = [[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]]
ROWS = [{"input_ids": ids, "attention_mask": mask} for ids, mask in zip(IDS, MASK, strict=True)]
NUMBERS = ("scores", "positions", "token_ids")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, word_run: Finished) -> Path:
    # Bodies of ids are wrong in more ways than texts.
    config = ExportConfig(dir=str(tmp_path_factory.mktemp("serve")), top_k=3, text_signature="off")
    return export_saved_model(word_run.model_dir, config, "tiny").path.parent


@pytest.fixture(scope="module")
def server(exported: Path) -> Iterator[Server]:
    with run_server(exported, "--label", "stable=1") as running:
        yield running
        assert running.stop() == 0
        assert "Traceback" not in running.log.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def expected(exported: Path) -> dict[str, np.ndarray]:
    ids = tf.saved_model.load(str(exported / "1")).signatures["ids"]
    outputs = ids(input_ids=tf.constant(IDS), attention_mask=tf.constant(MASK))
    return {name: value.numpy() for name, value in outputs.items()}


# === The same answers ===


@pytest.mark.parametrize("target", ["", "/versions/1", "/labels/stable"])
def test_rest_columns_and_rows_equal_the_saved_model(
    server: Server, expected: dict[str, np.ndarray], target: str
) -> None:
    body = {"signature_name": "ids", "inputs": {"input_ids": IDS, "attention_mask": MASK}}
    status, columns = server.ask(f"{target}:predict", body)
    assert status == 200
    status, rows = server.ask(f"{target}:predict", {"signature_name": "ids", "instances": ROWS})
    assert status == 200
    assert columns["outputs"].keys() == rows["predictions"][0].keys() == expected.keys()
    for name in NUMBERS:
        np.testing.assert_allclose(columns["outputs"][name], expected[name], atol=1e-5)
        np.testing.assert_allclose([row[name] for row in rows["predictions"]], expected[name], atol=1e-5)
    decoded = [token.decode("utf-8", "replace") for token in expected["tokens"].ravel()]
    assert np.ravel(columns["outputs"]["tokens"]).tolist() == decoded


def test_grpc_equals_the_saved_model(server: Server, expected: dict[str, np.ndarray]) -> None:
    request = make_request(
        "tiny", "ids", input_ids=np.array(IDS, np.int32), attention_mask=np.array(MASK, np.int32)
    )
    with server.connect() as (prediction, _):
        response = prediction.Predict(request)
        assert response.model_spec.name == "tiny"
        assert response.model_spec.signature_name == "ids"
        assert response.model_spec.version.value == 1
        assert set(response.outputs) == set(expected)
        for name in NUMBERS:
            np.testing.assert_allclose(tf.make_ndarray(response.outputs[name]), expected[name], atol=1e-5)
        assert tf.make_ndarray(response.outputs["tokens"]).tolist() == expected["tokens"].tolist()
        assert len(response.outputs["scores"].float_val) == expected["scores"].size
        request.output_filter.append("scores")
        assert set(prediction.Predict(request).outputs) == {"scores"}


def test_requests_at_the_same_time_get_each_their_own(
    server: Server, expected: dict[str, np.ndarray]
) -> None:
    wrong: list[object] = []

    def work(number: int) -> None:
        for turn in range(8):
            row = (number + turn) % 2
            if turn == 3 and number == 0:
                # A request that the model refuses spoils none of those that are run with it.
                bad = {"input_ids": [0, 10**6, 9, 4, 2], "attention_mask": MASK[0]}
                status, answer = server.ask(":predict", {"signature_name": "ids", "instances": [bad]})
                if status != 400 or "input_ids" not in answer["error"]:
                    wrong.append(answer)
            status, answer = server.ask(":predict", {"signature_name": "ids", "instances": [ROWS[row]]})
            if status != 200:
                wrong.append(answer)
                continue
            (got,) = answer["predictions"]
            num_masks = len(got["positions"])
            if not np.allclose(got["scores"], expected["scores"][row][:num_masks], atol=1e-5):
                wrong.append(got)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# === Metadata and status ===


def test_metadata(server: Server, exported: Path) -> None:
    status, answer = server.ask("/metadata")
    assert status == 200
    assert answer["model_spec"] == {"name": "tiny", "signature_name": "", "version": "1"}
    rest = ParseDict(answer["metadata"]["signature_def"], get_model_metadata_pb2.SignatureDefMap())
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "tiny"
    with server.connect() as (prediction, _):
        response = prediction.GetModelMetadata(request)
        packed = get_model_metadata_pb2.SignatureDefMap()
        assert response.metadata["signature_def"].Unpack(packed)
        request.metadata_field[0] = "other"
        assert code_of(prediction.GetModelMetadata, request)[0] is grpc.StatusCode.INVALID_ARGUMENT
    assert rest == packed
    assert set(tf.saved_model.load(str(exported / "1")).signatures) <= set(packed.signature_def)


def test_status(server: Server) -> None:
    available = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    for target in ("", "/versions/1", "/labels/stable"):
        assert server.ask(target) == (200, {"model_version_status": [available]})
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "tiny"
    request.model_spec.version_label = "stable"
    with server.connect() as (_, model):
        (status,) = model.GetModelStatus(request).model_version_status
        assert (status.version, status.state) == (1, get_model_status_pb2.ModelVersionStatus.AVAILABLE)


def test_banner_description_and_headers(server: Server) -> None:
    assert "tiny version 1" in server.banner
    assert "production is TensorFlow Serving" in server.banner
    assert "warning" not in server.banner
    status, description = server.ask_path("/openapi.json")
    assert status == 200
    assert "/v1/models/{name}/labels/{label}:predict" in description["paths"]
    import http.client
    from contextlib import closing

    with closing(http.client.HTTPConnection(server.rest)) as connection:
        connection.request("GET", "/v1/models/tiny")
        headers = connection.getresponse().headers
    assert headers["Content-Security-Policy"] == "default-src 'self'; frame-ancestors 'none'"
    assert headers["Server"] is None


# === Errors ===


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/v1/models/tiny/versions/9", 404, "Could not find version 9 of model tiny"),
        ("/v1/models/other", 404, "Could not find any versions of model other"),
        ("/v1/models/other/metadata", 404, "Servable not found for request: Latest(other)"),
        ("/v1/models/tiny/labels/new", 400, "Unrecognized servable version label: new"),
        ("/v1/models/tiny/versions/9/metadata", 404, "Servable not found for request: Specific(tiny, 9)"),
        (f"/v1/models/tiny/versions/{2**63}", 400, f"Failed to convert version: {2**63} to numeric."),
        ("/v1/models", 400, "Missing model name in request."),
        ("/v1/model", 400, "Malformed request: GET /v1/model"),
        ("/v1/models/tiny:predict", 405, "Malformed request: GET /v1/models/tiny:predict"),
        ("/page/../../secret", 404, "Not Found"),
    ],
)
def test_wrong_targets(server: Server, path: str, status: int, message: str) -> None:
    assert server.ask_path(path) == (status, {"error": message})


ROW = b'{"input_ids":[0,4],"attention_mask":[1,1]}'


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "The document is empty"),
        (b"{", "JSON Parse error"),
        (b"[]", "Is not object"),
        (b"{}", "Missing 'inputs' or 'instances' key"),
        (b'{"a":1,"a":2}', "key twice"),
        (b"\xff\xfe{}", "not UTF-8"),
        (b'{"instances":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        (
            b'{"signature_name":"ids","inputs":{"input_ids":[[NaN]],"attention_mask":[[1]]}}',
            "expected type: int32",
        ),
        (b'{"instances":[1],"inputs":[1]}', "only one of 'inputs' or 'instances'"),
        (b'{"instances":3}', "Expecting 'instances' to be an list/array"),
        (b'{"instances":[]}', "No values in 'instances' array"),
        (b'{"instances":[1]}', "multiple input tensors required"),
        (b'{"inputs":[1]}', "multiple input tensors required"),
        (b'{"instances":[%s,3]}' % ROW, "Expecting object but got list at item 1"),
        (b'{"instances":[{"input_ids":[1]}]}', "keys must be equal to: attention_mask,input_ids"),
        (b'{"inputs":{"input_ids":[[1]]}}', "Missing named input: attention_mask"),
        (b'{"signature_name":"none","instances":[%s]}' % ROW, '"none" not found in signature def'),
        (b'{"signature_name":"\\ud800","instances":[%s]}' % ROW, "not found in signature def"),
        (b'{"signature_name":1,"instances":[%s]}' % ROW, "must be a string value"),
        (b'{"inputs":{"input_ids":[[1,2],[1]],"attention_mask":[[1,1],[1,1]]}}', "at unexpected size: 1"),
        (b'{"inputs":{"input_ids":[[1],2],"attention_mask":[[1],[1]]}}', "found at incorrect level: 1"),
        (b'{"inputs":{"input_ids":[[1.5]],"attention_mask":[[1]]}}', "not of expected type: int32"),
        (b'{"inputs":{"input_ids":[[true]],"attention_mask":[[1]]}}', "not of expected type: int32"),
        (b'{"inputs":{"input_ids":[["a"]],"attention_mask":[[1]]}}', "not of expected type: int32"),
        (b'{"inputs":{"input_ids":[[null]],"attention_mask":[[1]]}}', "Type: Null"),
        (b'{"inputs":{"input_ids":[[2147483648]],"attention_mask":[[1]]}}', "out of range for int32"),
        (b'{"inputs":{"input_ids":[[%s]],"attention_mask":[[1]]}}' % (b"9" * 5000), "JSON Parse error"),
        (b'{"inputs":{"input_ids":[1],"attention_mask":[[1]]}}', "has shape [1], expected [?,?]"),
        (b'{"inputs":{"input_ids":[[]],"attention_mask":[[]]}}', "no values"),
        (b'{"inputs":{"input_ids":[[1],[1]],"attention_mask":[[1]]}}', "different batch sizes"),
        (b'{"inputs":{"input_ids":[[-5]],"attention_mask":[[1]]}}', "input_ids must be 0 to"),
    ],
)
def test_wrong_bodies(server: Server, body: bytes, message: str) -> None:
    status, answer = server.ask(":predict", body)
    assert status == 400
    assert answer.keys() == {"error"}
    assert message in answer["error"]
    assert "\n" not in answer["error"]


# === Starting ===


Refuse = Callable[..., str]

_FROM_CPP = re.compile(r"^\d{4}-\d\d-\d\d [\d:.]+: [IWE] \S+\.cc:\d+\] .*\n(\t \[\[.*\n)*", re.M)
"""What TensorFlow says in C++, now and then, where it was loaded before tfmlm could quieten that, as here."""


@pytest.fixture
def refuse(capfd: pytest.CaptureFixture[str]) -> Refuse:
    def serve(*flags: str) -> str:
        capfd.readouterr()
        assert main(["serve", *flags]) == 2
        lines = _FROM_CPP.sub("", capfd.readouterr().err).splitlines()
        (line,) = [line for line in lines if not line.startswith("version 1 ")]
        assert line.startswith("tfmlm: ")
        return line

    return serve


def test_a_port_in_use_is_refused_in_one_line(server: Server, exported: Path, refuse: Refuse) -> None:
    rest = server.rest.split(":")[1]
    assert f"127.0.0.1:{rest}: Address already in use; set --port" in refuse(str(exported), "--port", rest)
    port = server.grpc_address.split(":")[1]
    line = refuse(str(exported), "--port", "0", "--grpc-port", port)
    assert f"127.0.0.1:{port}: Address already in use; set --grpc-port" in line


def test_a_label_of_a_version_that_there_is_not(exported: Path, refuse: Refuse) -> None:
    free = ("--port", "0", "--grpc-port", "0")
    assert "--label new=7 names no version" in refuse(str(exported), *free, "--label", "new=7")
