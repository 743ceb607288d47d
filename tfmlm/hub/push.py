"""Uploads a model folder to the Hugging Face Hub, and says what to type if that fails."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, fields
from pathlib import Path

from tfmlm.atomic_files import write_atomically
from tfmlm.config import HubConfig
from tfmlm.config.load import dump_config, load_config
from tfmlm.errors import UserError
from tfmlm.hub.redaction import redact_config
from tfmlm.hub.upload import PushError, Upload, upload_with_retry
from tfmlm.run_folder import RUN_CONFIG_NAME, RunFolder
from tfmlm.signals import handling_signals

WEIGHT_FILES = ("model*.safetensors", "model.safetensors.index.json")
"""Of a model that was larger, shards would stay behind and be loaded instead."""


def push_model(model_dir: Path, hub: HubConfig, command: str) -> str:
    """Uploads `model_dir` as one commit, making repository and branch if need be.

    The token is the environment's (`HF_TOKEN`) or the login's.

    Args:
        model_dir: a model folder.
        hub: where to.
        command: what pushes it again, for the message.

    Returns:
        The address of the repository.

    Raises:
        UserError: the Hub refused or could not be reached. The model on disk is untouched.
    """
    if not hub.repo_id:
        raise UserError("hub.repo_id is empty; set it to a name such as me/my-model")
    try:
        with interruptible(), _as_published(model_dir) as folder:
            upload = Upload("masked language model", folder, hub.revision, WEIGHT_FILES)
            return upload_with_retry(upload, hub)
    except (PushError, KeyboardInterrupt) as error:
        reason = str(error) or "it was interrupted"
        raise UserError(
            f"push of {str(model_dir)!r} to {hub.repo_id!r} failed: {reason}; the model is safe on disk and "
            f"not on the Hub, `{command}` tries again"
        ) from None


def push_run(folder: RunFolder, hub: HubConfig) -> None:
    """Uploads the model of a finished run, unless that was done.

    Raises:
        UserError: as `push_model`.
    """
    destination = json.dumps({"repo_id": hub.repo_id, "revision": hub.revision})
    if folder.push_file.exists() and folder.push_file.read_text(encoding="utf-8") == destination:
        return
    push_model(folder.model_dir, hub, _command_for(folder, hub))
    write_atomically(folder.push_file, destination)


def interruptible() -> AbstractContextManager[None]:
    """Lets SIGTERM do what Ctrl-C does, so that a push that is ended can say what is not done."""
    return handling_signals(signal.default_int_handler, signal.SIGTERM)


@contextmanager
def _as_published(model_dir: Path) -> Iterator[Path]:
    """A folder of links to a model's files, in which the configuration names no local path."""
    _check_links(model_dir)
    with tempfile.TemporaryDirectory() as scratch:
        folder = shutil.copytree(model_dir.resolve(), Path(scratch, "model"), copy_function=os.symlink)
        config_file = folder / RUN_CONFIG_NAME
        if config_file.exists():
            published = dump_config(redact_config(load_config(config_file)))
            config_file.unlink()
            config_file.write_text(published, encoding="utf-8")
        yield folder


def _check_links(model_dir: Path) -> None:
    """Refuses a link out of the folder, which would publish what it leads to."""
    for path in model_dir.rglob("*"):
        if path.is_symlink() and not path.resolve().is_relative_to(model_dir.resolve()):
            raise UserError(
                f"{str(path)!r} is a link out of the model folder, to {str(path.resolve())!r}; remove it, or "
                "put the file itself there"
            )


def _command_for(folder: RunFolder, hub: HubConfig) -> str:
    """`tfmlm push RUN`, with what differs from the configuration that the model was trained with."""
    own = load_config(folder.model_dir / RUN_CONFIG_NAME).hub
    overrides = [
        f"hub.{key.name}={'null' if value is None else value}"
        for key in fields(hub)
        if (value := asdict(hub)[key.name]) != getattr(own, key.name)
    ]
    return shlex.join(["tfmlm", "push", folder.address, *overrides])
