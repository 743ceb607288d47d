"""Pushing to a server that speaks the Hub's interface, through the real `huggingface_hub` client."""

import re
import signal
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from threading import Event

import pytest

from tests.faults import NoteFault
from tests.hub_client import assert_no_secret_in, run_tfmlm, start_tfmlm
from tests.hub_server import TOKEN, Fault, HubServer, running_hub
from tfmlm.config import Config, DataConfig, HubConfig, ModelConfig
from tfmlm.config_loading import check_config, dump_config, load_config
from tfmlm.errors import UserError
from tfmlm.hub.push import push_model

COMMIT = r"^POST /api/models/me/mine/commit/main"
STORAGE = r"^PUT /lfs/"
NO_HUB = "http://127.0.0.1:9"
FEW_SECONDS = "hub.retry_seconds=4"


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with running_hub() as server:
        yield server


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    """As much of a trained model as a push looks at."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "README.md").write_text("---\nlibrary_name: transformers\n---\n")
    (folder / "config.json").write_text('{"model_type": "bert"}')
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 4000)
    config = Config(model=ModelConfig(name_or_path="bert"), hub=HubConfig(repo_id="me/mine"))
    (folder / "run_config.yaml").write_text(dump_config(config))
    return folder


def read_folder(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_file_arrives_in_one_commit(hub: HubServer, model_dir: Path) -> None:
    done = run_tfmlm(hub, "push", model_dir)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{hub.url}/me/mine"
    repository = hub.repositories["me/mine"]
    assert repository.private is True
    assert repository.files() == read_folder(model_dir)
    assert len(repository.branches["main"]) == 2  # the Hub's own and ours
    assert hub.authorizations == {f"Bearer {TOKEN}"}


def test_an_unchanged_model_uploads_nothing(hub: HubServer, model_dir: Path) -> None:
    for _ in range(2):
        done = run_tfmlm(hub, "push", model_dir)
        assert done.returncode == 0, done.stderr
    assert hub.count(COMMIT) == 1
    assert len(hub.uploads) == 1


def test_overrides_name_repository_branch_and_privacy(hub: HubServer, model_dir: Path) -> None:
    done = run_tfmlm(
        hub, "push", model_dir, "hub.repo_id=you/yours", "hub.private=false", "hub.revision=trained"
    )
    assert done.returncode == 0, done.stderr
    assert hub.repositories["you/yours"].private is False
    assert hub.repositories["you/yours"].files("trained") == read_folder(model_dir)
    assert hub.repositories["you/yours"].files() == {}


def test_shards_of_a_larger_model_go_and_foreign_files_stay(hub: HubServer, model_dir: Path) -> None:
    foreign = {"notes.txt": b"mine"}
    hub.make_repository("me/mine", {"model-00001-of-00002.safetensors": b"old"} | foreign)
    done = run_tfmlm(hub, "push", model_dir)
    assert done.returncode == 0, done.stderr
    assert hub.repositories["me/mine"].files() == read_folder(model_dir) | foreign


def test_the_login_is_used_when_the_environment_has_no_token(
    hub: HubServer, model_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "token").write_text(TOKEN)
    done = run_tfmlm(hub, "push", model_dir, HF_TOKEN="", HF_HOME=str(tmp_path / "home"))
    assert done.returncode == 0, done.stderr


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
    asked = formatdate(time.time() + 7, usegmt=True) if by_date else "3"
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
    _, error = process.communicate(timeout=30)
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


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set; unset it"),
        ({"HF_TOKEN": ""}, "there is no token; set HF_TOKEN"),
        ({"HF_TOKEN": "hf_wrong"}, "Invalid credentials"),
    ],
)
def test_an_environment_that_cannot_push(
    environment: dict[str, str], reason: str, hub: HubServer, model_dir: Path
) -> None:
    done = run_tfmlm(hub, "push", model_dir, **environment)
    assert done.returncode == 2
    assert reason in done.stderr.splitlines()[-1]
    assert "hf_wrong" not in done.stderr
    assert hub.repositories == {}


def test_without_a_repository_it_says_which_key(model_dir: Path) -> None:
    (model_dir / "run_config.yaml").write_text("model: {name_or_path: bert}\n")
    done = run_tfmlm(NO_HUB, "push", model_dir)
    assert done.returncode == 2
    assert "hub.repo_id is empty" in done.stderr


def test_a_token_as_a_setting_is_refused_and_not_shown(model_dir: Path) -> None:
    done = run_tfmlm(NO_HUB, "push", model_dir, f"hub.token={TOKEN}")
    assert done.returncode == 2
    assert "hub.token" in done.stderr
    assert_no_secret_in(model_dir)


def test_the_error_itself_holds_no_token(model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline, as the tests are: whoever prints the error with all that led to it sees no token."""
    import traceback

    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(UserError) as caught:
        push_model(model_dir, HubConfig(repo_id="me/mine"), "tfmlm push RUN")
    assert TOKEN not in "".join(traceback.format_exception(caught.value))


# === Settings ===


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("hub.repo_id='my model'", "hub.repo_id is 'my model'; it must be a name such as me/my-model"),
        ("hub.revision='a b'", "hub.revision is 'a b'; it must be the name of a branch"),
        ("hub.checkpoints=main", "hub.checkpoints is 'main', where the model goes too"),
        ("hub.every_steps=0", "hub.every_steps is 0; it must be more than 0"),
        ("hub.retry_seconds=-1", "hub.retry_seconds is -1.0; it must be 0 or more"),
        ("hub.license='Apache 2'", "hub.license is 'Apache 2'; it must be an identifier such as apache-2.0"),
        ("hub.language=[english]", "hub.language holds 'english'; it must hold codes such as en"),
        ("hub.timeout_seconds=0", "hub.timeout_seconds is 0.0; it must be more than 0"),
    ],
)
def test_wrong_settings_are_refused_before_any_work(setting: str, message: str, model_dir: Path) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        load_config(model_dir / "run_config.yaml", [setting])


def test_a_stream_has_no_epochs_to_push_at() -> None:
    config = Config(
        data=DataConfig(streaming=True), model=ModelConfig(name_or_path="x"), hub=HubConfig(each_epoch=True)
    )
    with pytest.raises(UserError, match=r"use hub\.every_steps"):
        check_config(config)
