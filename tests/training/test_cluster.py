"""How workers find each other: `TF_CONFIG`, and the call at the chief's address, with real sockets."""

import json
import logging
import socket
import time
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import pytest

from tests.tiny_run import name_workers as make_environments
from tests.waiting import WAIT_SECONDS, wait_until
from tfmlm.errors import UserError, WorkerLostError
from tfmlm.training import cluster as cluster_module
from tfmlm.training.cluster import Cluster, call_chief, gather, meet, read_cluster, receive_workers

# === TF_CONFIG ===


def test_without_it_this_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert read_cluster() == Cluster()
    assert read_cluster().num_workers == 1
    assert read_cluster().is_chief


def test_the_first_worker_is_the_chief(monkeypatch: pytest.MonkeyPatch) -> None:
    for number, environment in enumerate(make_environments(3)):
        monkeypatch.setenv("TF_CONFIG", environment["TF_CONFIG"])
        addresses = json.loads(environment["TF_CONFIG"])["cluster"]["worker"]
        assert read_cluster() == Cluster(tuple(addresses), number)
        assert read_cluster().is_chief == (number == 0)


def test_a_task_chief_comes_before_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Vertex AI and Kubeflow name it."""
    cluster = {"chief": ["a:1"], "worker": ["b:1", "c:1"]}
    for number, (kind, index) in enumerate([("chief", 0), ("worker", 0), ("worker", 1)]):
        task = {"type": kind, "index": index}
        monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": task}))
        assert read_cluster() == Cluster(("a:1", "b:1", "c:1"), number)
        assert read_cluster().is_chief == (kind == "chief")


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "ps", "index": 0}}',
        '{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": "first"}}',
        '{"cluster": ["worker"], "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"chief": ["a:1", "b:1"], "worker": ["c:1"]}, "task": {"type": "chief", "index": 0}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "chief", "index": 0}}',
        '{"cluster": {"chief": ["a:1"], "worker": ["b:1"]}, "task": {"type": "worker", "index": 1}}',
    ],
)
def test_a_wrong_one_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UserError, match=r"TF_CONFIG cannot be used .* it must be like"):
        read_cluster()


# === The call ===


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> list[Cluster]:
    """Four, on free ports of this machine; the lines about waiting come at once."""
    monkeypatch.setattr(cluster_module, "_LOOK_SECONDS", 0.02)
    monkeypatch.setattr(cluster_module, "_LINE_SECONDS", 0.1)
    clusters = []
    for environment in make_environments(4):
        monkeypatch.setenv("TF_CONFIG", environment["TF_CONFIG"])
        clusters.append(read_cluster())
    return clusters


def start_meeting(
    pool: ThreadPoolExecutor, worker: Cluster, wait_seconds: float = WAIT_SECONDS
) -> Future[None]:
    return pool.submit(receive_workers if worker.is_chief else call_chief, worker, wait_seconds)


def call(worker: Cluster) -> socket.socket:
    """A call by hand, when the chief is there."""
    host, port = worker.addresses[0].split(":")
    calls: list[socket.socket] = []

    def connect() -> bool:
        try:
            calls.append(socket.create_connection((host, int(port)), timeout=WAIT_SECONDS))
        except OSError:
            return False
        return True

    wait_until(connect)
    return calls[0]


def say(caller: socket.socket, number: int, count: int = 4) -> None:
    caller.sendall(json.dumps({"number": number, "of": count}).encode() + b"\n")


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)])
def test_workers_meet_in_whatever_order_they_start(order: tuple[int, ...], workers: list[Cluster]) -> None:
    with ThreadPoolExecutor(4) as pool:
        started = []
        for number in order:
            assert not any(each.done() for each in started)
            started.append(start_meeting(pool, workers[number]))
            time.sleep(0.1)
        for each in started:
            each.result(WAIT_SECONDS)
    # The port is TensorFlow's now.
    port = int(workers[0].addresses[0].split(":")[1])
    socket.create_server(("", port)).close()


def test_strangers_and_workers_that_die_while_they_wait_do_no_harm(workers: list[Cluster]) -> None:
    with ThreadPoolExecutor(4) as pool:
        chief = start_meeting(pool, workers[0])
        others = [start_meeting(pool, workers[1])]
        messages = [b"GET / HTTP/1.1\r\n\r\n", b"[1]\n", b'{"number": "x", "of": 4}\n', b"\xff" * 9000, b""]
        for message in messages:
            with call(workers[0]) as stranger:
                stranger.sendall(message)
        with call(workers[0]) as dying:
            say(dying, 3)
            dying.recv(1)
        others.append(start_meeting(pool, workers[2]))
        time.sleep(0.2)
        assert not chief.done()
        for each in (chief, *others, start_meeting(pool, workers[3])):
            each.result(WAIT_SECONDS)


def test_who_is_waited_for_is_said_and_after_a_time_the_wait_is_over(
    workers: list[Cluster], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="tfmlm")
    absent = f"worker 1 ({workers[0].addresses[1]}) and worker 3 ({workers[0].addresses[3]})"
    with ThreadPoolExecutor(4) as pool:
        chief, other = start_meeting(pool, workers[0], 1.0), start_meeting(pool, workers[2], 3.0)
        with pytest.raises(WorkerLostError) as of_chief:
            chief.result(WAIT_SECONDS)
        with pytest.raises(WorkerLostError) as of_other:
            other.result(WAIT_SECONDS)
    assert str(of_chief.value).startswith(f"{absent} did not start within distribute.wait_seconds (1)")
    assert str(of_other.value).startswith(f"worker 0 ({workers[0].addresses[0]}) did not start within")
    assert f"waiting for {absent} to start" in caplog.text


def test_a_missing_chief_is_named(workers: list[Cluster]) -> None:
    with pytest.raises(WorkerLostError, match=rf"worker 0 \({workers[0].addresses[0]}\) did not start"):
        call_chief(workers[1], 0.2)


def test_two_processes_of_one_number_are_told_apart(workers: list[Cluster]) -> None:
    with ThreadPoolExecutor(4) as pool:
        chief = start_meeting(pool, workers[0])
        with call(workers[0]) as caller:
            say(caller, 2)
            caller.recv(1)
            others = [start_meeting(pool, workers[2])]
            answers = b""
            while b"too" not in answers:
                say(caller, 2)
                answers += caller.recv(4096)
        others += [start_meeting(pool, workers[number]) for number in (1, 3)]
        for each in (chief, *others):
            each.result(WAIT_SECONDS)
    assert f"another process is worker 2 ({workers[0].addresses[2]}) too" in answers.decode()


@pytest.mark.parametrize(("number", "count"), [(1, 3), (3, 5), (0, 4), (4, 4), (-1, 4)])
def test_another_cluster_is_refused_at_both_ends(number: int, count: int, workers: list[Cluster]) -> None:
    with ThreadPoolExecutor(4) as pool:
        chief = start_meeting(pool, workers[0])
        with call(workers[0]) as right, call(workers[0]) as wrong:
            say(right, 1)
            right.recv(1)
            say(wrong, number, count)
            say(right, 1)
            with pytest.raises(UserError, match="give all workers the same cluster in TF_CONFIG"):
                chief.result(WAIT_SECONDS)
            for caller in (right, wrong):
                assert b"give all workers the same cluster" in b"".join(iter(partial(caller.recv, 4096), b""))


def test_a_port_that_is_taken_is_named(workers: list[Cluster]) -> None:
    port = int(workers[0].addresses[0].split(":")[1])
    with (
        socket.create_server(("", port)),
        pytest.raises(UserError, match=f"port {port} of .* cannot be used: Address already in use"),
    ):
        receive_workers(workers[0], 1)


def test_alone_nothing_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert meet(lambda: "made", 1) == "made"
    assert gather("alone", {"step": 3}, 1) == [{"step": 3}]
