"""Keras callbacks of the user's own, by import path, and the run of a tracker that they report to.

Of several workers the first alone calls them. They are made anew whenever a run goes on.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow as tf

from tfmlm.config import Config
from tfmlm.config.load import list_settings
from tfmlm.errors import PreemptedError, UserError, first_line
from tfmlm.training.checkpoint import TrainingCheckpoint
from tfmlm.training.cluster import read_cluster
from tfmlm.training.run_log import RunLog

_KERAS = ("keras", "tf_keras")
"""Packages whose `Callback` has the methods that are called here, Keras 3 and the older one."""

_FIRST_STEP_ARGUMENT = "initial_global_step"
"""By which callbacks that count steps, such as Weights & Biases', take the step that a run goes on from."""

# === Classes ===


class _Given(NamedTuple):
    """A callback of the configuration that can be made.

    Attributes:
        name: its import path.
        make: its class.
        arguments: for it.
    """

    name: str
    make: type
    arguments: dict[str, Any]


def find_callbacks(config: Config) -> list[_Given]:
    """Imports the classes of `train.callbacks`, and makes sure that they take their arguments.

    Raises:
        UserError: one cannot be imported, is no Keras callback, or takes no such arguments.
    """
    return [_find_callback(item) for item in config.train.callbacks]


def _find_callback(item: dict[str, Any]) -> _Given:
    name, arguments = item["class"], item.get("arguments") or {}
    module, _, class_name = name.rpartition(".")
    if str(Path.cwd()) not in sys.path:  # a command has the folder of its script there instead
        sys.path.append(str(Path.cwd()))
    try:
        found = getattr(import_module(module), class_name)
    except Exception as error:
        raise UserError(
            f"train.callbacks {name!r} cannot be imported: {first_line(error)}; install its package, or give "
            "the path of a class such as wandb.integration.keras.WandbMetricsLogger"
        ) from error
    if not isinstance(found, type) or not any(map(_is_keras_callback, found.__mro__)):
        raise UserError(f"train.callbacks {name!r} is no subclass of tf.keras.callbacks.Callback; give one")
    try:
        inspect.signature(found).bind(**arguments)
    except TypeError as error:
        raise UserError(
            f"train.callbacks {name!r} does not take these arguments: {first_line(error)}; it takes "
            f"{inspect.signature(found)}"
        ) from error
    return _Given(name, found, arguments)


def _is_keras_callback(base: type) -> bool:
    return base.__name__ == "Callback" and base.__module__.partition(".")[0] in _KERAS


# === Runs of trackers ===


@contextmanager
def _holding_wandb_run(config: Config) -> Iterator[None]:
    """A run of Weights & Biases, whose callbacks make none; its environment variables say where."""
    import wandb

    if wandb.run is not None:
        yield
        return
    run = wandb.init(name=config.run.name, config=list_settings(config))
    try:
        yield
    except BaseException:
        run.finish(exit_code=1)
        raise
    run.finish()


@contextmanager
def _holding_mlflow_run(config: Config) -> Iterator[None]:
    """A run of MLflow, which would make one without a name and leave it open."""
    import mlflow

    if mlflow.active_run() is not None:
        yield
        return
    with mlflow.start_run(run_name=config.run.name):
        yield
        mlflow.flush_async_logging()


_TRACKERS = {"wandb": _holding_wandb_run, "mlflow": _holding_mlflow_run}
"""By the package of a callback."""


# === Calls ===


@contextmanager
def calling_user_callbacks(
    config: Config,
    log: RunLog,
    num_blocks: int | None,
    blocks_per_step: int,
    checkpoint: TrainingCheckpoint,
) -> Iterator[list[tf.keras.callbacks.Callback]]:
    """Makes the callbacks of `train.callbacks`, with the run of their tracker around the training.

    Args:
        config: the run.
        log: of the run, which acts on a step before them.
        num_blocks: blocks of an epoch; None for a stream, which is one epoch.
        blocks_per_step: blocks of a step.
        checkpoint: saves the step at which one of them fails.

    Yields:
        What Keras is to call; nothing if there are none, or this worker is not the first.

    Raises:
        UserError: one of them, or its tracker, fails.
    """
    if not config.train.callbacks or not read_cluster().is_chief:
        yield []
        return
    given = find_callbacks(config)
    with ExitStack() as trackers:
        for package in dict.fromkeys(each.name.partition(".")[0] for each in given):
            if package in _TRACKERS:
                with _explained(f"the run of {package} for train.callbacks cannot begin"):
                    trackers.enter_context(_TRACKERS[package](config))
        made = [(each.name, _make(each, log.step)) for each in given]
        yield [UserCallbacks(made, config, log, _Epochs(num_blocks, blocks_per_step), checkpoint)]
        with _explained("the run of the tracker of train.callbacks cannot end"):
            trackers.close()


def _make(given: _Given, first_step: int) -> Any:
    arguments = dict(given.arguments)
    if _FIRST_STEP_ARGUMENT in inspect.signature(given.make).parameters:
        arguments.setdefault(_FIRST_STEP_ARGUMENT, first_step)
    with _explained(f"train.callbacks {given.name!r} cannot be made"):
        return given.make(**arguments)


@contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise UserError(f"{what}: {_describe(error)}; mend it or take it out") from error


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error)}"


class _Epochs(NamedTuple):
    """Epochs of blocks, in steps that need not end where an epoch does.

    Attributes:
        num_blocks: of an epoch; None for a stream, which is one.
        blocks_per_step: of a step.
    """

    num_blocks: int | None
    blocks_per_step: int

    def count(self, step: int) -> int:
        """Epochs that have ended with a step."""
        return step * self.blocks_per_step // self.num_blocks if self.num_blocks else 0

    def first_step(self, epoch: int) -> int:
        """The step with which an epoch begins, from 0."""
        return -(-epoch * self.num_blocks // self.blocks_per_step) if self.num_blocks else 0


class UserCallbacks(tf.keras.callbacks.Callback):
    """Calls the user's callbacks as Keras does: with epochs of the text, and figures under plain names.

    To Keras the whole run is one epoch. Batches are numbered within an epoch, from 0; one that a run goes on
    amid begins again at the number that it had. `logs` hold what `metrics.csv` does, evaluations as `val_*`.
    """

    def __init__(
        self,
        callbacks: Sequence[tuple[str, Any]],
        config: Config,
        log: RunLog,
        epochs: _Epochs,
        checkpoint: TrainingCheckpoint,
    ) -> None:
        super().__init__()
        self._callbacks = callbacks
        self._log = log
        self._epochs = epochs
        self._checkpoint = checkpoint
        self._num_epochs = config.train.epochs
        self._has_several_workers = read_cluster().num_workers > 1
        self._loss = _WeightedMean()

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Shows them the model."""
        params = {
            "epochs": self._num_epochs,
            "steps": self._epochs.first_step(1) or None,
            "verbose": 0,
        }
        for _, callback in self._callbacks:
            callback.set_params(dict(params))
            callback.set_model(self.model)
        self._evaluated_step = self._log.step
        self._is_in_epoch = False
        self._call("on_train_begin")

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Passes it on, and begins an epoch if the one before has ended."""
        if not self._is_in_epoch:
            self._epoch = self._epochs.count(self._log.step)
            self._is_in_epoch = True
            self._call("on_epoch_begin", self._epoch)
        self._call("on_train_batch_begin", self._number(self._log.step), logs={})

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Passes the step's figures on, with those of an evaluation after it, and ends its epoch."""
        figures = dict(self._log.figures)
        self._loss.add(figures["loss"], figures["masked_tokens"])
        found = self._take_evaluation()
        self._call("on_train_batch_end", self._number(self._log.step - 1), logs=figures | found)
        if self._epochs.count(self._log.step) > self._epoch:
            self._end_epoch(figures | found)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Ends the epoch that the last step is amid, and the training."""
        if self._is_in_epoch:
            self._end_epoch(dict(self._log.figures))
        self._call("on_train_end", logs={})

    def _number(self, step: int) -> int:
        return step - self._epochs.first_step(self._epoch)

    def _take_evaluation(self) -> dict[str, float]:
        """What the evaluation after this step found, if there was one; it is a test to them."""
        if self._log.evaluation is None or self._log.evaluated_step == self._evaluated_step:
            return {}
        self._evaluated_step = self._log.evaluated_step
        found = {**self._log.evaluation._asdict(), "perplexity": self._log.evaluation.perplexity}
        self._call("on_test_begin")
        self._call("on_test_end", logs=dict(found))
        return {f"val_{name}": figure for name, figure in found.items()}

    def _end_epoch(self, figures: dict[str, float]) -> None:
        self._is_in_epoch = False
        self._call("on_epoch_end", self._epoch, logs=figures | {"loss": self._loss.take()})

    def _call(self, event: str, *place: int, logs: dict[str, float] | None = None) -> None:
        is_stopping = self.model.stop_training
        for name, callback in self._callbacks:
            try:
                getattr(callback, event)(*place, **({} if logs is None else {"logs": dict(logs)}))
            except (PreemptedError, UserError):
                raise
            except Exception as error:
                raise self._stop(f"{name!r} fails in {event}: {_describe(error)}") from error
            if self._has_several_workers and self.model.stop_training and not is_stopping:
                raise self._stop(
                    f"{name!r} stops the training, which it cannot with several workers; use "
                    "train.early_stopping_patience or train.max_steps"
                )

    def _stop(self, why: str) -> UserError:
        """The error with which the run ends; its last step is saved."""
        if self._log.step:
            self._checkpoint.save_at_once(self._log.seconds)
        return UserError(
            f"train.callbacks {why}; mend it or take it out, and the same command goes on from step "
            f"{self._log.step}"
        )


class _WeightedMean:
    """Mean loss of the steps of an epoch, each of which is a mean of so many masked tokens."""

    def __init__(self) -> None:
        self.weight = self._sum = 0.0

    def add(self, value: float, weight: float) -> None:
        """Adds a step."""
        self._sum += value * weight
        self.weight += weight

    def take(self) -> float:
        """The mean, and begins anew."""
        mean = self._sum / self.weight if self.weight else 0.0
        self.weight = self._sum = 0.0
        return mean
