"""Failures of the Hub that pass are tried again; after others a later push finishes the rest."""

import signal
import time
from email.utils import formatdate
from pathlib import Path
from threading import Event

import pytest

from tests.faults.table import NoteFault
from tests.folders import read_folder
from tests.hub.pushed_model import COMMIT, NO_HUB, run_tfmlm, start_tfmlm, write_model
from tests.hub.server import Fault, HubServer
from tests.waiting import WAIT_SECONDS

STORAGE = r"^PUT /lfs/"
FEW_SECONDS = "hub.retry_seconds=4"


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


# === Failures that pass are tried again ===


@pytest.mark.parametrize(
    ("pattern", "fault"),
    [
        (COMMIT, {"status": 409, "message": "A commit is in progress"}),
        (COMMIT, {"status": 412}),
        (COMMIT, {"status": 503}),
        (COMMIT, {"cut_after": 100}),
        (STORAGE, {"status": 500}),
        (STORAGE, {"status": 403, "message": "Request has expired"}),
        (STORAGE, {"status": 429}),
        (STORAGE, {"cut_after": 200_000}),
        ("^POST .*/preupload/", {"status": 504}),
        ("^POST .*/preupload/", {"cut_after": 0}),
        ("^POST .*/objects/batch", {"status": 502}),
        ("^POST /api/repos/create", {"status": 500}),
        ("^POST /api/validate-yaml", {"status": 500}),
    ],
)
def test_what_passes_is_tried_again(
    pattern: str, fault: dict[str, object], hub: HubServer, model_dir: Path
) -> None:
    hub.faults.append(Fault(pattern, times=1, **fault))
    done = run_tfmlm(hub, "push", model_dir)
    assert done.returncode == 0, done.stderr
    assert hub.faults[0].met == 1
    assert hub.repositories["me/mine"].files() == read_folder(model_dir)


@pytest.mark.parametrize("by_date", [False, True])
def test_it_waits_as_long_as_the_hub_asks(by_date: bool, hub: HubServer, model_dir: Path) -> None:
    asked = formatdate(time.time() + 12, usegmt=True) if by_date else "3"
    hub.faults.append(Fault(COMMIT, times=1, status=429, headers={"Retry-After": asked}))
    done = run_tfmlm(hub, "push", model_dir)
    assert done.returncode == 0, done.stderr
    assert "429" in done.stderr
    assert "trying again in" in done.stderr
    commits = [when for what, when in zip(hub.requests, hub.arrived, strict=True) if "/commit/" in what]
    assert len(commits) == 2
    assert commits[1] - commits[0] >= 3  # without being asked it would be 1


def test_a_longer_wait_than_allowed_is_reported(hub: HubServer, model_dir: Path) -> None:
    hub.faults.append(Fault(COMMIT, status=429, headers={"Retry-After": "600"}))
    done = run_tfmlm(hub, "push", model_dir)
    assert done.returncode == 2
    assert "429" in done.stderr.splitlines()[-1]
    assert hub.faults[0].met == 1


@pytest.mark.fault
def test_a_hub_that_does_not_answer_is_given_up(
    hub: HubServer, model_dir: Path, note_fault: NoteFault
) -> None:
    hub.faults.append(Fault(COMMIT, times=1, seconds=5))
    done = run_tfmlm(hub, "push", model_dir, "hub.timeout_seconds=1")
    assert done.returncode == 0, done.stderr
    assert "trying again" in done.stderr
    assert hub.count(COMMIT) == 2
    note_fault("the Hub is slow", done.returncode, done.stderr.splitlines()[0])


def test_a_push_that_is_told_to_end_says_what_is_not_done(hub: HubServer, model_dir: Path) -> None:
    hub.faults.append(Fault(COMMIT, hold=Event()))
    process = start_tfmlm(hub, "push", model_dir)
    hub.wait_for(COMMIT)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 2, error
    assert "interrupted; the model is safe on disk and not on the Hub" in error.splitlines()[-1]
    assert f"`tfmlm push {model_dir}` tries again" in error.splitlines()[-1]


# === Others are reported, and a later push finishes the rest ===


@pytest.mark.parametrize("status", [400, 401, pytest.param(403, marks=pytest.mark.fault), 404])
@pytest.mark.parametrize("pattern", ["^POST /api/repos/create", COMMIT])
def test_a_refusal_is_one_line_with_the_command_to_try_again(
    status: int, pattern: str, hub: HubServer, model_dir: Path, note_fault: NoteFault
) -> None:
    hub.faults.append(Fault(pattern, status=status, message="no, {token} may not"))
    before = read_folder(model_dir)
    done = run_tfmlm(hub, "push", model_dir, FEW_SECONDS)
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert f"push of {str(model_dir)!r} to 'me/mine' failed: {status}" in last
    assert f"`tfmlm push {model_dir} {FEW_SECONDS}` tries again" in last
    assert len(done.stderr.splitlines()) == 1
    assert hub.faults[0].met == 1
    assert read_folder(model_dir) == before
    note_fault(
        f"the Hub refuses {pattern.split('/')[-2 if pattern == COMMIT else -1]}", done.returncode, last
    )

    hub.faults.clear()
    done = run_tfmlm(hub, "push", model_dir)
    assert done.returncode == 0, done.stderr
    assert hub.repositories["me/mine"].files() == before
    assert len(hub.uploads) == 1  # what had arrived was not sent again


@pytest.mark.parametrize(
    ("pattern", "fault"),
    [
        (COMMIT, {"status": 409}),
        (COMMIT, {"status": 500}),
        (COMMIT, {"status": 429, "headers": {"Retry-After": "1"}}),
        (COMMIT, {"cut_after": 10}),
    ],
)
def test_what_does_not_pass_in_time_is_finished_by_a_later_push(
    pattern: str, fault: dict[str, object], hub: HubServer, model_dir: Path
) -> None:
    hub.faults.append(Fault(pattern, **fault))
    done = run_tfmlm(hub, "push", model_dir, "hub.retry_seconds=1")
    assert done.returncode == 2
    assert f"`tfmlm push {model_dir} hub.retry_seconds=1` tries again" in done.stderr.splitlines()[-1]
    assert hub.faults[0].met == 2

    hub.faults.clear()
    done = run_tfmlm(hub, "push", model_dir)
    assert done.returncode == 0, done.stderr
    assert hub.repositories["me/mine"].files() == read_folder(model_dir)
    assert len(hub.uploads) == 1


@pytest.mark.fault
def test_no_hub_at_all(model_dir: Path, note_fault: NoteFault) -> None:
    done = run_tfmlm(NO_HUB, "push", model_dir, "hub.retry_seconds=1")
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert len(lines) == 2
    assert "trying again in 1 s" in lines[0]
    assert f"`tfmlm push {model_dir} hub.retry_seconds=1` tries again" in lines[1]
    note_fault("the Hub is down", done.returncode, lines[1])
