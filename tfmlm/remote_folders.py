"""Folders on the file systems that TensorFlow knows, such as `gs://`: brought here, and put there.

Libraries read and write local files, so a remote folder is always a copy of a local one. Nothing is renamed,
for object stores can only copy and remove. A folder that is put there is whole if it has its manifest, which
is written last and removed first; a single file is whole once it is closed, as object stores have it.
"""

from __future__ import annotations

import atexit
import json
import posixpath
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tensorflow as tf

from tfmlm.errors import UserError, first_line
from tfmlm.export_layout import read_versions
from tfmlm.inside import stays_inside
from tfmlm.urls import is_url

MANIFEST_NAME = "manifest.json"
"""In a folder that was put there: the sizes of its files in bytes, by their names."""

SAVED_MODEL = "saved_model.pb"
"""TensorFlow Serving takes a folder for a version as soon as it sees this file."""


@contextmanager
def explained_remote_errors(address: str) -> Iterator[None]:
    """Turns an error of a remote file system into one line."""
    try:
        yield
    except tf.errors.UnimplementedError as error:
        raise UserError(
            f"{address!r} is on a file system that TensorFlow does not know here: {first_line(error)}"
        ) from error
    except tf.errors.OpError as error:
        raise UserError(f"{address!r} cannot be read or written: {first_line(error)}") from error


def make_folder(address: str) -> None:
    """Makes a folder, and those above it, here with the mode that the umask gives; TensorFlow's own is 0755.

    Raises:
        OSError, tf.errors.OpError: it cannot be made.
    """
    if is_url(address):
        tf.io.gfile.makedirs(address)
    else:
        Path(address).mkdir(parents=True, exist_ok=True)


def put_file(path: Path, address: str) -> None:
    """Copies a local file over a remote one.

    Raises:
        tf.errors.OpError: it cannot be written.
    """
    _prepare(address)
    tf.io.gfile.copy(str(path), address, overwrite=True)


def write_text(text: str, address: str) -> None:
    """Writes a small remote file.

    Raises:
        tf.errors.OpError: it cannot be written.
    """
    _prepare(address)
    with tf.io.gfile.GFile(address, "w") as file:
        file.write(text)


def _prepare(address: str) -> None:
    make_folder(posixpath.dirname(address))
    if address.startswith("ram://") and tf.io.gfile.exists(address):
        tf.io.gfile.remove(address)  # it would be added to, by a fault of TensorFlow 2.20


def put_folder(folder: Path, address: str) -> None:
    """Copies a local folder into the place of a remote one.

    Raises:
        tf.errors.OpError: it cannot be written; what is there then has no manifest.
    """
    remove_folder(address)
    paths = [path for path in folder.rglob("*") if path.is_file()]
    # The file that tells others of a whole folder comes last but for the manifest.
    paths.sort(key=lambda path: (path.name == SAVED_MODEL, path))
    sizes = {}
    for path in paths:
        name = path.relative_to(folder).as_posix()
        put_file(path, posixpath.join(address, name))
        sizes[name] = path.stat().st_size
    write_text(json.dumps(sizes, indent=1), posixpath.join(address, MANIFEST_NAME))


def remove_folder(address: str) -> None:
    """Removes a remote folder, its manifest first, if it is there."""
    if not tf.io.gfile.exists(address):
        return
    manifest = posixpath.join(address, MANIFEST_NAME)
    if tf.io.gfile.exists(manifest):
        tf.io.gfile.remove(manifest)
    tf.io.gfile.rmtree(f"{address}/")  # without the stroke `ram://` would take all names that begin so


def is_whole(address: str) -> bool:
    """True if a folder that was put there has its manifest."""
    return read_sizes(address) is not None


def read_sizes(address: str) -> dict[str, int] | None:
    """The manifest of a folder; None if there is none, or half of one."""
    try:
        with tf.io.gfile.GFile(posixpath.join(address, MANIFEST_NAME)) as file:
            sizes = json.loads(file.read())
    except (tf.errors.NotFoundError, ValueError):
        return None
    return sizes if isinstance(sizes, dict) else None


def list_names(address: str) -> list[str]:
    """Names of what lies in a remote folder; none if it is not there."""
    # `listdir` would take a network that is gone for a folder that is not there.
    if not tf.io.gfile.exists(address):
        return []
    names = tf.io.gfile.listdir(address)
    return sorted({name.rstrip("/") for name in names} - {""})


def bring_file(address: str, path: Path) -> bool:
    """Copies a remote file here; false if there is none."""
    if not tf.io.gfile.exists(address):
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    tf.io.gfile.copy(address, str(path), overwrite=True)
    return True


def bring_folder(address: str, folder: Path) -> None:
    """Copies a remote folder here, by its manifest if it has one.

    Raises:
        UserError: a file is missing or of another size than the manifest says, or would lie elsewhere here.
        tf.errors.OpError: it cannot be read.
    """
    sizes = read_sizes(address)
    for name in _walk(address) if sizes is None else sizes:
        if not stays_inside(name):
            raise UserError(f"{address!r} is damaged: its files lie elsewhere, {name!r} for one")
        is_there = bring_file(posixpath.join(address, name), folder / name)
        size = (folder / name).stat().st_size if is_there else 0
        if sizes is not None and not (is_there and size == sizes[name]):
            raise UserError(
                f"{posixpath.join(address, name)!r} is damaged: it has {size:,} bytes and its manifest says "
                f"{sizes[name]:,}"
            )


def _walk(address: str, inner: str = "") -> Iterator[str]:
    """Names of the files below a folder; `tf.io.gfile.walk` would pass over what it cannot list."""
    for name in list_names(posixpath.join(address, inner)):
        path = posixpath.join(inner, name)
        if tf.io.gfile.isdir(posixpath.join(address, path)):
            yield from _walk(address, path)
        else:
            yield path


# === What a command was given ===


def bring_model(address: str) -> Path:
    """Copies the model of a remote run, a remote model folder or the newest version of an export here.

    Returns:
        A folder that lies as the remote one does, and is removed when the process ends.

    Raises:
        UserError: it cannot be read, or is not whole.
    """
    address = address.rstrip("/")
    copy = Path(tempfile.mkdtemp(prefix="tfmlm-"))
    atexit.register(shutil.rmtree, copy, ignore_errors=True)
    with explained_remote_errors(address):
        names = list_names(address)
        if not names:
            raise UserError(f"{address!r} is not there, or empty")
        versions = [str(number) for number in read_versions(names, address)]
        inner = "model" if "model" in names else max(versions, key=int, default="")
        source = posixpath.join(address, inner).rstrip("/")
        if not is_whole(source) and _is_ours(source):
            raise UserError(f"{source!r} is not whole: it lacks {MANIFEST_NAME}, which is written last")
        bring_folder(source, copy / inner)
    return copy


def _is_ours(address: str) -> bool:
    """True for what only this package puts there, and so with a manifest."""
    return bool(tf.io.gfile.exists(posixpath.join(address, "run_config.yaml")))
