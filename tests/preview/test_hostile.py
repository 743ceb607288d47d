"""Clients that leave, fall silent, ask for too much or for another site; the others do not wait for them."""

import json
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2

from tests.preview.server import Server, code_of, make_request, run_server, write_echo_export
from tests.waiting import WAIT_SECONDS, wait_until
from tfmlm.preview.connections import STILL_SECONDS

MAX_WAITING = 3
POST = b"POST /v1/models/echo:predict HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("serve_hostile") / "echo"
    write_echo_export(folder / "1")
    return folder


@pytest.fixture(scope="module")
def echo(exported: Path) -> Iterator[Server]:
    with run_server(exported, "--max-waiting", str(MAX_WAITING), "--max-seconds", "600") as running:
        yield running
        assert running.stop() == 0
        assert "Traceback" not in running.log.read_text(encoding="utf-8")


@pytest.fixture
def held(echo: Server, tmp_path: Path) -> Iterator[Path]:
    """A file; as long as it is there, the model is busy."""
    path = tmp_path / "held"
    body = {"signature_name": "hold", "inputs": [str(path)]}
    holding = threading.Thread(target=echo.ask, args=(":predict", body))
    holding.start()
    wait_until(path.exists)
    yield path
    path.unlink(missing_ok=True)
    holding.join()


def connect(server: Server) -> socket.socket:
    host, port = server.rest.split(":")
    return socket.create_connection((host, int(port)), timeout=WAIT_SECONDS)


def post(server: Server, body: object) -> socket.socket:
    """A connection on which a prediction was asked for."""
    content = json.dumps(body).encode()
    head = (
        f"POST /v1/models/echo:predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    connection = connect(server)
    connection.sendall(head.encode() + content)
    return connection


def is_answered(connection: socket.socket, seconds: float = 0.0) -> bool:
    return bool(select.select([connection], [], [], seconds)[0])


# === Clients that leave ===


def close(connection: socket.socket) -> None:
    connection.close()


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@pytest.mark.parametrize("leave", [close, reset])
@pytest.mark.parametrize("padding", [0, 200_000])
def test_what_a_client_that_left_had_asked_by_rest_is_not_run(
    echo: Server, held: Path, leave: Callable[[socket.socket], None], padding: int
) -> None:
    """Each would write a file."""
    paths = [held.with_name(f"gone{number}") for number in range(MAX_WAITING + 2)]
    bodies = [{"signature_name": "hold", "inputs": [str(path)], "padding": "x" * padding} for path in paths]
    connections = [post(echo, body) for body in bodies]
    wait_until(lambda: sum(map(is_answered, connections)) == 2)  # the others fill the queue
    for connection in connections:
        leave(connection)
    for _ in range(100):
        with post(echo, {"inputs": [0]}) as another:
            if not is_answered(another, seconds=0.2):  # there is room again
                held.unlink()
                assert another.recv(100).startswith(b"HTTP/1.1 200")
                break
    assert not held.exists()
    assert not any(path.exists() for path in paths)


def test_what_a_client_that_left_had_asked_by_grpc_is_not_run(echo: Server, held: Path) -> None:
    paths = [held.with_name(f"gone{number}") for number in range(MAX_WAITING + 2)]
    with echo.connect() as (prediction, _):
        calls = [
            prediction.Predict.future(make_request("echo", "hold", path=[str(path).encode()]))
            for path in paths
        ]
        wait_until(lambda: sum(call.done() for call in calls) == 2)
        for call in calls:
            call.cancel()
        request = make_request("echo", seconds=np.zeros(1, np.float32))

        def is_room_again() -> bool:
            another = prediction.Predict.future(request)
            try:
                another.result(0.2)
            except grpc.FutureTimeoutError:
                held.unlink()
                return bool(another.result(WAIT_SECONDS).outputs)
            except grpc.RpcError:
                return False
            raise AssertionError("the model was busy")

        wait_until(is_room_again)
    assert not any(path.exists() for path in paths)


# === Connections on which nothing comes ===


def list_open(server_port: int) -> set[int]:
    """Ports of the clients whose connections the server has open."""
    tables = [Path(f"/proc/net/{name}").read_text(encoding="ascii") for name in ("tcp", "tcp6")]
    rows = [line.split() for table in tables for line in table.splitlines()[1:]]
    ends = [(*(int(end.split(":")[1], 16) for end in row[1:3]), row[3]) for row in rows]
    return {theirs for ours, theirs, state in ends if ours == server_port and state == "01"}


GET = b"GET /v1/models/echo HTTP/1.1\r\nHost: localhost\r\n"
DRIP = "byte by byte"
STALLS = {
    "nothing": b"",
    "half a head": GET,
    DRIP: GET,
    "half of the next head": GET + b"\r\n" + GET,
    "no body of GET": GET + b"Content-Length: 9\r\n\r\n",
    "no body for a wrong path": b"POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n",
}


def test_silent_connections_are_closed_and_slow_answers_are_waited_for(echo: Server, held: Path) -> None:
    rest_port, grpc_port = (int(address.split(":")[1]) for address in (echo.rest, echo.grpc_address))
    with ExitStack() as stack:
        slow = stack.enter_context(post(echo, {"inputs": [0]}))  # asks first, and gets its answer last
        by_grpc = stack.enter_context(socket.create_connection(("127.0.0.1", grpc_port)))
        stalled = {name: stack.enter_context(connect(echo)) for name in STALLS}
        for name, sent in STALLS.items():
            stalled[name].sendall(sent)
        names = {connection.getsockname()[1]: name for name, connection in stalled.items()}
        names[by_grpc.getsockname()[1]] = "gRPC"

        def list_left() -> set[str]:
            left = {names[port] for port in (list_open(rest_port) | list_open(grpc_port)) & names.keys()}
            if DRIP in left:
                stalled[DRIP].send(b"x")
            return left

        wait_until(lambda: "gRPC" in list_left())
        deadline = time.monotonic() + 6 * STILL_SECONDS
        while list_left() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert list_left() == set()
        assert not is_answered(slow)
        held.unlink()
        assert slow.recv(100).startswith(b"HTTP/1.1 200")


# === Bodies that cost more than they bring ===


@pytest.mark.parametrize("depth", [35, 64, 65, 66, 100, 999, 1000, 100_000])
@pytest.mark.parametrize("form", ['{"instances":%s}', '{"inputs":%s}', '{"inputs":{"seconds":%s}}', "%s"])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('{"a":[', "]}")])
def test_any_depth_is_answered(echo: Server, form: str, depth: int, opening: str, closing: str) -> None:
    nested = opening * depth + "0" + closing * depth
    status, answer = echo.ask(":predict", (form % nested).encode())
    assert status == 400
    assert "nested too deeply" in answer["error"]


FILL = 4 * 2**20 - 100


@pytest.mark.parametrize(
    ("item", "says"),
    [
        (b"[]", "lists, objects and strings; at most 65536"),
        (b"{}", "lists, objects and strings; at most 65536"),
        (b'""', "lists, objects and strings; at most 65536"),
        (b'{"a":0}', "lists, objects and strings; at most 65536"),
        (b"[0]", "lists, objects and strings; at most 65536"),
        (b"0", "values; at most 1048576"),
        (b"", "values; at most 1048576"),
    ],
)
@pytest.mark.parametrize("form", [b'{"instances":[%s]}', b'{"inputs":[%s]}', b'{"a":[%s]}', b"[%s]"])
def test_bodies_of_many_parts_are_refused_before_they_are_made(
    echo: Server, form: bytes, item: bytes, says: str
) -> None:
    items = b",".join([item] * (FILL // (len(item) + 1)))
    status, answer = echo.ask(":predict", form % items)
    assert status == 400
    assert says in answer["error"]


def test_a_text_may_be_made_of_brackets(echo: Server) -> None:
    text = '[],{}:\\"' * 100_000
    body = {"signature_name": "echo", "inputs": [text]}
    status, answer = echo.ask(":predict", body)
    assert (status, answer["outputs"]["texts"]) == (200, [text])


# === Names in messages ===


LETTERS = st.sampled_from(["n", "é", "\u200b", "\0", "\U0001f600", "%", "\ue000"])
long_names = st.builds(lambda letter, size: letter * size, LETTERS, st.integers(300, 100_000))
a_few = settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])


def put_label(request: predict_pb2.PredictRequest, name: str) -> None:
    request.model_spec.version_label = name


def put_output(request: predict_pb2.PredictRequest, name: str) -> None:
    request.output_filter.append(name)


def put_input(request: predict_pb2.PredictRequest, name: str) -> None:
    request.inputs[name].dtype = 1


def put_name(request: predict_pb2.PredictRequest, name: str) -> None:
    request.model_spec.name = name


def put_signature(request: predict_pb2.PredictRequest, name: str) -> None:
    request.model_spec.signature_name = name


@a_few
@given(name=long_names, data=st.data())
def test_long_names_change_no_code_by_grpc(echo: Server, name: str, data: st.DataObject) -> None:
    places = {
        put_label: grpc.StatusCode.INVALID_ARGUMENT,
        put_output: grpc.StatusCode.INVALID_ARGUMENT,
        put_input: grpc.StatusCode.INVALID_ARGUMENT,
        put_name: grpc.StatusCode.NOT_FOUND,
        put_signature: grpc.StatusCode.FAILED_PRECONDITION,
    }
    request = make_request("echo", seconds=np.zeros(1, np.float32))
    put = data.draw(st.sampled_from([*places]))
    put(request, name)
    metadata = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=[name])
    metadata.model_spec.name = "echo"
    with echo.connect() as (prediction, _):
        assert code_of(prediction.Predict, request)[0] is places[put]
        assert code_of(prediction.GetModelMetadata, metadata)[0] is grpc.StatusCode.INVALID_ARGUMENT


@a_few
@given(name=long_names)
def test_long_names_are_not_sent_back_by_rest(echo: Server, name: str) -> None:
    for body in (
        {"signature_name": name, "inputs": [0]},
        {"inputs": {name: [0]}},
        {"instances": [{name: 0}]},
        {"inputs": [name]},
    ):
        status, answer = echo.ask(":predict", body)
        assert status == 400
        assert len(answer["error"]) < 600
    for path in (
        f"/v1/models/{'n' * 20_000}",
        f"/v1/{'n' * 20_000}",
        f"/v1/models/echo/labels/{'n' * 20_000}",
    ):
        status, answer = echo.ask_path(path)
        assert status in (400, 404)
        assert len(answer["error"]) < 600


# === Other sites ===


def test_other_sites_are_refused(echo: Server) -> None:
    for header in (b"Host: evil.example", b"Host: localhost\r\nOrigin: https://evil.example"):
        for line in (b"POST /v1/models/echo:predict", b"GET /v1/models/echo", b"GET /", b"GET /readyz"):
            with connect(echo) as connection:
                connection.sendall(line + b" HTTP/1.1\r\nContent-Type: text/plain\r\n" + header + b"\r\n\r\n")
                assert connection.recv(1000).startswith(b"HTTP/1.1 403")


def test_no_other_page_frames_ours(echo: Server) -> None:
    with connect(echo) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"content-security-policy: default-src 'self'; frame-ancestors 'none'" in connection.recv(4000)


# === Limits of time and memory ===


@pytest.fixture(scope="module")
def strict(exported: Path) -> Iterator[Server]:
    with run_server(exported, "--max-seconds", "1", "--max-waiting-bytes", "200000") as running:
        yield running
        assert running.stop() == 0
        assert "Traceback" not in running.log.read_text(encoding="utf-8")


@pytest.fixture
def to_hold(tmp_path: Path) -> Iterator[Path]:
    """For the test to let the model make it, and then to remove."""
    yield tmp_path / "held"
    (tmp_path / "held").unlink(missing_ok=True)


def test_an_answer_that_takes_too_long(strict: Server, to_hold: Path) -> None:
    answer = strict.ask(":predict", {"signature_name": "hold", "inputs": [str(to_hold)]})
    assert answer == (504, {"error": "the answer was not ready within 1 s"})
    answer = strict.ask(":predict", {"inputs": [0]})  # which waits for the other
    assert answer == (504, {"error": "the answer was not ready within 1 s"})
    to_hold.unlink()
    assert strict.ask(":predict", {"inputs": [0]})[0] == 200


def test_what_waits_holds_no_more_memory_than_allowed(strict: Server, to_hold: Path) -> None:
    """By gRPC, where a message of a hundred bytes may stand for a tensor of 80,000."""
    tensor = make_request("echo", "pair", big=np.zeros((1, 1), np.int64), flags=np.zeros((20, 2), bool))
    for dim, size in zip(tensor.inputs["big"].tensor_shape.dim, (20, 512), strict=True):
        dim.size = size
    with strict.connect() as (prediction, _):
        holding = prediction.Predict.future(make_request("echo", "hold", path=[str(to_hold).encode()]))
        wait_until(to_hold.exists)
        waiting = [prediction.Predict.future(tensor) for _ in range(3)]
        wait_until(lambda: any(call.done() for call in waiting))
        (refused,) = [call for call in waiting if call.done()]
        assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "200000 are held at most" in refused.details()
        status, answer = strict.ask(":predict", {"signature_name": "echo", "inputs": ["x" * 100_000]})
        assert status == 503
        assert "200000 are held at most" in answer["error"]
        to_hold.unlink()
        assert holding.result(WAIT_SECONDS).outputs
        for call in waiting:
            assert call is refused or call.result(WAIT_SECONDS).outputs
    # All of it is given back: by answers, by refusals and by clients that left.
    for _ in range(5):
        assert strict.ask(":predict", {"signature_name": "echo", "inputs": ["x" * 80_000]})[0] == 200


def test_bodies_that_come_in_are_counted(strict: Server) -> None:
    head = POST + b"Content-Length: 150000\r\n\r\n"
    with connect(strict) as first, connect(strict) as second:
        first.sendall(head + b" " * 120_000)
        wait_until(lambda: strict.ask(":predict", b" " * 100_000)[0] == 503)
        second.sendall(head + b" " * 120_000)
        assert second.recv(100).startswith(b"HTTP/1.1 503")
    wait_until(lambda: strict.ask(":predict", b" " * 100_000)[0] == 400)


def test_health(echo: Server) -> None:
    assert echo.ask_path("/healthz") == (200, {"status": "alive"})
    assert echo.ask_path("/readyz") == (200, {"status": "ready"})
