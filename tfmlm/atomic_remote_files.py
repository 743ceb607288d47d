"""Files on any file system that TensorFlow knows, `gs://` too, that get their name when they are whole."""

from __future__ import annotations

import posixpath
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import tensorflow as tf


@contextmanager
def begin_remote_file(folder: str, name: str) -> Iterator[str]:
    """Gives a temporary name in `folder`, which becomes `name` when the block ends well.

    Whatever the block raises, the file is as it was before, and nothing stays of the new one.
    """
    unfinished = posixpath.join(folder, f".{name}.{uuid.uuid4().hex}")
    try:
        yield unfinished
        tf.io.gfile.rename(unfinished, posixpath.join(folder, name), overwrite=True)
    except BaseException:
        with suppress(tf.errors.OpError):
            tf.io.gfile.remove(unfinished)
        raise
