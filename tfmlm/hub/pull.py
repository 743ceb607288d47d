"""Brings the checkpoint of a run that was begun on another machine."""

from __future__ import annotations

import logging
import shutil
import tempfile
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

from tfmlm.config import Config, HubConfig
from tfmlm.config.load import load_config
from tfmlm.errors import UserError
from tfmlm.hub.upload import PushError, retry_with_backoff
from tfmlm.run_folder import RunFolder, list_obstacles

_LOGGER = logging.getLogger(__name__)
_PARTS = ("logs", "config.yaml", "checkpoints")
"""The checkpoints last: with them the run has begun."""


def pull_run(config: Config, folder: RunFolder) -> None:
    """Makes the run folder from the branch `hub.checkpoints`, unless there is one or the branch is not there.

    Raises:
        UserError: the branch cannot be read, or it holds another run.
    """
    hub = config.hub
    holds_something_else = (
        folder.path.is_dir() and any(folder.path.iterdir()) and not folder.config_file.exists()
    )
    if not hub.push or not hub.checkpoints or folder.has_begun or holds_something_else:
        return
    folder.path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.path.name}.", dir=folder.path.parent) as scratch:
        copy = RunFolder(Path(scratch) / "run")
        try:
            is_there = retry_with_backoff(
                lambda: _download(hub, copy.path), f"branch {hub.checkpoints} of {hub.repo_id}", hub
            )
        except PushError as error:
            raise UserError(
                f"hub.checkpoints: branch {hub.checkpoints!r} of {hub.repo_id!r} cannot be read: {error}; "
                "the same command tries again, and with hub.checkpoints=null it starts anew"
            ) from None
        if not is_there or not copy.checkpoints_dir.is_dir():
            return
        _check_same_run(copy, config)
        folder.path.mkdir(exist_ok=True)
        for name in _PARTS:
            _replace(copy.path / name, folder.path / name)
    _LOGGER.info("checkpoint of %s, branch %s", hub.repo_id, hub.checkpoints)


def _download(hub: HubConfig, path: Path) -> bool:
    """Downloads the branch as it is now; whether it is there."""
    api = HfApi()
    assert hub.repo_id
    # Without an owner it is the user's, as in a push.
    repo_id = hub.repo_id if "/" in hub.repo_id else f"{api.whoami()['name']}/{hub.repo_id}"
    try:
        commit = api.model_info(repo_id, revision=hub.checkpoints).sha
    except RevisionNotFoundError:
        return False
    except RepositoryNotFoundError as error:
        if error.response is None or error.response.status_code != 404:  # who may not read it is told 401
            raise
        return False
    snapshot_download(repo_id, revision=commit, local_dir=path)
    return True


def _check_same_run(copy: RunFolder, config: Config) -> None:
    where = f"branch {config.hub.checkpoints!r} of {config.hub.repo_id!r}"
    if config.train.resume == "never":
        raise UserError(
            f"{where} already holds a run and train.resume is never; choose another hub.checkpoints"
        )
    keys = list_obstacles(config, load_config(copy.config_file), is_finished=False)
    if keys:
        raise UserError(
            f"{where} holds a run of another configuration ({', '.join(keys)}); "
            "choose another hub.checkpoints"
        )


def _replace(source: Path, target: Path) -> None:
    """Puts the branch's part in the place of an own one; what the branch lacks must not stay either."""
    if target.is_dir():
        shutil.rmtree(target)
    if source.exists():
        source.replace(target)
