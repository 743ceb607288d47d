"""What may pass is asked again until the deadline; every other fault of a server ends in one line."""

import json
import socket
import time

import grpc
import pytest

from tests.client.peer import (
    GRPC_BUSY,
    QUICK,
    REST_BUSY,
    TEXTS,
    Connect,
    Fault,
    Peer,
    ServedModel,
    fail,
    serve_grpc,
    serve_rest,
)
from tests.waiting import WAIT_SECONDS
from tfmlm.client.client import FilledText, FillMaskClient
from tfmlm.errors import UserError

FAR_BELOW = 0.9 * QUICK["timeout_seconds"]
"""Seconds, for what must end long before the client's own allowance."""


def test_what_may_pass_is_asked_again(url: str, connect: Connect, peer: Peer) -> None:
    busy = REST_BUSY if url.startswith("http") else GRPC_BUSY
    peer.faults += [busy, busy]
    assert len(connect(url).fill(TEXTS)) == 3
    assert len(peer.requests) == 3


@pytest.mark.parametrize("seconds", [1e-12, 1e-3, 1e300])
def test_any_wait_that_is_allowed_goes_over_grpc(seconds: float, rpc: Peer, connect: Connect) -> None:
    rpc.faults += [GRPC_BUSY] * (seconds < 1)
    client = connect(
        f"grpc://localhost:{rpc.port}/tiny", backoff_seconds=seconds, max_backoff_seconds=seconds
    )
    assert len(client.fill(TEXTS)) == 3
    assert len(rpc.requests) == 1 + (seconds < 1)


def test_a_server_that_stays_busy_is_given_up(url: str, connect: Connect, peer: Peer) -> None:
    peer.faults += [REST_BUSY if url.startswith("http") else GRPC_BUSY] * 9
    assert "not ready" in fail(connect(url, max_attempts=3))
    assert len(peer.requests) == 3
    assert "not ready" in fail(connect(url, max_attempts=1))
    assert len(peer.requests) == 4


@pytest.mark.parametrize(
    ("status", "code", "says"),
    [
        (400, grpc.StatusCode.INVALID_ARGUMENT, "--tokenizer FOLDER"),
        (404, grpc.StatusCode.NOT_FOUND, "check the model's name and version"),
        (401, grpc.StatusCode.UNAUTHENTICATED, "TFMLM_SERVING_TOKEN"),
        (500, grpc.StatusCode.INTERNAL, "the server's log"),
        (413, grpc.StatusCode.OUT_OF_RANGE, ""),
        (501, grpc.StatusCode.UNIMPLEMENTED, ""),
    ],
)
def test_what_stays_wrong_is_asked_once(
    url: str, connect: Connect, peer: Peer, status: int, code: grpc.StatusCode, says: str
) -> None:
    said = "no\nsuch thing"
    is_rest = url.startswith("http")
    peer.faults += [Fault(status, json.dumps({"error": said})) if is_rest else Fault(code, said)] * 2
    message = fail(connect(url))
    assert message.startswith(f"{url} answered {f'HTTP {status}' if is_rest else code.name}: no such thing; ")
    assert says in message
    assert len(peer.requests) == 1


@pytest.mark.parametrize(
    "details",
    [
        "SERVER: Received message larger than max (24052 vs. 20000)",
        "Received message larger than max (24052 vs. 20000)",
        "CLIENT: Sent message larger than max (24052 vs. 20000)",
        "Stream removed (received metadata size exceeds hard limit (value length 200037 vs. 16384))",
    ],
)
def test_what_is_too_large_is_asked_once(rpc: Peer, connect: Connect, details: str) -> None:
    """gRPC has the same code for it as for a server that is busy."""
    rpc.faults += [Fault(grpc.StatusCode.RESOURCE_EXHAUSTED, details)] * 9
    message = fail(connect(f"grpc://localhost:{rpc.port}/tiny"))
    assert message.endswith("send fewer texts in a request (--texts-per-request)")
    assert len(rpc.requests) == 1


@pytest.mark.parametrize(
    "details", ["3 requests are waiting; try again later", "Concurrent RPC limit exceeded!"]
)
def test_a_full_queue_is_asked_again(rpc: Peer, connect: Connect, details: str) -> None:
    rpc.faults += [Fault(grpc.StatusCode.RESOURCE_EXHAUSTED, details)] * 2
    assert len(connect(f"grpc://localhost:{rpc.port}/tiny").fill(TEXTS)) == 3
    assert len(rpc.requests) == 3


def test_a_deadline_of_the_server_is_asked_once(url: str, connect: Connect, peer: Peer) -> None:
    is_rest = url.startswith("http")
    said = "the answer was not ready within 1 s"
    peer.faults += [
        Fault(504, json.dumps({"error": said})) if is_rest else Fault(grpc.StatusCode.DEADLINE_EXCEEDED, said)
    ] * 9
    assert ("--max-seconds" if is_rest else "did not answer within") in fail(connect(url))
    assert len(peer.requests) == 1


def test_a_label_that_there_is_not_is_not_blamed_on_the_tokenizer(
    url: str, connect: Connect, peer: Peer
) -> None:
    said = "Unrecognized servable version label: zz"
    peer.faults += [
        Fault(400, json.dumps({"error": said}))
        if url.startswith("http")
        else Fault(grpc.StatusCode.INVALID_ARGUMENT, said)
    ]
    message = fail(connect(f"{url}/labels/zz"))
    assert "check the label in the URL" in message
    assert "--tokenizer" not in message


@pytest.mark.parametrize("max_attempts", [1, 4])
def test_a_server_that_never_answers_costs_no_more_than_the_deadline(
    url: str, connect: Connect, peer: Peer, max_attempts: int
) -> None:
    peer.faults += [Fault("silent")] * 9
    start = time.monotonic()
    assert "did not answer within 0.5 s" in fail(connect(url, timeout_seconds=0.5, max_attempts=max_attempts))
    assert 0.4 < time.monotonic() - start < FAR_BELOW
    assert len(peer.requests) == 1


def test_a_server_that_drips_costs_no_more_than_the_deadline(rest: Peer, connect: Connect) -> None:
    rest.faults += [Fault("drip")]
    start = time.monotonic()
    client = connect(f"http://localhost:{rest.port}/v1/models/tiny", timeout_seconds=0.5)
    assert "did not answer within 0.5 s" in fail(client)
    assert time.monotonic() - start < FAR_BELOW


def test_the_deadline_holds_for_all_batches_together(url: str, connect: Connect, peer: Peer) -> None:
    connect(url, texts_per_request=1).fill(TEXTS)
    client = connect(url, timeout_seconds=1.0, texts_per_request=1)
    peer.faults += [Fault("silent")]
    start = time.monotonic()
    assert "within 1 s" in fail(client)
    assert time.monotonic() - start < FAR_BELOW
    assert len(peer.requests) == 4


def test_a_servers_wish_to_wait_is_granted(rest: Peer, connect: Connect) -> None:
    url = f"http://localhost:{rest.port}/v1/models/tiny"
    rest.faults += [Fault(429, "", {"Retry_After": "1"})]
    start = time.monotonic()
    assert len(connect(url).fill(TEXTS)) == 3
    assert time.monotonic() - start >= 1.0
    rest.faults += [Fault(429, "", {"Retry_After": "nonsense"})]
    assert len(connect(url).fill(TEXTS)) == 3


def test_a_wish_to_wait_beyond_the_deadline_ends_at_once(rest: Peer, connect: Connect) -> None:
    rest.faults += [Fault(503, "", {"Retry_After": "3600"})]
    start = time.monotonic()
    assert "HTTP 503; the server is busy" in fail(connect(f"http://localhost:{rest.port}/v1/models/tiny"))
    assert time.monotonic() - start < FAR_BELOW
    assert len(rest.requests) == 1


def test_a_cut_connection_is_opened_again(rest: Peer, connect: Connect) -> None:
    client = connect(f"http://localhost:{rest.port}/v1/models/tiny")
    rest.faults += [Fault("cut"), Fault("cut")]
    assert len(client.fill(TEXTS)) == 3
    assert len(rest.requests) == 3
    rest.faults += [Fault("cut")] * 9
    assert fail(client).startswith("cannot reach http://localhost:")


def test_a_server_that_comes_back_is_found(connect: Connect, model: ServedModel) -> None:
    for serve, form in (
        (serve_grpc, "grpc://127.0.0.1:{}/tiny"),
        (serve_rest, "http://127.0.0.1:{}/v1/models/tiny"),
    ):
        with serve(model) as first:
            client = connect(form.format(first.port))
            assert len(client.fill(TEXTS)) == 3
        assert "cannot reach" in fail(client)
        with serve(model, port=first.port):
            assert len(fill_in_time(client)) == 3


def fill_in_time(client: FillMaskClient) -> list[FilledText]:
    """gRPC waits between its own attempts to connect, longer each time."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            return client.fill(TEXTS)
        except UserError:
            assert time.monotonic() < deadline
            time.sleep(0.2)


@pytest.mark.parametrize("form", ["http://localhost:{}/v1/models/tiny", "grpc://localhost:{}/tiny"])
def test_where_nobody_listens(form: str, connect: Connect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    message = fail(connect(form.format(port)))
    assert message.startswith(f"cannot reach {form.format(port)} (")
    assert "refused" in message
    assert message.endswith("check the address, and that a server runs there")


def test_the_wrong_ports_are_told(rest: Peer, rpc: Peer, connect: Connect) -> None:
    says = {
        f"http://localhost:{rpc.port}/v1/models/tiny": "HTTP; the port of gRPC is written grpc://HOST:PORT/NAME",
        f"grpc://localhost:{rest.port}/tiny": "gRPC; the port of REST is written http://HOST:PORT/v1/models/NAME",
        f"https://localhost:{rest.port}/v1/models/tiny": "TLS; write http://",
        f"grpcs://localhost:{rpc.port}/tiny": "TLS; write grpc://",
    }
    for url, what in says.items():
        assert fail(connect(url)) == f"{url} does not speak {what}"


@pytest.mark.parametrize(
    "answer", ["<html>hello</html>", "[]", '{"predictions": []}', '{"outputs": {"scores": [1]}}']
)
def test_another_service_is_told(rest: Peer, connect: Connect, answer: str) -> None:
    rest.faults += [Fault(200, answer)]
    with pytest.raises(UserError, match=r"something else than TensorFlow|not those of a tfmlm export"):
        connect(f"http://localhost:{rest.port}/v1/models/tiny").fill(TEXTS)
