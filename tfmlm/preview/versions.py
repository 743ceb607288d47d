"""Which versions of an export are served: the newest that load, and those with a label."""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from tfmlm.errors import UserError, first_line
from tfmlm.export_layout import list_versions
from tfmlm.preview.batching import Batcher
from tfmlm.preview.metrics import Metrics, to_microseconds
from tfmlm.preview.options import ServeOptions
from tfmlm.preview.servable import Servable
from tfmlm.preview.status import Code, ServingError, invalid

logger = logging.getLogger("tfmlm.preview")

Fingerprint = tuple[tuple[str, int, int], ...]


class State(Enum):
    """Numbers of `ModelVersionStatus.State`."""

    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


@dataclass(frozen=True)
class VersionStatus:
    """The state of a version, as clients are told; `error` is empty unless it could not be loaded."""

    number: int
    state: State
    error: str = ""


@dataclass(frozen=True)
class ModelSpec:
    """Which model a request wants: a version, a label, or the newest."""

    name: str
    version: int | None = None
    label: str | None = None


@dataclass
class LoadedVersion:
    """A version that is served, and how many requests hold it."""

    servable: Servable
    batcher: Batcher
    num_leases: int = 0


class Versions:
    """Loads, serves and unloads the versions in a folder.

    A version that does not load is refused, and tried again only when its files change. A version leaves when
    a newer one is ready and no request holds it.

    Args:
        folder: `saved_models/NAME`, with a folder for each version.
        options: settings of the server.

    Attributes:
        metrics: what is counted of loading and running.
    """

    def __init__(self, folder: Path, options: ServeOptions) -> None:
        self.metrics = Metrics(options.name)
        self._folder = folder
        self._options = options
        self._loaded: dict[int, LoadedVersion] = {}
        self._statuses: dict[int, VersionStatus] = {}
        self._broken: dict[int, Fingerprint] = {}
        self._changed = threading.Condition()
        self._is_stopping = False
        self._listing_error = ""
        self._watch_stop = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="tfmlm-versions", daemon=True)

    def start(self) -> None:
        """Loads what is there and begins to watch.

        Raises:
            UserError: there is no version, none loads, or a label has none.
        """
        if not list_versions(self._folder):
            raise UserError(
                f"{str(self._folder)!r} has no version, such as {self._folder.name}/1/saved_model.pb"
            )
        self.poll()
        if not self._loaded:
            newest = self._statuses[max(self._statuses)]
            raise UserError(f"no version in {str(self._folder)!r} loads; {newest.number}: {newest.error}")
        for label, number in self._options.labels.items():
            if number not in self._loaded:
                loaded = ", ".join(map(str, self.list_numbers()))
                raise UserError(f"--label {label}={number} names no version that loads; there are {loaded}")
        self._watcher.start()

    def poll(self) -> None:
        """Looks at the folder once: loads what is new, then unloads what is no longer wanted."""
        try:
            numbers = list_versions(self._folder)
            self._listing_error = ""
        except OSError as error:
            if not self._listing_error:
                logger.warning("cannot read %s (%s); going on with what is loaded", self._folder, error)
            self._listing_error = str(error)
            return
        labelled = set(self._options.labels.values())
        served: set[int] = set()
        num_recent = 0
        for number in sorted(numbers, reverse=True):
            is_recent = num_recent < self._options.keep_versions
            if (is_recent or number in labelled) and self._ensure_loaded(number):
                served.add(number)
                num_recent += is_recent
        served = served or set(self.list_numbers()[:1])
        for number in set(self.list_numbers()) - served:
            self._unload(number)
            gc.collect()  # a SavedModel holds itself in cycles
        with self._changed:
            for gone in self._statuses.keys() - set(numbers) - self._loaded.keys():
                del self._statuses[gone]
                self._broken.pop(gone, None)

    @contextmanager
    def lease(self, spec: ModelSpec) -> Iterator[LoadedVersion]:
        """A version for the time of one request; it is not unloaded meanwhile.

        Raises:
            ServingError: there is no such model, version or label, or the server is stopping.
        """
        with self._changed:
            if self._is_stopping:
                raise ServingError(Code.UNAVAILABLE, "the server is stopping")
            version = self._find(spec)
            version.num_leases += 1
        try:
            yield version
        finally:
            with self._changed:
                version.num_leases -= 1
                self._changed.notify_all()

    def list_statuses(self, spec: ModelSpec) -> list[VersionStatus]:
        """State of one version, or of all, newest first.

        Raises:
            ServingError: there is no such model, version or label.
        """
        number = self._resolve_version(spec)
        with self._changed:
            statuses = sorted(self._statuses.values(), key=lambda status: -status.number)
        if spec.name != self._options.name:
            statuses = []
        if number is not None:
            statuses = [status for status in statuses if status.number == number]
            if not statuses:
                raise ServingError(Code.NOT_FOUND, f"Could not find version {number} of model {spec.name}")
        if not statuses:
            raise ServingError(Code.NOT_FOUND, f"Could not find any versions of model {spec.name}")
        return statuses

    def list_numbers(self) -> list[int]:
        """Versions that are served, newest first."""
        with self._changed:
            return sorted(self._loaded, reverse=True)

    def list_servables(self) -> list[Servable]:
        """The servables, newest first."""
        with self._changed:
            return [self._loaded[number].servable for number in sorted(self._loaded, reverse=True)]

    @property
    def is_ready(self) -> bool:
        """Whether requests are taken."""
        with self._changed:
            return bool(self._loaded) and not self._is_stopping

    def stop_taking(self) -> None:
        """From now on requests are refused as UNAVAILABLE; those begun go on."""
        self._watch_stop.set()
        with self._changed:
            self._is_stopping = True

    def wait_until_unused(self, seconds: float) -> None:
        """Returns when no request holds a version, or after this time."""
        with self._changed:
            self._changed.wait_for(
                lambda: not any(version.num_leases for version in self._loaded.values()), seconds
            )

    def _resolve_version(self, spec: ModelSpec) -> int | None:
        if spec.label is None:
            return spec.version
        if spec.name != self._options.name or spec.label not in self._options.labels:
            raise invalid(f"Unrecognized servable version label: {spec.label}")
        return self._options.labels[spec.label]

    def _find(self, spec: ModelSpec) -> LoadedVersion:
        number = self._resolve_version(spec)
        wanted = f"Latest({spec.name})" if number is None else f"Specific({spec.name}, {number})"
        if spec.name == self._options.name and self._loaded:
            version = self._loaded.get(max(self._loaded) if number is None else number)
            if version is not None:
                return version
        raise ServingError(Code.NOT_FOUND, f"Servable not found for request: {wanted}")

    def _watch(self) -> None:
        while not self._watch_stop.wait(self._options.poll_seconds):
            try:
                self.poll()
            except Exception:
                logger.exception("looking for new versions failed; going on with what is loaded")

    def _ensure_loaded(self, number: int) -> bool:
        """Loads the version if it is not loaded; true if it is loaded in the end."""
        if number in self._loaded:
            return True
        folder = self._folder / str(number)
        fingerprint = _read_fingerprint(folder)
        if self._broken.get(number) == fingerprint:
            return False
        self._set_status(VersionStatus(number, State.LOADING))
        start = time.monotonic()
        try:
            servable = Servable(folder, number)
        except Exception as error:  # noqa: BLE001 a broken file may raise anything
            reason = first_line(error)
            self._broken[number] = fingerprint
            self.metrics.load_attempts.add(str(folder), "fail")
            self._set_status(VersionStatus(number, State.END, reason))
            logger.warning("version %d refused: %s", number, reason)
            return False
        self.metrics.load_attempts.add(str(folder), "success")
        self.metrics.load_latency.add(str(folder), amount=to_microseconds(time.monotonic() - start))
        options = self._options
        batcher = Batcher(options.max_batch, options.max_waiting, options.max_answer_values, self.metrics)
        with self._changed:
            self._loaded[number] = LoadedVersion(servable, batcher)
            self._statuses[number] = VersionStatus(number, State.AVAILABLE)
        self._broken.pop(number, None)
        logger.info("version %d is served", number)
        return True

    def _unload(self, number: int) -> None:
        with self._changed:
            version = self._loaded.pop(number)
            self._statuses[number] = VersionStatus(number, State.UNLOADING)
            self._changed.wait_for(lambda: version.num_leases == 0)
        version.batcher.close()
        self._set_status(VersionStatus(number, State.END))
        logger.info("version %d is unloaded", number)

    def _set_status(self, status: VersionStatus) -> None:
        with self._changed:
            self._statuses[status.number] = status


def _read_fingerprint(folder: Path) -> Fingerprint:
    """Name, time and size of every file: different when a version has been mended."""
    try:
        stats = [(str(path), path.stat()) for path in sorted(folder.rglob("*"))]
    except OSError:
        return ()
    return tuple((name, stat.st_mtime_ns, stat.st_size) for name, stat in stats)
