"""What waits for the Hub while a run trains: whole, in order, and never a reason to end."""

import errno
import logging
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.tiny_run import make_config
from tfmlm.config import Config, HubConfig
from tfmlm.errors import UserError
from tfmlm.hub import snapshots as snapshots_module
from tfmlm.hub.snapshots import Snapshots
from tfmlm.hub.upload import Upload
from tfmlm.run_folder import RunFolder


class Pusher:
    def __init__(self) -> None:
        self.offered: list[Upload] = []

    def offer(self, upload: Upload) -> None:
        self.offered.append(upload)


@pytest.fixture
def pusher() -> Pusher:
    return Pusher()


@pytest.fixture
def snapshots(tmp_path: Path, text_file: Path, pusher: Pusher) -> Snapshots:
    config = make_config(tmp_path, text_file)
    folder = RunFolder(config.run_dir)
    folder.logs_dir.mkdir(parents=True)
    folder.config_file.write_text("run: {}\n")
    (folder.logs_dir / "metrics.csv").write_text("step\n")
    hub = HubConfig(push=True, repo_id="me/mine", checkpoints="training")
    return Snapshots(Config(hub=hub), folder, pusher)


def save_checkpoint(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "run" / "checkpoints" / name
    folder.mkdir(parents=True)
    (folder / "state.index").write_text(name)


def names_of(upload: Upload) -> set[str]:
    return {path.name for path in (upload.folder / "checkpoints").iterdir()}


def fail_with_full_disk(*arguments: object, **options: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_the_newest_checkpoint_is_the_one_of_the_highest_step(
    snapshots: Snapshots, pusher: Pusher, tmp_path: Path
) -> None:
    for name in ("step-99999999", "step-100000000", "best-99999998", "best-100000000"):
        save_checkpoint(tmp_path, name)
    snapshots.offer_checkpoint()
    (upload,) = pusher.offered
    assert names_of(upload) == {"step-100000000", "best-100000000"}


def test_a_checkpoint_is_offered_once(snapshots: Snapshots, pusher: Pusher, tmp_path: Path) -> None:
    for name in ("step-00000020", "step-00000040"):
        save_checkpoint(tmp_path, name)
        snapshots.offer_checkpoint()
        snapshots.offer_checkpoint()
    assert [upload.name for upload in pusher.offered] == [
        "checkpoint step-00000020",
        "checkpoint step-00000040",
    ]


def test_a_model_that_cannot_be_written_is_a_warning(
    snapshots: Snapshots,
    pusher: Pusher,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def save(*arguments: Any) -> None:
        try:
            fail_with_full_disk()
        except OSError as error:
            raise UserError("it cannot be written; make room, and the same command goes on") from error

    monkeypatch.setattr(snapshots_module, "save_model_folder", save)
    setup = SimpleNamespace(model=SimpleNamespace(model=None), data=SimpleNamespace(tokenizer=None))
    with caplog.at_level(logging.WARNING, "tfmlm"):
        snapshots.offer_model(setup, 20)
    assert pusher.offered == []
    assert caplog.messages == [
        f"step 20 is not pushed: it cannot be written: [Errno 28] {os.strerror(errno.ENOSPC)}"
    ]


def test_a_checkpoint_that_cannot_be_copied_leaves_nothing_and_is_offered_later(
    snapshots: Snapshots,
    pusher: Pusher,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    save_checkpoint(tmp_path, "step-00000020")
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, "tfmlm"):
        patch.setattr(os, "link", fail_with_full_disk)
        patch.setattr(snapshots_module.shutil, "copyfile", fail_with_full_disk)
        snapshots.offer_checkpoint()
    (warning,) = caplog.messages
    assert warning.startswith("checkpoint step-00000020 is not pushed: [Errno 28]")
    assert pusher.offered == []
    assert not list((tmp_path / "run" / "hub").iterdir())
    snapshots.offer_checkpoint()
    assert len(pusher.offered) == 1
