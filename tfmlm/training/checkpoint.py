"""Saves and restores the training state: each checkpoint is a folder that gets its name when it is whole."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.util.object_identity import ObjectIdentityDictionary

from tfmlm.atomic_files import begin_folder
from tfmlm.errors import UserError, first_line, reason_of
from tfmlm.training.masked_lm import MaskedLanguageModel

_LOGGER = logging.getLogger(__name__)
_STATE = "state"
_NEWEST = "step"
_BEST = "best"
_DAMAGES = (tf.errors.OpError, ValueError, AssertionError, LookupError)
"""Raised by TensorFlow for a file that is missing, cut short or altered, or holds too little."""


class TrainingCheckpoint:
    """The training state and the folder of its checkpoints, `step-N` and `best-N`.

    The state: weights, the optimizer with its slots, its step and its loss scale, the batches trained on,
    seconds, and what evaluations have found. Data order, masks and dropout are functions of the seed and the
    number of batches, so that number is their state too.

    `tf.train.CheckpointManager` writes under the final name and goes back to no older one: a kill could leave
    a part that counts as the newest.

    What is saved is taken at once, and written in the order of the calls while the training goes on. Whatever
    goes wrong with that is raised by the next call.

    Attributes:
        folder: where they lie.
        is_writer: whether this process writes; of several workers only the first does.
        seconds: float64 [], seconds trained so far.
        best_loss: float64 [], the lowest evaluation loss.
        stale_evaluations: int64 [], evaluations since then.
        evaluated_step: int64 [], the step up to which the evaluations that were due are done.
    """

    def __init__(  # noqa: PLR0913, PLR0917
        self,
        model: MaskedLanguageModel,
        folder: Path,
        blocks_per_step: int,
        num_kept: int = 2,
        is_writer: bool = True,
        when_saved: Callable[[], None] = lambda: None,
        vocabulary: int = 0,
    ) -> None:
        self._model = model
        self.folder = folder
        self._num_kept = num_kept
        self.is_writer = is_writer
        self.seconds = tf.Variable(0.0, dtype=tf.float64, trainable=False)
        self.best_loss = tf.Variable(float("inf"), dtype=tf.float64, trainable=False)
        self.stale_evaluations = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.evaluated_step = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._blocks_per_step = blocks_per_step
        self._saved_blocks_per_step = tf.Variable(blocks_per_step, dtype=tf.int64, trainable=False)
        self._vocabulary = vocabulary
        self._saved_vocabulary = tf.Variable(vocabulary, dtype=tf.int64, trainable=False)
        self._state = _Snapshot(
            model.optimizer.weights,
            model=model.model,
            optimizer=model.optimizer,
            step=model.step,
            seconds=self.seconds,
            best_loss=self.best_loss,
            stale_evaluations=self.stale_evaluations,
            evaluated_step=self.evaluated_step,
            blocks_per_step=self._saved_blocks_per_step,
            vocabulary=self._saved_vocabulary,
        )
        self._weights = _Snapshot((), model=model.model)
        self._when_saved = when_saved
        # One thread: the best weights are there before a state that counts on them.
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._under_way: dict[str, Future[None]] = {}
        self._has_failed = False

    def restore(self) -> int:
        """Restores the newest checkpoint that can be read, if there is one.

        Returns:
            The number of batches trained on; 0 for a new run.

        Raises:
            UserError: there are checkpoints, and none of them can be read, or its steps had other blocks, or
                its rows are another vocabulary's.
        """
        paths = self._list(_NEWEST)
        if any(self._read(self._state, path) for path in reversed(paths)):
            self._check_blocks_per_step()
            self._check_vocabulary()
            return int(self._model.step.numpy())
        if paths:
            raise UserError(
                f"no checkpoint in {str(self.folder)!r} can be read; remove the folder to start anew"
            )
        return 0

    def _check_blocks_per_step(self) -> None:
        """With another number the next step would begin in the middle of the data, or skip some."""
        saved = int(self._saved_blocks_per_step)
        if saved != self._blocks_per_step:
            raise UserError(
                f"the run in {str(self.folder)!r} has {saved} blocks a step and this one would go on with "
                f"{self._blocks_per_step}; choose train.per_replica_batch_size and "
                "train.gradient_accumulation_steps so that, times the number of devices of all workers, "
                f"they make {saved}"
            )

    def _check_vocabulary(self) -> None:
        """A tokenizer made of the text is another one if the text is; the rows would be other words'."""
        if int(self._saved_vocabulary) != self._vocabulary:
            raise UserError(
                f"the run in {str(self.folder)!r} was trained with another tokenizer than this text or "
                "tokenizer.name_or_path gives now; restore them, or choose another run.name"
            )

    def restore_step(self, step: int) -> bool:
        """Restores one checkpoint; false if it is not there or cannot be read."""
        path = self.folder / _name_checkpoint(_NEWEST, step)
        return path.is_dir() and self._read(self._state, path)

    def list_values(self) -> list[np.ndarray[Any, Any]]:
        """The weights and the optimizer's slots as they are."""
        variables = [*self._model.model.weights, *self._model.optimizer.weights]
        return [variable.numpy() for variable in variables]

    def save(self, seconds: float) -> None:
        """Saves the present step, and removes all but the newest ones."""
        self.seconds.assign(seconds)
        self._begin(self._state, _NEWEST, self._num_kept)

    def save_at_once(self, seconds: float) -> None:
        """Saves the present step, if it is not, and returns when it is written."""
        self.wait()
        if self.newest != self.folder / _name_checkpoint(_NEWEST, int(self._model.step.numpy())):
            self.save(seconds)
            self.wait()

    def save_best(self, loss: float) -> None:
        """Saves the weights of the lowest evaluation loss so far, and removes the ones before."""
        self.best_loss.assign(loss)
        self._begin(self._weights, _BEST, 1)

    def wait(self) -> None:
        """Returns when all that was saved is written.

        Raises:
            UserError: it could not be.
        """
        while self._under_way:
            self._under_way.popitem()[1].result()

    def close(self) -> None:
        """Lets what is being written end, whatever comes of it."""
        self._writer.shutdown()

    def restore_best(self) -> int | None:
        """Puts the best weights into the model.

        Returns:
            Their step; None if they cannot be read, and the model is as it was.
        """
        self.wait()
        last = self._model.model.get_weights()
        for path in reversed(self._list(_BEST)):
            if self._read(self._weights, path):
                return int(path.name.split("-")[1])
        self._model.model.set_weights(last)  # a damaged one may have been read in part
        return None

    def is_stale(self, patience: int | None) -> bool:
        """True if so many evaluations in a row have found no lower loss."""
        return patience is not None and int(self.stale_evaluations) >= patience

    @property
    def newest(self) -> Path | None:
        """The last checkpoint that is whole."""
        return next(iter(self._list(_NEWEST)[::-1]), None)

    def _list(self, kind: str) -> list[Path]:
        return list_checkpoints(self.folder, kind)

    def _read(self, state: _Snapshot, path: Path) -> bool:
        try:
            state.objects.read(str(path / _STATE)).assert_existing_objects_matched()
        except _DAMAGES as error:
            _LOGGER.warning("checkpoint %s is damaged and passed over: %s", path, first_line(error))
            return False
        return True

    def _begin(self, state: _Snapshot, kind: str, num_kept: int) -> None:
        if not self.is_writer:
            return
        for earlier, writing in list(self._under_way.items()):
            if earlier == kind or writing.done():  # of each kind there is one copy
                del self._under_way[earlier]
                writing.result()
        state.take()
        step = int(self._model.step.numpy())
        self._under_way[kind] = self._writer.submit(self._write, state, kind, step, num_kept)

    def _write(self, state: _Snapshot, kind: str, step: int, num_kept: int) -> None:
        if self._has_failed:  # a state would tell of best weights that are not there
            return
        name = _name_checkpoint(kind, step)
        try:
            self._remove(self.folder.glob(".*"))  # of a process that was killed
            with begin_folder(self.folder / name) as unfinished:
                state.write(str(unfinished / _STATE))
        except (tf.errors.OpError, OSError) as error:
            self._has_failed = True
            kept = f"; {self.newest} is whole" if self.newest else ""
            raise UserError(
                f"checkpoint {name} cannot be written to {str(self.folder)!r}: {reason_of(error)}{kept}; "
                "make room, and the same command goes on from there"
            ) from error
        self._remove(self._list(kind)[:-num_kept])
        if kind == _NEWEST:
            self._when_saved()

    def _remove(self, paths: Iterable[Path]) -> None:
        for path in paths:
            shutil.rmtree(path, ignore_errors=True)


class _Snapshot:
    """Objects of which a copy is written while they go on changing.

    A copy shares its memory with the variable on a CPU, until one of them changes. The asynchronous
    checkpoints of `tf.train.CheckpointOptions` copy in the same way; but theirs trace a function of all
    variables amid the training, seconds for large models, and tell of a full disk one checkpoint later.

    Attributes:
        objects: to read into.
    """

    def __init__(self, slots: Iterable[tf.Variable], **objects: Any) -> None:
        self.objects = tf.train.Checkpoint(**objects)
        found = tf.train.TrackableView(self.objects).descendants()
        variables = [*(each for each in found if isinstance(each, tf.Variable)), *slots]
        self._variables = list({id(variable): variable for variable in variables}.values())
        self._copies = ObjectIdentityDictionary()
        self._copied = tf.train.Checkpoint(**objects)
        self._copied._saver._object_map = self._copies  # noqa: SLF001 only its own options set it

    def take(self) -> None:
        """Copies the variables."""
        for variable in self._variables:
            variable._copy_trackable_to_cpu(self._copies)  # noqa: SLF001 as TensorFlow's own do

    def write(self, prefix: str) -> None:
        """Writes the copies."""
        self._copied.write(prefix)


# === Names ===


def _name_checkpoint(kind: str, step: int) -> str:
    return f"{kind}-{step:08d}"


def list_checkpoints(folder: Path, kind: str) -> list[Path]:
    """The checkpoints `KIND-STEP` in a folder, by their step.

    Args:
        folder: it need not be there.
        kind: `step` or `best`.
    """
    pattern = re.compile(rf"{kind}-(\d{{8,}})")
    found = ((pattern.fullmatch(path.name), path) for path in folder.glob(f"{kind}-*"))
    # As numbers: eight digits are not enough for every step, and text puts 100000000 before 99999999.
    return [path for _, path in sorted((int(match[1]), path) for match, path in found if match)]
