"""A push brings every file to the Hub, and what cannot be pushed is refused, through the real client."""

import re
from pathlib import Path

import pytest

from tests.folders import read_folder
from tests.hub.pushed_model import COMMIT, NO_HUB, assert_no_secret_in, run_tfmlm, write_model
from tests.hub.server import TOKEN, HubServer
from tfmlm.config import Config, DataConfig, HubConfig, ModelConfig
from tfmlm.config.load import check_config, load_config
from tfmlm.errors import UserError
from tfmlm.hub.push import push_model


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


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


# === What cannot be pushed ===


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
        ("hub.license='Apache 2'", "hub.license is 'Apache 2'; did you mean 'apache-2.0'?"),
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
