"""Zip archives as folders of files, each of which is read from the archive as it is, by fsspec's `zip://`."""

from __future__ import annotations

import re
import zipfile
from collections import Counter
from pathlib import Path
from typing import BinaryIO, NamedTuple

from tfmlm.data.remote_files import open_remote_file
from tfmlm.errors import UserError, first_line
from tfmlm.inside import stays_inside
from tfmlm.urls import hide_secrets, is_url

ZIP_SUFFIX = ".zip"

_SCHEME = "zip://"
_CHAIN = "::"
"""Between a file in an archive and the archive, in fsspec's notation."""

_SPECIAL = re.compile(r"::|://|[*?\[]")
"""What fsspec would read as something else than a name."""

_ENCRYPTED = 1
"""Bit of a file's flags."""


class InZip(NamedTuple):
    """A file in an archive.

    Attributes:
        archive: a path or a URL.
        name: in it.
    """

    archive: str
    name: str


def is_zip(file: str) -> bool:
    """Whether a path, or a URL, is named as an archive."""
    return (re.sub("[?#].*", "", file) if is_url(file) else file).endswith(ZIP_SUFFIX)


def list_zip(archive: str) -> list[str]:
    """The files in an archive, sorted, without hidden ones.

    Args:
        archive: a path or a URL.

    Raises:
        UserError: it cannot be read, is encrypted, or holds a file of a name that may lead out of it.
    """
    shown = hide_secrets(archive)
    try:
        with _open(archive) as content, zipfile.ZipFile(content) as opened:
            files = [
                info for info in opened.infolist() if not info.is_dir() and not _is_hidden(info.filename)
            ]
    except (OSError, EOFError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{shown} cannot be read: {first_line(error)}; fetch it again, or unpack it"
        ) from error
    for name, num_times in Counter(info.filename for info in files).items():
        if not stays_inside(name) or _SPECIAL.search(name) or num_times > 1:
            times = ", and more than once" if num_times > 1 else ""
            raise UserError(f"{shown} holds a file of the name {name!r}{times}; unpack it")
    if any(info.flag_bits & _ENCRYPTED for info in files):
        raise UserError(f"{shown} is encrypted; unpack it")
    return sorted(info.filename for info in files)


def _open(archive: str) -> BinaryIO:
    return open_remote_file(archive) if is_url(archive) else Path(archive).open("rb")


def _is_hidden(name: str) -> bool:
    """As `datasets` has it; macOS packs a folder `__MACOSX` beside the files."""
    return any(part.startswith((".", "__")) and part != ".." for part in name.split("/"))


def name_in_zip(archive: str, name: str) -> str:
    """A URL of a file in an archive."""
    return f"{_SCHEME}{name}{_CHAIN}{archive}"


def split_zip_name(file: str) -> InZip | None:
    """What `name_in_zip` put together; None for other files."""
    name, chain, archive = file.removeprefix(_SCHEME).partition(_CHAIN)
    return InZip(archive, name) if file.startswith(_SCHEME) and chain else None
