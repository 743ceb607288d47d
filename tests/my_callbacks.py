"""Callbacks as users write them, in a module that the tests copy to where they run."""

import json
import os
from pathlib import Path

import tensorflow as tf


class Recorder(tf.keras.callbacks.Callback):
    """Writes each event with its number and figures as a line of JSON; fails at a step if it is to."""

    def __init__(self, path: str, fail_at: int | None = None) -> None:
        super().__init__()
        self.path = Path(path)
        self.fail_at = fail_at
        self.num_steps = 0

    def note(self, event: str, number: int | None = None, logs: dict[str, float] | None = None) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps([event, number, logs]) + "\n")

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        self.note("train_begin", len(self.model.model.weights), self.params)

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        self.note("train_end")

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.note("epoch_begin", epoch)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.note("epoch_end", epoch, logs)

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self.note("batch_begin", batch)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self.note("batch_end", batch, logs)
        self.num_steps += 1
        if self.num_steps == self.fail_at:
            raise OSError(f"process {os.getpid() > 0} has no network")

    def on_test_end(self, logs: dict[str, float] | None = None) -> None:
        self.note("test_end", None, logs)


class StopAtOnce(tf.keras.callbacks.Callback):
    """Ends the training with the first step."""

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self.model.stop_training = True


class Refuses(tf.keras.callbacks.Callback):
    """Cannot be made."""

    def __init__(self) -> None:
        super().__init__()
        raise ValueError("there is no project of this name")
