"""TensorFlow Serving's REST interface, case by case, asked over a socket; then what it counts."""

import gzip
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tensorflow_serving.apis import classification_pb2, get_model_metadata_pb2, get_model_status_pb2

from tests.folders import CHECKOUT
from tests.preview.conformance import (
    BASE,
    GZIP,
    LABEL,
    MAX_BODY_BYTES,
    MAX_TEXTS,
    METADATA,
    METADATA_PATHS,
    METRICS,
    NAME,
    PREDICT,
    TABLE,
    VERSION,
    Case,
    write_page,
)
from tests.preview.server import MonitoringConfig, Server, code_of, make_request, run_server
from tests.waiting import WAIT_SECONDS
from tfmlm.preview.json_tensors import round_as_written
from tfmlm.preview.metrics import METRICS_PATH, Metrics

CASES = [(f"{area}: {case.what}", case) for area, cases in TABLE.items() for case in cases]
PAGE = CHECKOUT / "docs" / "rest-conformance.md"

ECHOES = {
    "bfloat16": tf.bfloat16,
    "bool": tf.bool,
    "complex64": tf.complex64,
    "double": tf.float64,
    "float": tf.float32,
    "half": tf.float16,
    "int16": tf.int16,
    "int32": tf.int32,
    "int64": tf.int64,
    "int8": tf.int8,
    "string": tf.string,
    "uint16": tf.uint16,
    "uint32": tf.uint32,
    "uint64": tf.uint64,
    "uint8": tf.uint8,
}
NAMED = {
    "int_tensor": tf.int32,
    "str_tensor": tf.string,
    "float_tensor": tf.float32,
    "dbl_tensor": tf.float64,
}
OUTPUTS = {
    "double_scalar_tensor": np.array([8.0, 9.0]),
    "float_tensor": [[1.0], [2.0]],
    "int_tensor": [[[1, 2], [3, 4], [5, 6]], [[7, 8], [9, 0], [1, 2]]],
    "str_tensor": [["foo", "bar"], ["baz", "bat"]],
    "str_tensor_bytes": [["hello", "world"], ["tf", "serving"]],
}


def make_echo(shape: list[None] | None = None, **dtypes: tf.DType) -> Any:
    """A function that gives its inputs back, by their names."""
    specs = {name: tf.TensorSpec(shape, dtype, name) for name, dtype in dtypes.items()}

    @tf.function
    def echo(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return {name: tf.identity(value) for name, value in inputs.items()}

    return echo.get_concrete_function(**specs)


def make_signature(name: str, dtype: tf.DType, shape: list[None] | None, compute: Any) -> Any:
    """A function of one input x with that name."""

    @tf.function(input_signature=[tf.TensorSpec(shape, dtype, name)])
    def signature(x: tf.Tensor) -> dict[str, tf.Tensor]:
        return compute(x)

    return signature


def refuse_negative(x: tf.Tensor) -> dict[str, tf.Tensor]:
    with tf.control_dependencies([tf.debugging.assert_non_negative(x, "x is negative")]):
        return {"y": tf.identity(x)}


@tf.function(input_signature=[])
def give_constant() -> dict[str, tf.Tensor]:
    return {"y": tf.constant([1.0])}


def write_export(version: Path) -> None:
    module = tf.Module()
    computed = {
        "serving_default": (tf.float32, None, lambda x: {"y": x / 2 + 2}),
        "bytes": (tf.string, None, lambda x: {"x_bytes": tf.identity(x)}),
        "numbers_bytes": (tf.int32, None, lambda x: {"x_bytes": tf.identity(x)}),
        "outputs": (tf.int32, [None], lambda x: {key: tf.gather(OUTPUTS[key], x) for key in OUTPUTS}),
        "total": (tf.float32, [None], lambda x: {"total": tf.reduce_sum(x)}),
        "uneven": (tf.float32, [None], lambda x: {"all": tf.identity(x), "first": x[:1]}),
        "no_rows": (tf.float32, None, lambda x: {"y": x[:0]}),
        "no_rows_twice": (tf.float32, None, lambda x: {"y": x[:0], "z": tf.zeros([0, 3, 4])}),
        "no_rows_once": (tf.float32, None, lambda x: {"y": x[:0], "z": tf.identity(x)}),
        "to_complex": (tf.float32, None, lambda x: {"y": tf.cast(x, tf.complex64)}),
        "to_half": (tf.float32, None, lambda x: {"y": tf.cast(x, tf.float16)}),
        "refuse": (tf.float32, None, refuse_negative),
    }
    signatures = {name: make_signature("x", *rest) for name, rest in computed.items()}
    signatures |= {name: make_echo(x=dtype) for name, dtype in ECHOES.items()}
    signatures["batch"] = make_signature("x", tf.int32, [None], lambda x: {"y": tf.identity(x)})
    signatures["named"] = make_echo(**NAMED)
    signatures["two"] = make_echo(int_tensor=tf.int32, str_tensor=tf.string)
    signatures["columns"] = make_echo(int_tensor=tf.int32, str_tensor=tf.string, bin_tensor=tf.string)
    signatures["constant"] = give_constant
    module.functions = list(signatures.values())
    tf.saved_model.save(module, str(version), signatures=signatures)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("conformance") / NAME
    write_export(folder / str(VERSION))
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    limits = ("--max-body-bytes", str(MAX_BODY_BYTES), "--max-texts", str(MAX_TEXTS))
    with run_server(folder, "--label", f"{LABEL}={VERSION}", *limits) as running:
        yield running
        assert running.stop() == 0
        assert "Traceback" not in running.log.read_text(encoding="utf-8")


def ask(
    server: Server, method: str, path: str, body: str | bytes | None = None, headers: Mapping[str, str] = {}
) -> tuple[int, str, bytes]:
    """Status, type and body of the answer."""
    with closing(HTTPConnection(server.rest, timeout=WAIT_SECONDS)) as connection:
        sent = body.encode() if isinstance(body, str) else body
        connection.request(method, path, sent, dict(headers))
        response = connection.getresponse()
        return response.status, response.headers["Content-Type"], response.read()


def dump(value: object) -> str:
    """As text, in which NaN is NaN, 0.0 is not -0.0, and 1 is not 1.0."""
    return json.dumps(value, sort_keys=True)


# === Cases ===


@pytest.mark.parametrize("case", [case for _, case in CASES], ids=[name for name, _ in CASES])
def test_a_case(server: Server, case: Case) -> None:
    status, kind, body = ask(server, case.method, case.path, case.body, case.headers)
    expected = case.expected
    assert status == expected.status, body
    assert kind == "application/json"
    if expected.value is not None:
        assert dump(json.loads(body)) == dump(expected.value)
    elif status != 200 and case.method != "HEAD":
        answer = json.loads(body)
        assert answer.keys() == {"error"}
        assert expected.says in answer["error"]
        assert "\n" not in answer["error"]


def test_the_cases_are_many_and_each_is_another() -> None:
    assert len({name for name, _ in CASES}) == len(CASES) >= 120
    requests = {(case.method, case.path, case.body, *case.headers.items()) for _, case in CASES}
    assert len(requests) == len(CASES)
    for _, case in CASES:
        assert bool(case.why) == (case.ours is not None), case.what
        assert case.ours != case.theirs, case.what


def test_the_page_has_the_cases() -> None:
    assert PAGE.read_text(encoding="utf-8") == write_page(), (
        f"run: python -m tests.preview.conformance > {PAGE.relative_to(CHECKOUT)}"
    )


@pytest.mark.parametrize("path", METADATA_PATHS)
def test_metadata(server: Server, path: str) -> None:
    status, kind, body = ask(server, "GET", path)
    assert (status, kind) == (200, "application/json")
    answer = json.loads(body)
    assert answer.keys() == {"model_spec", "metadata"}
    assert answer["model_spec"] == METADATA["model_spec"]
    assert answer["metadata"].keys() == {"signature_def"}
    signatures = answer["metadata"]["signature_def"]
    assert signatures.keys() == {"signature_def"}
    assert drop_names(signatures["signature_def"]["batch"]) == drop_names(METADATA["signature"])


def drop_names(value: Any) -> Any:
    """Without the names of the graph's nodes, which TensorFlow makes up."""
    if not isinstance(value, dict):
        return [drop_names(item) for item in value] if isinstance(value, list) else value
    return {key: drop_names(item) for key, item in value.items() if not (key == "name" and ":" in item)}


# === Bodies in gzip ===


def test_a_bomb_takes_no_memory(server: Server) -> None:
    """16 MiB in as many bytes as the limit lets through."""
    packed = gzip.compress(b" " * 2**24)
    assert len(packed) < MAX_BODY_BYTES
    assert ask(server, "POST", PREDICT, packed, GZIP)[0] == 413  # what is made once
    process = Path(f"/proc/{server.process.pid}")
    (process / "clear_refs").write_text("5")  # begins anew with the peak
    before = read_peak(process)
    assert ask(server, "POST", PREDICT, packed, GZIP)[0] == 413
    assert read_peak(process) - before < 2**22


def read_peak(process: Path) -> int:
    """Most resident bytes that it has had."""
    return 1024 * int((process / "status").read_text().partition("VmHWM:")[2].split()[0])


def test_gzip_of_exactly_the_limit_is_taken_and_one_byte_more_is_not(server: Server) -> None:
    body = b'{"instances": [1.0, 2.0]}'
    for size, status in ((MAX_BODY_BYTES, 200), (MAX_BODY_BYTES + 1, 413)):
        assert ask(server, "POST", PREDICT, gzip.compress(body.ljust(size)), GZIP)[0] == status


def test_gzip_that_gives_nothing_ends_at_the_limit_of_what_is_sent(server: Server) -> None:
    """Empty blocks without end, in chunks: what is inflated stays empty."""
    head = gzip.compress(b"")[:10]
    blocks = b"\0\0\0\xff\xff" * MAX_BODY_BYTES
    with closing(HTTPConnection(server.rest, timeout=WAIT_SECONDS)) as connection:
        connection.request("POST", PREDICT, iter([head, blocks]), dict(GZIP), encode_chunked=True)
        assert connection.getresponse().status == 413


@pytest.mark.parametrize("num_bytes", [1, 7, 1000])
def test_gzip_in_pieces(server: Server, num_bytes: int) -> None:
    packed = gzip.compress(b'{"instances": [1.0, 2.0]}'.ljust(5000))
    pieces = (packed[start : start + num_bytes] for start in range(0, len(packed), num_bytes))
    with closing(HTTPConnection(server.rest, timeout=WAIT_SECONDS)) as connection:
        connection.request("POST", PREDICT, pieces, dict(GZIP), encode_chunked=True)
        response = connection.getresponse()
        assert (response.status, json.loads(response.read())) == (200, {"predictions": [2.5, 3.0]})


# === Numbers ===


def write_float(value: np.float32) -> float:
    """`WriteDecimal` of `json_tensor.cc`, value by value."""
    short = f"{value:.6g}"
    with np.errstate(over="ignore"):
        return float(short if np.float32(short) == value else f"{value:.9g}")


@given(values=arrays.arrays(np.float32, st.integers(0, 20), elements=st.floats(width=32)))
def test_digits_of_float32(values: np.ndarray) -> None:
    expected = [write_float(value) for value in values]
    assert dump(round_as_written(values).tolist()) == dump(expected)
    assert np.array_equal(round_as_written(values).astype(np.float32), values, equal_nan=True)


def test_digits_of_float32_in_any_shape() -> None:
    assert round_as_written(np.array(0.2, np.float32)).tolist() == 0.2
    assert round_as_written(np.zeros((2, 0), np.float32)).tolist() == [[], []]
    ties = np.array([2.0**-13, 2.0**-14, 8388608.5], np.float32)  # a five in the tenth place
    assert round_as_written(ties).tolist() == [write_float(value) for value in ties]


# === Metrics ===

Points = dict[str, dict[tuple[tuple[str, str], ...], float]]

_TYPE = re.compile(r"# TYPE ([a-zA-Z_:][a-zA-Z0-9_:]*) (counter|gauge|histogram)")
_POINT = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\{(.*)\} (-?[0-9.]+(?:e[+-][0-9]+)?)")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)')
_ESCAPE = re.compile(r"\\(.)")


def parse(page: str) -> Points:
    """Reads Prometheus' text format, strictly.

    Each metric has one type before its points, and no point comes twice. The buckets of a histogram grow, end
    in +Inf, and agree with its count.
    """
    assert page.endswith("\n")
    points: Points = {}
    kinds: dict[str, str] = {}
    for line in page[:-1].split("\n"):
        if match := _TYPE.fullmatch(line):
            name = match[1]
            assert name not in kinds, line
            kinds[name] = match[2]
            continue
        match = _POINT.fullmatch(line)
        assert match, line
        suffixes = ("_bucket", "_sum", "_count") if kinds[name] == "histogram" else ("",)
        assert match[1] in {name + suffix for suffix in suffixes}, line
        labels = tuple(
            (label[1], _ESCAPE.sub(lambda escape: {"n": "\n"}.get(escape[1], escape[1]), label[2]))
            for label in _LABEL.finditer(match[2])
        )
        assert _LABEL.sub("", match[2]) == "", line
        assert labels not in points.setdefault(match[1], {}), line
        points[match[1]][labels] = float(match[3])
    for name, kind in kinds.items():
        if kind == "histogram":
            check_buckets(name, points)
    return points


def check_buckets(name: str, points: Points) -> None:
    buckets: dict[tuple[tuple[str, str], ...], list[tuple[float, float]]] = {}
    for labels, count in points.get(f"{name}_bucket", {}).items():
        assert labels[-1][0] == "le"
        buckets.setdefault(labels[:-1], []).append((float(labels[-1][1]), count))
    assert buckets.keys() == points.get(f"{name}_sum", {}).keys() == points.get(f"{name}_count", {}).keys()
    for labels, counts in buckets.items():
        assert counts == sorted(counts)
        assert [count for _, count in counts] == sorted(count for _, count in counts)
        assert counts[-1] == (float("inf"), points[f"{name}_count"][labels])


def read_metrics(server: Server) -> Points:
    status, kind, body = ask(server, "GET", METRICS_PATH)
    assert (status, kind) == (200, "text/plain")
    return parse(body.decode())


def total(points: Points, name: str, **labels: str) -> float:
    """Sum of the points that have these labels."""
    return sum(count for key, count in points.get(name, {}).items() if labels.items() <= dict(key).items())


SERVING = ":tensorflow:serving:"
BATCHING = SERVING + "batching_session:"
LOADING = ":tensorflow:cc:saved_model:"


def test_the_shipped_config_names_the_path() -> None:
    from google.protobuf import text_format

    config = (CHECKOUT / "configs" / "serving" / "monitoring.config").read_text(encoding="utf-8")
    assert text_format.Parse(config, MonitoringConfig()).prometheus_config.path == METRICS_PATH


def test_metrics_have_the_names_and_labels_of_the_page(server: Server) -> None:
    assert ask(server, "POST", PREDICT, '{"instances": [1.0]}')[0] == 200
    points = read_metrics(server)
    for name, labels, *_ in METRICS:
        (found,) = {
            tuple(key for key, _ in point) for point in points.get(f"{name}_sum", points.get(name, {}))
        }
        assert found == tuple(re.findall(r"`(\w+)`", labels)), name
    page = ask(server, "GET", METRICS_PATH)[2].decode()
    assert [match[1] for match in _TYPE.finditer(page)] == sorted(name for name, *_ in METRICS)


def test_requests_are_counted_by_model_and_code(server: Server) -> None:
    before = read_metrics(server)
    for _ in range(3):
        assert ask(server, "POST", PREDICT, '{"instances": [1.0, 2.0]}')[0] == 200
    assert ask(server, "POST", f"{BASE}/versions/9:predict", '{"instances": [1]}')[0] == 404
    assert ask(server, "POST", PREDICT, "{")[0] == 400
    assert ask(server, "POST", PREDICT, b" " * (MAX_BODY_BYTES + 1))[0] == 413
    assert ask(server, "POST", PREDICT, '{"signature_name": "half", "inputs": [1]}')[0] == 501
    assert ask(server, "GET", BASE)[0] == 200
    for number in range(5):
        assert ask(server, "GET", f"/v1/models/made-up-{number}")[0] == 404
    after = read_metrics(server)

    def grown(name: str, **labels: str) -> float:
        return total(after, name, **labels) - total(before, name, **labels)

    counted = SERVING + "request_count"
    codes = {"OK": 4, "NOT_FOUND": 1, "INVALID_ARGUMENT": 2, "UNIMPLEMENTED": 1}
    for code, count in codes.items():
        assert grown(counted, model_name=NAME, status=code) == count, code
    assert grown(counted, model_name="", status="NOT_FOUND") == 5
    assert grown(counted) == sum(codes.values()) + 5
    assert {dict(key)["model_name"] for key in after[counted]} == {"", NAME}

    latency = SERVING + "request_latency"
    assert grown(f"{latency}_count", model_name=NAME, API="predict", entrypoint="REST") == 3
    assert grown(f"{latency}_count", model_name=NAME, API="") == 1
    runtime = SERVING + "runtime_latency"
    assert grown(f"{runtime}_count", model_name=NAME, API="Predict", runtime="TF1") == 3
    assert 0 < grown(f"{runtime}_sum") < grown(f"{latency}_sum", API="predict")


def test_calls_of_grpc_are_counted_as_tensorflow_serving_counts_them(server: Server) -> None:
    """`prediction_service_impl.cc`: Predict, Classify and Regress, and the latency of those that succeed."""
    before = read_metrics(server)
    with server.connect() as (prediction, model):
        for _ in range(3):
            prediction.Predict(make_request(NAME, x=[1.0, 2.0]), timeout=WAIT_SECONDS)
        for request in (make_request(NAME, y=[1.0]), make_request(NAME, "refuse", x=[-1.0])):
            assert code_of(prediction.Predict, request)[0] is grpc.StatusCode.INVALID_ARGUMENT
        unknown = make_request(NAME, "nothing", x=[1.0])
        assert code_of(prediction.Predict, unknown)[0] is grpc.StatusCode.FAILED_PRECONDITION
        assert code_of(prediction.Predict, make_request("made-up"))[0] is grpc.StatusCode.NOT_FOUND
        classification = classification_pb2.ClassificationRequest()
        classification.model_spec.name = NAME
        assert code_of(prediction.Classify, classification)[0] is grpc.StatusCode.INVALID_ARGUMENT
        metadata = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        status = get_model_status_pb2.GetModelStatusRequest()
        metadata.model_spec.name = status.model_spec.name = NAME
        prediction.GetModelMetadata(metadata, timeout=WAIT_SECONDS)
        model.GetModelStatus(status, timeout=WAIT_SECONDS)
    after = read_metrics(server)

    def grown(name: str, **labels: str) -> float:
        return total(after, name, **labels) - total(before, name, **labels)

    counted, latency = SERVING + "request_count", SERVING + "request_latency_count"
    codes = {"OK": 3, "INVALID_ARGUMENT": 3, "FAILED_PRECONDITION": 1}
    for code, count in codes.items():
        assert grown(counted, model_name=NAME, status=code) == count, code
    assert grown(counted, model_name="", status="NOT_FOUND") == 1
    assert grown(counted) == sum(codes.values()) + 1
    assert grown(latency) == grown(latency, model_name=NAME, API="Predict", entrypoint="GRPC") == 3


def test_batches_and_loading_are_counted(server: Server, folder: Path) -> None:
    before = read_metrics(server)
    body = '{"signature_name": "batch", "instances": [1, 2, 3]}'
    threads = [threading.Thread(target=ask, args=(server, "POST", PREDICT, body)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    after = read_metrics(server)

    def grown(name: str) -> float:
        return total(after, BATCHING + name) - total(before, BATCHING + name)

    assert grown("input_batch_size_count") == 8
    assert grown("input_batch_size_sum") == grown("processed_batch_size_sum") == 24
    assert grown("processed_batch_size_count") == grown("wrapped_run_count") <= 8
    assert grown("queuing_latency_count") == 8
    path = str(folder / str(VERSION))
    assert after[LOADING + "load_attempt_count"] == {(("model_path", path), ("status", "success")): 1}
    assert after[LOADING + "load_latency"][("model_path", path),] > 1000


def test_the_format() -> None:
    """Much as `prometheus_exporter_test.cc` has it; but a value at a limit is in its bucket."""
    metrics = Metrics()
    for value in (1, 20, 200):
        metrics.input_batch_size.observe(value)
    metrics.request_count.add('"abc\\"', "a\nb", amount=2)
    page = metrics.render()
    assert ':tensorflow:serving:request_count{model_name="\\"abc\\\\\\"",status="a\\nb"} 2\n' in page
    points = parse(page)
    assert points[SERVING + "request_count"] == {(("model_name", '"abc\\"'), ("status", "a\nb")): 2}
    name = BATCHING + "input_batch_size"
    limits = {float(key[0][1]): count for key, count in points[f"{name}_bucket"].items()}
    assert [*limits] == [*(2.0**power for power in range(14)), float("inf")]
    assert [limits[limit] for limit in (1, 2, 16, 32, 128, 256)] == [1, 1, 1, 2, 2, 3]
    assert points[f"{name}_sum"] == {(): 221}


@pytest.mark.parametrize(
    "page",
    [
        "# TYPE a counter",
        "# TYPE a counter\na{} 1\na{} 1\n",
        "# TYPE a counter\nb{} 1\n",
        '# TYPE a counter\na{x="\\q"} 1\n',
        '# TYPE a counter\na{x="1" y="2"} 1\n',
        '# TYPE a histogram\na_bucket{le="1"} 1\na_sum{} 1\na_count{} 1\n',
        '# TYPE a histogram\na_bucket{le="1"} 2\na_bucket{le="+Inf"} 1\na_sum{} 1\na_count{} 1\n',
    ],
)
def test_the_parser_is_strict(page: str) -> None:
    with pytest.raises(AssertionError):
        parse(page)
