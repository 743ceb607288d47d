"""Uploads beside the training: one at a time, of each branch the latest, and never an exception."""

from __future__ import annotations

import logging
import shutil
import threading
from functools import partial

from tfmlm.config import HubConfig
from tfmlm.hub.upload import PushError, Upload, upload_with_retry

_LOGGER = logging.getLogger(__name__)


class BackgroundPusher:
    """A thread that uploads folders and removes them after.

    A folder that waits is replaced by a newer one for the same branch; the one on its way arrives. So it
    is neither `upload_folder(run_as_future=True)`, which queues all, nor `CommitScheduler`, which commits at
    fixed times whatever lies in a folder.
    """

    def __init__(self, hub: HubConfig) -> None:
        self._hub = hub
        self._waiting: dict[str | None, Upload] = {}
        self._current: Upload | None = None
        self._changed = threading.Condition()
        self._is_ending = threading.Event()
        # A daemon: an upload that hangs must not keep a failed run from ending.
        self._thread = threading.Thread(target=self._work, name="hub", daemon=True)
        self._thread.start()

    def offer(self, upload: Upload) -> None:
        """Takes a folder, which belongs to the pusher from now on, and returns at once."""
        with self._changed:
            replaced = self._waiting.pop(upload.revision, None)
            self._waiting[upload.revision] = upload
            self._changed.notify_all()
        if replaced:
            _LOGGER.info("%s: not pushed, %s is newer", replaced.name, upload.name)
            _remove(replaced)

    def drop(self, revision: str | None) -> None:
        """Forgets what waits for a branch: something better is about to be pushed there."""
        with self._changed:
            dropped = self._waiting.pop(revision, None)
        if dropped:
            _remove(dropped)

    def finish(self, patience_seconds: float | None = None) -> None:
        """Waits until all has been uploaded or has failed once more.

        Args:
            patience_seconds: wait no longer than this.
        """
        with self._changed:
            open_uploads = [each.name for each in (self._current, *self._waiting.values()) if each]
            self._is_ending.set()
            self._changed.notify_all()
        if open_uploads and patience_seconds != 0:
            _LOGGER.info("waiting for the Hub to take %s", " and ".join(open_uploads))
        self._thread.join(patience_seconds)

    def _work(self) -> None:
        while (upload := self._take()) is not None:
            try:
                address = upload_with_retry(
                    upload,
                    self._hub,
                    sleep=self._is_ending.wait,
                    may_go_on=partial(self._is_newest, upload),
                )
            except PushError as error:
                _LOGGER.warning("%s could not be pushed: %s", upload.name, error)
            else:
                _LOGGER.info("%s is on the Hub: %s", upload.name, address)
            _remove(upload)
            with self._changed:
                self._current = None

    def _take(self) -> Upload | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_ending.is_set())
            if self._waiting:
                self._current = self._waiting.pop(next(iter(self._waiting)))
            return self._current

    def _is_newest(self, upload: Upload) -> bool:
        with self._changed:
            return upload.revision not in self._waiting and not self._is_ending.is_set()


def _remove(upload: Upload) -> None:
    shutil.rmtree(upload.folder, ignore_errors=True)
