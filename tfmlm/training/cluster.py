"""The workers of a run: who they are, how they wait for each other, and what they tell each other.

What they compute together goes through the strategy's sums. The rest, a step to go on from or that one of
them ends, goes through the store of keys that TensorFlow's coordination service has, as in
`tf.distribute.experimental.PreemptionCheckpointHandler`; no public method gives it.
"""

from __future__ import annotations

import _thread
import json
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, NamedTuple, TypeVar, cast

import tensorflow as tf
from tensorflow.python.eager import context

from tfmlm.errors import PreemptedError, UserError, WorkerLostError, first_line, reason_of
from tfmlm.signals import renew_handlers

_LOGGER = logging.getLogger(__name__)
_Made = TypeVar("_Made")

# === Who they are, as `TF_CONFIG` says ===


class Cluster(NamedTuple):
    """This process among the workers of a run.

    Attributes:
        addresses: `host:port` of every worker, the chief's first; none without `TF_CONFIG`.
        number: of this worker, from 0; the first is the chief, which alone writes, pushes and exports.
    """

    addresses: tuple[str, ...] = ()
    number: int = 0

    @property
    def num_workers(self) -> int:
        """1 without `TF_CONFIG`."""
        return max(1, len(self.addresses))

    @property
    def is_chief(self) -> bool:
        """True for the first worker, which alone writes."""
        return self.number == 0


def read_cluster() -> Cluster:
    """Reads `TF_CONFIG`, in which the workers are listed under `worker`.

    The first of them is the chief, unless there is a task `chief` of its own, as Vertex AI and Kubeflow have
    it. `TFConfigClusterResolver` reads it too and checks nothing: an index out of range, or a parameter
    server, would be found when the workers wait for each other.

    Raises:
        UserError: it is there and is not of that form.
    """
    text = os.environ.get("TF_CONFIG")
    if not text:
        return Cluster()
    try:
        config = json.loads(text)
        cluster, kind = config["cluster"], config["task"]["type"]
        if not {kind, *cluster} <= {"chief", "worker"}:
            raise ValueError("a task is of another type than chief or worker")
        chiefs, workers = (list(map(str, cluster.get(each, []))) for each in ("chief", "worker"))
        if len(chiefs) > 1:
            raise ValueError(f"there are {len(chiefs)} chiefs")
        index, count = int(config["task"]["index"]), len(chiefs if kind == "chief" else workers)
        if not 0 <= index < count:
            raise ValueError(f"task {index} is none of {count} of type {kind}")
    except (AttributeError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"TF_CONFIG cannot be used ({error}); it must be like "
            '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}'
        ) from error
    return Cluster((*chiefs, *workers), index if kind == "chief" else len(chiefs) + index)


# === How they meet ===


_LOOK_SECONDS = 0.5
"""Between two looks at what is waited for; in between, signals are heeded."""

_LINE_SECONDS = 20.0
"""Between two lines that say for whom this worker waits."""

_CALL_SECONDS = 5.0
"""Without a word from the other side, after which a worker calls again."""

_LONGEST_MESSAGE = 4096
"""Bytes of a line between workers; whoever sends more is none."""

_HAS_MET = threading.Event()
"""The workers of this process's cluster have met; TensorFlow lets a process belong to one only."""


def meet(make: Callable[[], _Made], wait_seconds: float) -> _Made:
    """Waits for all workers, and then makes what connects them, the strategy.

    TensorFlow waits for them too, but without a word and without end, and heeds no signal meanwhile, for it
    keeps Python's lock. So they meet before, at the chief's address, which it is to use afterwards.

    Raises:
        UserError: the chief's port is taken, or two workers have the same number.
        WorkerLostError: not all workers have come.
    """
    cluster = read_cluster()
    if cluster.num_workers > 1:
        receive_workers(cluster, wait_seconds) if cluster.is_chief else call_chief(cluster, wait_seconds)
    # Should one be lost in this very second, the rest would wait for ever: this ends the process (142).
    signal.setitimer(signal.ITIMER_REAL, wait_seconds)
    try:
        made = make()
    except tf.errors.OpError as error:
        raise WorkerLostError(f"the workers cannot connect: {first_line(error)}; start all again") from error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    # TensorFlow's server takes SIGTERM for itself, and only tells the others.
    renew_handlers(signal.SIGTERM)
    if cluster.num_workers > 1:
        _HAS_MET.set()
        for watch in (_watch_end, _watch_signal):
            threading.Thread(target=watch, name="cluster", daemon=True).start()
    return made


def receive_workers(cluster: Cluster, wait_seconds: float) -> None:
    """The chief's part: waits until every worker has called, and lets them go on.

    Each sends `{"number": its own, "of": how many it knows}`, answers `{"absent": numbers}` with the same
    again and again, for it may have died while it waited, and at last gets `{"absent": null}`.

    Raises:
        UserError: the port is taken, or a worker knows another cluster.
        WorkerLostError: not all have come in time.
    """
    port = int(cluster.addresses[0].rpartition(":")[2])
    present: dict[int, socket.socket] = {}
    absent = list(range(1, cluster.num_workers))
    waiting = _Waiting(wait_seconds, "start")
    with ExitStack() as open_sockets:
        try:
            listening = open_sockets.enter_context(socket.create_server(("", port), backlog=128))
        except OSError as error:
            raise UserError(
                f"port {port} of {cluster.addresses[0]!r} in TF_CONFIG cannot be used: {reason_of(error)}"
            ) from error
        listening.settimeout(_LOOK_SECONDS)
        while absent:
            waiting.look(absent)
            with suppress(TimeoutError):
                caller = open_sockets.enter_context(listening.accept()[0])
                _receive_call(caller, cluster, present)
            absent = [number for number in range(1, cluster.num_workers) if number not in present]
            for number, caller in list(present.items()):
                if not _is_alive(caller, absent):
                    del present[number]
                    absent.append(number)
        for caller in present.values():
            _send(caller, {"absent": None})
        for caller in present.values():
            _wait_for_close(caller)  # so that the port is free again


def _receive_call(caller: socket.socket, cluster: Cluster, present: dict[int, socket.socket]) -> None:
    """Notes the worker that calls, if it is one: anybody may call a port."""
    caller.settimeout(_CALL_SECONDS)
    try:
        message = _receive(caller)
        number, count = int(message["number"]), int(message["of"])
    except (OSError, ValueError, TypeError, KeyError):
        return
    if count != cluster.num_workers or not 0 < number < count:
        line = (
            f"worker {number} was started as one of {count}, and the first as one of {cluster.num_workers}; "
            "give all workers the same cluster in TF_CONFIG"
        )
        for each in (caller, *present.values()):
            _send(each, {"error": line})
        raise UserError(line)
    if number in present:  # an answer if it is alive; else this is the same worker, started anew
        line = f"another process is {name_workers([number])} too; give each its own index in TF_CONFIG"
        _send(present[number], {"error": line})
    present[number] = caller


def call_chief(cluster: Cluster, wait_seconds: float) -> None:
    """The other workers' part: calls the chief until it says that all may go on.

    Raises:
        UserError: the chief says what is wrong.
        WorkerLostError: not all have come in time.
    """
    host, _, port = cluster.addresses[0].rpartition(":")
    waiting = _Waiting(wait_seconds, "start")
    while True:
        absent = [0]
        with (
            suppress(OSError, ValueError),
            socket.create_connection((host.strip("[]"), int(port)), timeout=_CALL_SECONDS) as chief,
        ):
            while _send(chief, {"number": cluster.number, "of": cluster.num_workers}):
                answer = _receive(chief)
                if "error" in answer:
                    raise UserError(answer["error"])
                if answer["absent"] is None:
                    return
                absent = [int(number) for number in answer["absent"]]
                waiting.look(absent)
        waiting.look(absent)
        time.sleep(_LOOK_SECONDS)


def _is_alive(caller: socket.socket, absent: list[int]) -> bool:
    """Tells a worker for whom it waits, and takes its answer."""
    with suppress(OSError, ValueError):
        return _send(caller, {"absent": absent}) and "number" in _receive(caller)
    return False


def _send(receiver: socket.socket, message: dict[str, Any]) -> bool:
    """False if nobody is there any more."""
    try:
        receiver.sendall(json.dumps(message).encode() + b"\n")
    except OSError:
        return False
    return True


def _receive(sender: socket.socket) -> dict[str, Any]:
    """The next line, which is sent and comes as a whole."""
    line = b""
    while not line.endswith(b"\n"):
        byte = sender.recv(1)
        if not byte or len(line) > _LONGEST_MESSAGE:
            raise ValueError("no line")
        line += byte
    return cast(dict[str, Any], json.loads(line))


def _wait_for_close(caller: socket.socket) -> None:
    with suppress(OSError):
        while caller.recv(_LONGEST_MESSAGE):
            pass


class _Waiting:
    """Says now and then for whom this worker waits, and gives up in the end."""

    def __init__(self, wait_seconds: float, what: str) -> None:
        self._started = self._said = time.monotonic()
        self._wait_seconds = wait_seconds
        self._what = what

    def look(self, absent: list[int]) -> None:
        """Comes between two looks at whether these workers have come."""
        now = time.monotonic()
        if absent and now - self._started > self._wait_seconds:
            raise WorkerLostError(
                f"{name_workers(absent)} did not {self._what} within distribute.wait_seconds "
                f"({self._wait_seconds:g}); start all workers, and let each reach the addresses in TF_CONFIG"
            )
        if absent and now - self._said >= _LINE_SECONDS:
            self._said = now
            _LOGGER.info("waiting for %s to %s", name_workers(absent), self._what)


def name_workers(numbers: list[int]) -> str:
    """The workers of these numbers with their addresses, for people."""
    addresses = read_cluster().addresses
    return " and ".join(f"worker {number} ({addresses[number]})" for number in numbers)


# === What they tell each other ===


def gather(name: str, value: Any, wait_seconds: float) -> list[Any]:
    """Gives every worker what each of them has given under a name, in the order of the workers.

    Args:
        name: used once a run.
        value: what JSON can hold.
        wait_seconds: how long to wait for the others.

    Raises:
        WorkerLostError: one has ended, or does not come.
    """
    cluster = read_cluster()
    if cluster.num_workers == 1:
        return [value]
    _publish(f"{name}/{cluster.number}", value)
    waiting = _Waiting(wait_seconds, "get as far as this one")
    return [_wait_for(name, number, waiting) for number in range(cluster.num_workers)]


def _wait_for(name: str, number: int, waiting: _Waiting) -> Any:
    while True:
        try:
            # Before its end is looked at: it may have ended for what this worker will see in the values too.
            return _read(f"{name}/{number}", _LOOK_SECONDS)
        except tf.errors.DeadlineExceededError:
            if _END.line:
                raise WorkerLostError(_END.line) from None
            waiting.look([number])
        except tf.errors.OpError as error:
            raise WorkerLostError(_END.line or _GONE) from error


def wait_for_chief() -> None:
    """Returns when the chief has finished the run: until then it may need all workers to begin again.

    Raises:
        WorkerLostError: it has ended otherwise.
    """
    if read_cluster().num_workers > 1:
        while not _END.has_come.wait(_LOOK_SECONDS):
            pass
        if _END.line:
            raise WorkerLostError(_END.line)


@contextmanager
def telling_how_it_ends() -> Iterator[None]:
    """Lets the other workers know at once how the block ends in this one.

    Where this one is told to end, so are they; where it fails, what they compute together fails too.
    """
    try:
        yield
    except PreemptedError:
        _tell({"kind": "told"})
        raise
    except BaseException as error:
        _tell({"kind": "failed", "line": first_line(error)})
        if _HAS_MET.is_set():
            with suppress(tf.errors.OpError):
                context.context().report_error_to_cluster(tf.errors.UNAVAILABLE, first_line(error))
        raise
    if read_cluster().is_chief:
        _tell({"kind": "finished"})


def _tell(how: dict[str, str]) -> None:
    if _HAS_MET.is_set():
        with suppress(tf.errors.OpError):  # another one was first, or the chief is gone
            _publish(_END_KEY, {"worker": read_cluster().number} | how)


_END_KEY = "end"
_GONE = "another worker of this run is gone; start all of them again to go on from the last checkpoint"


class _End:
    """How another worker has ended the run.

    Attributes:
        has_come: it has ended.
        line: why; empty where the run is finished.
    """

    def __init__(self) -> None:
        self.has_come = threading.Event()
        self.line = ""

    def set(self, line: str) -> None:
        """Says so to whoever waits."""
        self.line = line
        self.has_come.set()


_END = _End()


def _watch_end() -> None:
    """Waits for one of the workers to end, and passes it on."""
    try:
        end = _read(_END_KEY)
    except tf.errors.OpError:
        _END.set(_GONE)
        return
    if end["worker"] == read_cluster().number:
        return
    if end["kind"] == "told":
        # As if this process had the signal itself.
        _thread.interrupt_main(signal.SIGTERM)
    elif end["kind"] == "failed":
        _END.set(f"{name_workers([end['worker']])} has ended: {end['line']}")
    else:
        _END.set("")


def _watch_signal() -> None:
    """Passes on what TensorFlow has taken: SIGTERM at any worker, between its taking and our renewing."""
    with suppress(tf.errors.OpError):
        context.context().get_config_key_value("TF_DEFAULT_PREEMPTION_NOTICE_KEY")
        _thread.interrupt_main(signal.SIGTERM)


def _publish(name: str, value: Any) -> None:
    context.context().set_config_key_value(f"tfmlm/{name}", json.dumps(value))


def _read(name: str, wait_seconds: float = 0.0) -> Any:
    """Waits for a value; without end if no seconds are given."""
    store = context.context()
    return json.loads(store.get_config_key_value(f"tfmlm/{name}", round(1000 * wait_seconds)))


@contextmanager
def explained_worker_loss() -> Iterator[None]:
    """Where another worker has ended, what TensorFlow raises here is because of that."""
    try:
        yield
    except Exception as error:
        if not _HAS_MET.is_set() or not any(isinstance(each, tf.errors.OpError) for each in _causes(error)):
            raise
        _END.has_come.wait(_LOOK_SECONDS)  # who ended has said so at the same time
        if not _END.line and not any(isinstance(each, _LOSSES) for each in _causes(error)):
            raise
        raise WorkerLostError(_END.line or _GONE) from error


_LOSSES = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.InternalError,
    tf.errors.DeadlineExceededError,
)
"""Raised by sums and broadcasts whose partner is gone."""


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, what it was raised from, and so on."""
    while error:
        yield error
        error = error.__cause__
