"""Snapshots of a run that trains, its model and its checkpoints as they are at a step, for the Hub."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

from tfmlm.atomic_files import take_over
from tfmlm.config import Config
from tfmlm.config.load import dump_config
from tfmlm.errors import PreemptedError, UserError, first_line
from tfmlm.hub.background import BackgroundPusher
from tfmlm.hub.push import WEIGHT_FILES, interruptible
from tfmlm.hub.redaction import redact_config
from tfmlm.hub.upload import Upload
from tfmlm.run_folder import METRICS_NAME, RUN_CONFIG_NAME, RunFolder
from tfmlm.training.callbacks import make_due_check
from tfmlm.training.checkpoint import list_checkpoints
from tfmlm.training.model_folder import save_model_folder
from tfmlm.training.setup import Setup

_LOGGER = logging.getLogger(__name__)
_GRACE_SECONDS = 20.0
"""A machine that is taken back leaves about 30 seconds; the last checkpoint may get through."""

_WRITE_ERRORS = (OSError, UserError, tf.errors.OpError)


@contextmanager
def pushing_in_background(
    config: Config, folder: RunFolder, setup: Setup
) -> Iterator[tuple[list[tf.keras.callbacks.Callback], Callable[[], None]]]:
    """Pushes while a run trains, as `hub` says; afterwards nothing is under way.

    Yields:
        `callbacks` and `when_saved` for `train`.
    """
    if not config.hub.push:
        yield [], lambda: None
        return
    shutil.rmtree(folder.snapshots_dir, ignore_errors=True)  # of a process that was killed
    pusher = BackgroundPusher(config.hub)
    snapshots = Snapshots(config, folder, pusher)
    try:
        yield [PushModels(snapshots, config, setup)], snapshots.offer_checkpoint
    except PreemptedError:
        pusher.drop(config.hub.revision)
        snapshots.offer_checkpoint()
        pusher.finish(_GRACE_SECONDS)
        raise
    except BaseException:
        pusher.finish(0)
        raise
    pusher.drop(config.hub.revision)
    try:
        with interruptible():
            pusher.finish()
    except KeyboardInterrupt:
        # Not pushed here: what is still on its way could arrive after it and win.
        raise UserError(
            "interrupted while an upload was on its way; the model is safe on disk and not on the Hub, "
            f"`tfmlm push {folder.address}` pushes it"
        ) from None
    shutil.rmtree(folder.snapshots_dir, ignore_errors=True)


class Snapshots:
    """Writes folders that stay as they are while the training goes on, and gives them to the pusher."""

    def __init__(self, config: Config, folder: RunFolder, pusher: BackgroundPusher) -> None:
        self._config = config
        self._folder = folder
        self._pusher = pusher
        self._offered = ""

    def offer_model(self, setup: Setup, step: int) -> None:
        """Writes the model of this step; the training waits for the disk, and not for the Hub."""
        path = self._folder.snapshots_dir / f"model-{step:08d}"
        try:
            path.parent.mkdir(exist_ok=True)
            texts = {RUN_CONFIG_NAME: dump_config(redact_config(self._config))}
            save_model_folder(setup.model.model, setup.data.tokenizer, path, texts)
        except _WRITE_ERRORS as error:
            # Not the advice of a run that ends: this one goes on, and pushes again later.
            reason = first_line(error.__cause__ or error)
            _LOGGER.warning("step %d is not pushed: it cannot be written: %s", step, reason)
        else:
            self._pusher.offer(Upload(f"step {step}", path, self._config.hub.revision, WEIGHT_FILES))

    def offer_checkpoint(self) -> None:
        """Links the newest checkpoint, and the best weights, the configuration and the log beside it."""
        steps, best = (list_checkpoints(self._folder.checkpoints_dir, kind) for kind in ("step", "best"))
        if not self._config.hub.checkpoints or not steps or steps[-1].name == self._offered:
            return
        newest = steps[-1].name
        path = self._folder.snapshots_dir / f"checkpoint-{newest}"
        files = [*steps[-1:], *best[-1:], self._folder.config_file, self._folder.logs_dir / METRICS_NAME]
        if self._folder.samples_file.exists():
            files.append(self._folder.samples_file)
        try:
            shutil.rmtree(path, ignore_errors=True)
            for source in files:
                take_over(source, path / source.relative_to(self._folder.path))
        except OSError as error:
            shutil.rmtree(path, ignore_errors=True)
            _LOGGER.warning("checkpoint %s is not pushed: %s", newest, _describe(error))
        else:
            self._offered = newest
            name = f"checkpoint {newest}"
            self._pusher.offer(Upload(name, path, self._config.hub.checkpoints, ("checkpoints/*",)))


class PushModels(tf.keras.callbacks.Callback):
    """Offers the model of the steps at which it is due."""

    def __init__(self, snapshots: Snapshots, config: Config, setup: Setup) -> None:
        super().__init__()
        self._snapshots = snapshots
        self._setup = setup
        num_blocks, hub = setup.data.train.num_blocks, config.hub
        self._is_model_due = make_due_check(
            hub.every_steps, hub.each_epoch, num_blocks, setup.blocks_per_step
        )

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Notes the step that the training goes on from."""
        self._first_step = self._last_step = int(self.model.step.numpy())

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Writes the model when the step is due."""
        last, step = self._last_step, self._first_step + batch + 1
        self._last_step = step
        if self._is_model_due(last, step):
            self._snapshots.offer_model(self._setup, step)


def _describe(error: OSError) -> str:
    """One line; `copytree` goes on after an error and raises the list of all of them."""
    if isinstance(error, shutil.Error) and error.args and isinstance(error.args[0], list):
        return str(error.args[0][0][-1])
    return first_line(error)
