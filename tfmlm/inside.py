"""Files of folders that may come from strangers: nothing outside of one is read because of what is in it."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any

from tfmlm.errors import UserError


def find_inside(folder: Path, file_name: str, whose: str) -> Path | None:
    """The file of that name, resolved; None if there is none.

    Args:
        folder: it may be a link itself.
        file_name: of a file in it.
        whose: what the folder holds, for the message, such as `tokenizer 'a/b'`.

    Raises:
        UserError: it is a link to a place outside the folder; the Hub's own cache links to its `blobs`.
    """
    file = (folder / file_name).resolve()
    if not file.is_file():
        return None
    root = folder.resolve()
    roots = [root] + [root.parents[1] / "blobs"] * (root.parent.name == "snapshots")
    if not any(file.is_relative_to(each) for each in roots):
        raise UserError(
            f"{whose}: {file_name} is a link out of its folder, to {str(file)!r}; put the file itself there"
        )
    return file


def stays_inside(name: object) -> bool:
    """Whether a name in a folder's own list of files, with `/` between folders, is one of a file below it."""
    if not isinstance(name, str) or not name or "\0" in name or "\\" in name:
        return False
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and str(path) not in (".", "")


_MOST_JSON_BYTES = 10**8
"""Of a file of settings; Python takes some ten times its size for it."""


def read_json(path: Path) -> Any:
    """What a file of JSON with settings holds.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no JSON, no UTF-8, nested too deeply, or too large.
    """
    if path.stat().st_size > _MOST_JSON_BYTES:
        raise ValueError(f"{path.name} has more than {_MOST_JSON_BYTES:,} bytes")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError(f"{path.name} is nested too deeply") from error
