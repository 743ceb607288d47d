"""Versions come, go and break while the server goes on."""

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from tests.faults.table import NoteFault
from tests.preview.server import Server, run_server, write_echo_export
from tests.waiting import WAIT_SECONDS, wait_until
from tfmlm.errors import UserError
from tfmlm.preview.options import ServeOptions
from tfmlm.preview.status import ServingError
from tfmlm.preview.versions import ModelSpec, State, Versions


@pytest.fixture(scope="module")
def versions_to_copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Versions 1 to 4 multiply by their number."""
    folder = tmp_path_factory.mktemp("versions") / "echo"
    for number in range(1, 5):
        write_echo_export(folder / str(number), factor=number)
    return folder


def put(source: Path, folder: Path, number: int) -> Path:
    """Copies a version so that it appears whole."""
    shutil.copytree(source / str(number), folder / ".copy")
    return (folder / ".copy").rename(folder / str(number))


@pytest.fixture
def folder(tmp_path: Path, versions_to_copy: Path) -> Path:
    (tmp_path / "echo").mkdir()
    put(versions_to_copy, tmp_path / "echo", 1)
    return tmp_path / "echo"


@pytest.fixture
def versions(folder: Path) -> Iterator[Versions]:
    yield (watched := Versions(folder, ServeOptions(name="echo", labels={"first": 1}, poll_seconds=600)))
    watched.stop_taking()


def multiply(server: Server, target: str = "") -> float:
    status, answer = server.ask(f"{target}:predict", {"instances": [0.5]})
    assert status == 200, answer
    return answer["predictions"][0] * 2


def states(server: Server) -> dict[str, str]:
    _, answer = server.ask("")
    return {item["version"]: item["state"] for item in answer["model_version_status"]}


@pytest.mark.fault
def test_a_process_picks_up_refuses_and_unloads_while_it_answers(
    folder: Path, versions_to_copy: Path, note_fault: NoteFault
) -> None:
    with run_server(folder, "--keep-versions", "1", "--label", "first=1") as server:
        wrong: list[object] = []
        is_done = threading.Event()

        def keep_asking() -> None:
            while not is_done.is_set():
                status, answer = server.ask(":predict", {"instances": [0.5]})
                if status != 200:
                    wrong.append(answer)

        asking = threading.Thread(target=keep_asking)
        asking.start()
        assert multiply(server) == 1
        put(versions_to_copy, folder, 2)
        wait_until(lambda: multiply(server) == 2)
        assert multiply(server, "/labels/first") == multiply(server, "/versions/1") == 1

        (folder / "3").mkdir()
        (folder / "3" / "saved_model.pb").write_bytes(b"\x00broken")
        wait_until(lambda: states(server).get("3") == "END")
        _, answer = server.ask("/versions/3")
        (status,) = answer["model_version_status"]
        assert status["status"]["error_code"] == "UNKNOWN"
        assert status["status"]["error_message"]
        assert multiply(server) == 2
        assert server.ask("/versions/3:predict", {"instances": [0.5]})[0] == 404

        put(versions_to_copy, folder, 4)
        wait_until(lambda: multiply(server) == 4)
        wait_until(lambda: states(server).get("2") == "END")
        shutil.rmtree(folder / "4")
        wait_until(lambda: multiply(server) == 2)  # it is the newest that is left
        is_done.set()
        asking.join()
        assert wrong == []
        (line,) = [
            line for line in server.log.read_text(encoding="utf-8").splitlines() if "refused: " in line
        ]
        assert "version 3 refused: " in line
        assert server.stop() == 0
    note_fault("the preview server is given a broken version", None, line)


def test_a_version_in_use_is_unloaded_after_its_request(
    versions: Versions, folder: Path, versions_to_copy: Path
) -> None:
    versions.start()
    for number in (2, 3):
        put(versions_to_copy, folder, number)
    versions.poll()
    assert versions.list_numbers() == [3, 2, 1]  # two to keep, and the one with a label
    put(versions_to_copy, folder, 4)
    with versions.lease(ModelSpec("echo", version=2)) as held:
        polling = threading.Thread(target=versions.poll)
        polling.start()
        wait_until(lambda: versions.list_numbers() == [4, 3, 1])
        (status,) = versions.list_statuses(ModelSpec("echo", version=2))
        assert status.state is State.UNLOADING
        signature = held.servable.signatures["serving_default"]
        inputs = {"seconds": np.full(1, 0.5, np.float32)}
        assert held.batcher.submit(signature, inputs).result(WAIT_SECONDS)["slept"].tolist() == [1.0]
        with pytest.raises(ServingError, match=r"Servable not found for request: Specific\(echo, 2\)"):
            versions.lease(ModelSpec("echo", version=2)).__enter__()
        assert polling.is_alive()
    polling.join(WAIT_SECONDS)
    (status,) = versions.list_statuses(ModelSpec("echo", version=2))
    assert status.state is State.END


def test_a_mended_version_is_tried_again_and_a_broken_one_is_not(
    versions: Versions, folder: Path, versions_to_copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    versions.start()
    put(versions_to_copy, folder, 2)
    variables = folder / "2" / "saved_model.pb"
    whole = variables.read_bytes()
    variables.write_bytes(whole[: len(whole) // 2])
    for _ in range(3):
        versions.poll()
    assert versions.list_numbers() == [1]
    assert caplog.text.count("version 2 refused") == 1
    variables.write_bytes(whole)
    versions.poll()
    assert versions.list_numbers() == [2, 1]


def test_the_last_version_stays_when_all_folders_are_gone(versions: Versions, folder: Path) -> None:
    versions.start()
    shutil.rmtree(folder / "1")
    versions.poll()
    assert versions.list_numbers() == [1]
    folder.rename(folder.with_name("elsewhere"))
    versions.poll()
    with versions.lease(ModelSpec("echo", label="first")) as version:
        assert version.servable.number == 1


def write_warmup(version: Path, seconds: list[float], signature: str = "") -> None:
    request = predict_pb2.PredictRequest()
    request.model_spec.signature_name = signature
    request.inputs["seconds"].CopyFrom(tf.make_tensor_proto(seconds, tf.float32))
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.CopyFrom(request)
    extra = version / "assets.extra"
    extra.mkdir()
    with tf.io.TFRecordWriter(str(extra / "tf_serving_warmup_requests")) as writer:
        writer.write(log.SerializeToString())


def test_warmup_requests_are_run_before_a_version_is_served(
    versions: Versions, folder: Path, versions_to_copy: Path
) -> None:
    versions.start()
    write_warmup(put(versions_to_copy, folder, 2), [0.5])
    start = time.monotonic()
    versions.poll()
    assert time.monotonic() - start > 0.5  # the request sleeps as long
    write_warmup(put(versions_to_copy, folder, 3), [[0.5]])  # not the shape that the signature takes
    versions.poll()
    assert versions.list_numbers() == [2, 1]
    (status,) = versions.list_statuses(ModelSpec("echo", version=3))
    assert "has shape [1,1], expected [?]" in status.error
    write_warmup(put(versions_to_copy, folder, 4), [0.5], "zzz")
    versions.poll()
    (status,) = versions.list_statuses(ModelSpec("echo", version=4))
    assert status.error.startswith(
        "a request in assets.extra/tf_serving_warmup_requests of version 4 is refused: "
        "there is no signature 'zzz', only constant, echo, "
    )


@pytest.mark.parametrize("name", [str(2**63), "9" * 20, "9" * 200])
def test_a_number_beyond_64_bits_is_no_version(
    versions: Versions, folder: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    (folder / name).mkdir()
    (folder / name / "saved_model.pb").write_bytes((folder / "1" / "saved_model.pb").read_bytes())
    versions.start()
    versions.poll()
    versions.poll()
    assert versions.list_numbers() == [1]
    with versions.lease(ModelSpec("echo")) as version:
        assert version.servable.number == 1
    (line,) = [each for each in caplog.messages if "is no version" in each]
    assert line == f"{folder / name} is no version: its number is larger than {2**63 - 1}"


def test_no_version_and_a_label_without_one_are_refused(tmp_path: Path, folder: Path) -> None:
    for name in ("01", "x", "7"):
        (tmp_path / "empty" / name).mkdir(parents=True)
    with pytest.raises(UserError, match="has no version"):
        Versions(tmp_path / "empty", ServeOptions()).start()
    with pytest.raises(UserError, match="--label new=3 names no version that loads; there are 1"):
        Versions(folder, ServeOptions(labels={"new": 3})).start()


def test_stopping_refuses_new_requests(versions: Versions) -> None:
    versions.start()
    versions.stop_taking()
    with pytest.raises(ServingError, match="the server is stopping"):
        versions.lease(ModelSpec("echo")).__enter__()
