"""One process at a time writes in a run folder."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from tfmlm.errors import UserError
from tfmlm.run_folder import explain_unwritable


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
