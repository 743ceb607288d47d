"""A run folder on a remote file system: brought here at the start, and put there as the run goes on.

The run works in a local copy, as a run at home does. Whatever kills it, what is there can be gone on from: of
checkpoints the ones that are whole, and of the rest the files as they were at a checkpoint or after it.
"""

from __future__ import annotations

import json
import logging
import os
import posixpath
import shutil
import socket
import tempfile
import threading
import time
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfmlm.atomic_files import take_over
from tfmlm.config import Config
from tfmlm.errors import UserError, first_line
from tfmlm.remote_folders import (
    bring_file,
    bring_folder,
    explained_remote_errors,
    is_whole,
    list_names,
    put_file,
    put_folder,
    remove_folder,
    write_text,
)
from tfmlm.run_folder import RunFolder, holding_run_folder
from tfmlm.urls import is_url

_LOGGER = logging.getLogger(__name__)

_RECORDS = ("config.yaml", "logs/metrics.csv", "logs/samples_before.json", "result.json", "pushed.json")
"""What a run reads of itself; event files and plots are only written."""

_LAST = ("result.json", "pushed.json")
"""With the first a run is finished."""

_Parts = dict[str, list[tuple[str, int]]]
"""What is copied as a whole, folders and single files by their names, and what tells if it has changed."""


def bring_run(address: str, folder: Path) -> None:
    """Copies what a run needs to go on here: its checkpoints, or its model if it is finished.

    Raises:
        tf.errors.OpError: it cannot be read.
    """
    bring_records(address, folder)
    model = posixpath.join(address, "model")
    if not (folder / "result.json").exists():
        bring_checkpoints(address, folder)
    elif is_whole(model):
        bring_folder(model, folder / "model")


def bring_checkpoints(address: str, folder: Path) -> None:
    """Copies the checkpoints that are whole; a damaged one is passed over.

    Raises:
        tf.errors.OpError: one cannot be read.
    """
    for name in list_names(posixpath.join(address, "checkpoints")):
        source, copy = posixpath.join(address, "checkpoints", name), folder / "checkpoints" / name
        if not is_whole(source):
            continue
        try:
            bring_folder(source, copy)
        except UserError as error:
            _LOGGER.warning("checkpoint %s is passed over: %s", source, error)
            shutil.rmtree(copy, ignore_errors=True)


def bring_records(address: str, folder: Path) -> None:
    """Copies what a run says of itself: its configuration, log and result.

    Raises:
        tf.errors.OpError: it cannot be read.
    """
    for name in _RECORDS:
        source = posixpath.join(address, name)
        # An empty one is of a process that was killed as it began to write it.
        if tf.io.gfile.exists(source) and tf.io.gfile.stat(source).length:
            bring_file(source, folder / name)


class RemoteRun:
    """The remote copy of a run folder, kept up by a thread: training waits for no network.

    Attributes:
        address: where it lies.
    """

    def __init__(self, address: str, folder: Path, lock: _Lock) -> None:
        self.address = address
        self._folder = folder
        self._lock = lock
        self._there = _describe(folder)
        self._is_due = threading.Event()
        self._is_ending = False
        self._thread = threading.Thread(target=self._work, name="remote run", daemon=True)
        self._thread.start()

    def offer(self) -> None:
        """Lets the thread copy what is new, and returns at once.

        Raises:
            UserError: another process has taken the remote folder.
        """
        self._lock.check()
        self._is_due.set()

    def put_all(self) -> None:
        """Copies what is new, when the thread has ended what it is copying.

        Raises:
            UserError: it cannot be written, or another process has taken the remote folder.
        """
        self._is_ending = True
        self._is_due.set()
        self._thread.join()
        with explained_remote_errors(self.address):
            self._put(self._folder)

    def reopen(self) -> None:
        """Takes away what says that the run is finished, and brings the checkpoints to go on from.

        Raises:
            UserError: it cannot be read or written.
        """
        with explained_remote_errors(self.address):
            bring_checkpoints(self.address, self._folder)
            for name in _LAST:
                if self._there.pop(name, None):
                    tf.io.gfile.remove(posixpath.join(self.address, name))
        self._there |= {
            name: contents
            for name, contents in _describe(self._folder).items()
            if name.startswith("checkpoints/")
        }

    def put_configuration(self) -> None:
        """Copies the configuration, and so tries whether anything can be written.

        Raises:
            UserError: it cannot.
        """
        with explained_remote_errors(self.address):
            self._put_new(self._folder, _describe(self._folder), ["config.yaml"])

    def _work(self) -> None:
        while self._is_due.wait():
            self._is_due.clear()
            if self._is_ending:
                return
            try:
                with tempfile.TemporaryDirectory(dir=self._folder.parent) as scratch:
                    for name in _describe(self._folder):
                        take_over(self._folder / name, Path(scratch, name))
                    self._put(Path(scratch))
            except (tf.errors.OpError, UserError, OSError) as error:
                _LOGGER.warning(
                    "%s could not be written, the next checkpoint tries again: %s",
                    self.address,
                    first_line(error),
                )

    def _put(self, folder: Path) -> None:
        """Copies what is new in an order of which each part can be gone on from."""
        parts = _describe(folder)
        checkpoints = [name for name in parts if name.startswith("checkpoints/")]
        best = [name for name in checkpoints if "best-" in name]
        last = [name for name in _LAST if name in parts]
        others = [name for name in parts if name not in (*checkpoints, *last)]
        states = [name for name in checkpoints if name not in best]
        self._put_new(folder, parts, [*best, *others, *states])
        for name in [name for name in self._there if name.startswith("checkpoints/") and name not in parts]:
            remove_folder(posixpath.join(self.address, name))
            del self._there[name]
        self._put_new(folder, parts, last)

    def _put_new(self, folder: Path, parts: _Parts, names: list[str]) -> None:
        for name in names:
            self._lock.check()
            if self._there.get(name) != parts[name]:
                put = put_folder if (folder / name).is_dir() else put_file
                put(folder / name, posixpath.join(self.address, name))
                self._there[name] = parts[name]


def _describe(folder: Path) -> _Parts:
    """The parts of a run folder that are copied."""
    folders = [*folder.glob("checkpoints/[!.]*"), *folder.glob("model")]
    files = [path for inner in ("", "logs/", "plots/") for path in folder.glob(f"{inner}[!.]*")]
    described = {
        part: [
            (path.relative_to(part).as_posix(), path.stat().st_mtime_ns)
            for path in sorted(part.rglob("*"))
            if path.is_file()
        ]
        for part in folders
    }
    # A file may be written again as it was.
    described |= {path: [("", zlib.crc32(path.read_bytes()))] for path in files if path.is_file()}
    return {part.relative_to(folder).as_posix(): contents for part, contents in described.items()}


# === Lock ===

_LOCK_NAME = "lock.json"
_BEAT_SECONDS = 10.0
_SILENT_SECONDS = 40.0
"""A holder that has not written for so long is gone: three beats may be late."""


class _Lock:
    """A file that its owner writes again and again; who sees it unchanged for a while may take it.

    What counts is that it changes, not its time: clocks differ. No file system here makes a file only if
    there is none, so a new owner looks again after a moment, and each looks before it writes a beat.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._file = posixpath.join(address, _LOCK_NAME)
        self._identity = {"owner": uuid.uuid4().hex, **_name_process()}
        self._is_ending = threading.Event()
        self._is_lost = False
        self._thread = threading.Thread(target=self._beat, name="lock", daemon=True)

    def take(self) -> None:
        """Takes the lock, when it is free or its holder is silent.

        Raises:
            UserError: another process has it.
        """
        found = self._read()
        if found and not _has_ended(found):
            _LOGGER.info(
                "%s was held by %s; looking for %.0f s whether it still is",
                self._address,
                found.get("holder"),
                _SILENT_SECONDS,
            )
            until = time.monotonic() + _SILENT_SECONDS
            while time.monotonic() < until:
                time.sleep(min(1.0, _SILENT_SECONDS / 10))
                if self._read() not in (found, None):
                    raise self._refuse(found)
        self._write(0)
        time.sleep(min(1.0, _BEAT_SECONDS / 10))
        found = self._read()
        if found is None or found.get("owner") != self._identity["owner"]:
            raise self._refuse(found or {})
        self._thread.start()

    def check(self) -> None:
        """Makes sure that it is still this process's.

        Raises:
            UserError: another one has taken it.
        """
        if self._is_lost:
            raise self._refuse(self._read() or {})

    def release(self) -> None:
        """Frees the folder for others."""
        self._is_ending.set()
        self._thread.join()
        with suppress(tf.errors.OpError):
            if not self._is_lost:
                tf.io.gfile.remove(self._file)

    def _beat(self) -> None:
        number = 0
        while not self._is_ending.wait(_BEAT_SECONDS):
            number += 1
            with suppress(tf.errors.OpError):  # a network that is gone for a moment
                found = self._read()
                if found is not None and found.get("owner") != self._identity["owner"]:
                    self._is_lost = True
                    return
                self._write(number)

    def _write(self, number: int) -> None:
        write_text(json.dumps(self._identity | {"beat": number}), self._file)

    def _read(self) -> dict[str, Any] | None:
        """What the file says; None if it is not there, or just being written."""
        try:
            with tf.io.gfile.GFile(self._file) as file:
                found = json.loads(file.read())
        except (tf.errors.NotFoundError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def _refuse(self, found: dict[str, Any]) -> UserError:
        return UserError(
            f"run folder {self._address!r} is being written by {found.get('holder', 'another process')}; "
            "wait for it, end it, or choose another run.name"
        )


def _name_process() -> dict[str, Any]:
    """Where this process is found: containers may have one machine's name, and numbers of their own."""
    namespace = Path("/proc/self/ns/pid")
    return {
        "holder": f"process {os.getpid()} on {socket.gethostname()}",
        "number": os.getpid(),
        "namespace": f"{socket.gethostname()} {namespace.readlink()}" if namespace.exists() else None,
    }


def _has_ended(found: dict[str, Any]) -> bool:
    """True if the holder was a process beside this one that is no more."""
    is_beside = found.get("namespace") is not None and found["namespace"] == _name_process()["namespace"]
    return is_beside and not Path("/proc", str(found.get("number"))).exists()


# === A run ===


@contextmanager
def holding_run(config: Config) -> Iterator[RunFolder]:
    """Keeps the run folder of a configuration for this process until the block ends.

    Raises:
        UserError: another process has it, or it cannot be read or written.
    """
    if is_url(config.run_address):
        with _holding_remote(config.run_address) as (path, remote):
            yield RunFolder(path, remote=remote)
        return
    with holding_run_folder(config.run_dir):
        yield RunFolder(config.run_dir)


@contextmanager
def _holding_remote(address: str) -> Iterator[tuple[Path, RemoteRun]]:
    """Keeps a remote run folder for this process, and a copy of it here, until the block ends.

    What the block has left is put there when it ends, however it does. Where that fails the copy stays.

    Yields:
        the copy, and what keeps the remote one up.

    Raises:
        UserError: another process has it, or it cannot be read or written.
    """
    lock = _Lock(address)
    with explained_remote_errors(address):
        lock.take()
    folder = Path(tempfile.mkdtemp(prefix="tfmlm-run-"), posixpath.basename(address))
    folder.mkdir()
    try:
        with explained_remote_errors(address):
            _check_holds_run(address)
            bring_run(address, folder)
        remote = RemoteRun(address, folder, lock)
        try:
            yield folder, remote
        except BaseException:
            # What has failed is told; but what it leaves may be hours of work.
            try:
                _put_or_keep(remote, folder)
            except UserError as error:
                _LOGGER.warning(first_line(error))
            raise
        _put_or_keep(remote, folder)
    finally:
        lock.release()


def _check_holds_run(address: str) -> None:
    names = {*list_names(address)} - {_LOCK_NAME}
    if names and "config.yaml" not in names:
        raise UserError(f"run folder {address!r} is not empty and holds no run; choose another run.name")


def _put_or_keep(remote: RemoteRun, folder: Path) -> None:
    try:
        remote.put_all()
    except UserError as error:
        raise UserError(f"{error}; what the run has left is in {str(folder)!r}") from error
    shutil.rmtree(folder.parent, ignore_errors=True)
