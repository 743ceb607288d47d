"""The run folder: what lies where, which process may write in it, and when a run counts as finished."""

from __future__ import annotations

import csv
import json
import os
import posixpath
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from tfmlm.atomic_files import write_atomically
from tfmlm.config import Config
from tfmlm.config.load import (
    CUTS_OF_A_STEP,
    LENGTHS,
    differing_keys,
    dump_config,
    load_config,
    makes_longer,
)
from tfmlm.errors import UserError, reason_of
from tfmlm.results import Result

if TYPE_CHECKING:  # importing it at run time would bring TensorFlow, which a report does without
    from tfmlm.remote_run import RemoteRun

RUN_CONFIG_NAME = "run_config.yaml"
"""Copy of the run's configuration in `model/`, so that a model folder alone can be evaluated."""


METRICS_NAME = "metrics.csv"
"""In the logs: a row a step and a row an evaluation, see `training.run_log`."""


@dataclass(frozen=True)
class RunFolder:
    """Paths inside a run folder. `result.json` is written last: a folder without it is not finished.

    Attributes:
        path: the folder.
        chief_path: of a worker that is not the chief, the run folder itself; `path` is then its scratch.
        remote: of a folder that is a copy of a remote one, what keeps that up.
    """

    path: Path
    chief_path: Path | None = None
    remote: RemoteRun | None = None

    @property
    def address(self) -> str:
        """Where people find the folder."""
        return self.remote.address if self.remote else str(self.path)

    def locate(self, path: Path) -> str:
        """Where people find a part of the folder."""
        return posixpath.join(self.address, path.relative_to(self.path).as_posix())

    @property
    def is_writer(self) -> bool:
        """True if this process writes checkpoints; of several workers only the chief does."""
        return self.chief_path is None

    @property
    def config_file(self) -> Path:
        """The effective configuration, which loads back."""
        return self.path / "config.yaml"

    @property
    def model_dir(self) -> Path:
        """The trained model as a Hugging Face folder."""
        return self.path / "model"

    @property
    def checkpoints_dir(self) -> Path:
        """Checkpoints of the training state, which all workers read."""
        return (self.chief_path or self.path) / "checkpoints"

    @property
    def logs_dir(self) -> Path:
        """`metrics.csv` and TensorBoard's event files."""
        return self.path / "logs"

    @property
    def samples_file(self) -> Path:
        """The samples that were filled in before training, for a run that is interrupted."""
        return self.logs_dir / "samples_before.json"

    @property
    def plots_dir(self) -> Path:
        """Plots of the training curve."""
        return self.path / "plots"

    @property
    def result_file(self) -> Path:
        """The mark of a finished run."""
        return self.path / "result.json"

    @property
    def push_file(self) -> Path:
        """Where the model of the finished run was pushed to."""
        return self.path / "pushed.json"

    @property
    def snapshots_dir(self) -> Path:
        """Folders that wait for the Hub while the run trains."""
        return self.path / "hub"

    @property
    def has_begun(self) -> bool:
        """True once a step is saved: a run that failed before it may start anew with other settings."""
        has_checkpoint = self.checkpoints_dir.is_dir() and any(self.checkpoints_dir.iterdir())
        return has_checkpoint or self.model_dir.exists() or self.result_file.exists()

    def read_result(self) -> Result | None:
        """The result of a finished run, or None."""
        if not self.result_file.exists():
            return None
        try:
            return Result(**json.loads(self.result_file.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise UserError(
                f"{self.locate(self.result_file)!r} cannot be read, or another version of tfmlm wrote it "
                f"({error}); choose another run.name or remove the folder"
            ) from error

    def reopen(self) -> None:
        """Takes from a finished run what says that it is; its model stays until another is there."""
        if self.remote:
            self.remote.reopen()
        self.push_file.unlink(missing_ok=True)
        self.result_file.unlink()

    def write_result(self, result: Result) -> None:
        """Marks the run as finished."""
        write_atomically(self.result_file, json.dumps(asdict(result), indent=2) + "\n")


def read_metrics(logs_dir: Path) -> list[dict[str, str]]:
    """The whole rows of `metrics.csv`, none if there is no such file.

    The last row of a run that was killed may be cut short, and is left out.
    """
    path = logs_dir / METRICS_NAME
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if None not in row.values()]
    for last, row in pairwise([{"seconds": "0"}, *rows]):
        if row["loss"] and "tokens" not in row:  # of a version that wrote a step's speed alone
            seconds = float(row["seconds"]) - float(last["seconds"])
            row["tokens"] = str(float(row["tokens_per_second"]) * seconds)
    return rows


def open_run_folder(folder: RunFolder, config: Config) -> None:
    """Makes the folder of a new run, or opens the one that the same configuration began.

    Raises:
        UserError: the folder cannot be written, or it holds a run that this one must not touch.
    """
    if folder.config_file.exists():
        if folder.has_begun:
            _check_same_run(folder, config)
    elif folder.path.is_dir() and any(folder.path.iterdir()):
        raise UserError(
            f"run folder {folder.address!r} is not empty and holds no run; choose another run.name"
        )
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        write_atomically(folder.config_file, dump_config(config))
    except OSError as error:
        raise explain_unwritable(folder.path, error) from error
    if folder.remote:
        folder.remote.put_configuration()


def explain_unwritable(path: Path, error: OSError) -> UserError:
    """The error for a run folder that the system does not let us write."""
    return UserError(f"run folder {str(path)!r} cannot be written: {reason_of(error)}; set run.output_dir")


def _check_same_run(folder: RunFolder, config: Config) -> None:
    if config.train.resume == "never":
        raise UserError(
            f"run folder {folder.address!r} already holds a run and train.resume is never; "
            "remove the folder or choose another run.name"
        )
    is_finished, earlier = folder.result_file.exists(), load_config(folder.config_file)
    keys = list_obstacles(config, earlier, is_finished)
    if keys:
        raise UserError(
            f"run folder {folder.address!r} holds a run of another configuration ({', '.join(keys)}); "
            "choose another run.name or remove the folder"
        )
    if is_finished and makes_longer(config, earlier):
        folder.reopen()


def list_obstacles(config: Config, earlier: Config, is_finished: bool) -> list[str]:
    """Keys that keep a configuration from going on with the run of an earlier one."""
    allowed: set[str] = LENGTHS if makes_longer(config, earlier) else set()
    if allowed or not is_finished:
        allowed = allowed | CUTS_OF_A_STEP
    return [key for key in differing_keys(config, earlier) if key not in allowed]


def goes_on_longer(folder: RunFolder, config: Config) -> bool:
    """Whether a configuration goes on with the run in a folder, finished or not, for more steps."""
    if not folder.config_file.exists():
        return False
    earlier = load_config(folder.config_file)
    return makes_longer(config, earlier) and not list_obstacles(config, earlier, is_finished=True)


# === Lock ===


@contextmanager
def holding_run_folder(path: Path) -> Iterator[None]:
    """Keeps a run folder for this process until the block ends, or the process, however it does.

    The lock is the system's, on the file `.NAME.lock` beside the folder: the folder itself may be replaced by
    a checkpoint from the Hub. The file stays, for removing it would let two processes hold one each.

    Raises:
        UserError: another process has the folder, or nothing can be written there.
    """
    # Two spellings of a path are one folder.
    lock_file = path.resolve().with_name(f".{path.resolve().name}.lock")
    lock = FileLock(lock_file, timeout=0)
    try:
        lock_file.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise UserError(
            f"run folder {str(path)!r} is being written by {_read_holder(lock_file)}; wait for it, end it, "
            "or choose another run.name"
        ) from None
    except OSError as error:
        raise explain_unwritable(path, error) from error
    try:
        with suppress(OSError):  # the lock holds without a name in it
            lock_file.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        yield
    finally:
        lock.release()


def _read_holder(lock_file: Path) -> str:
    with suppress(OSError):
        return lock_file.read_text(encoding="utf-8", errors="replace") or "another process"
    return "another process"
