"""Folders that `save_to_disk` of `datasets` wrote: of a Dataset, or of a DatasetDict with its splits.

Such a folder may come from a stranger. Only the lists of splits and files are read, no name in them may lead
out of the folder, and the files are those of Arrow; neither features nor formats are taken.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from datasets import ReadInstruction

from tfmlm.data.arrow_files import count_rows
from tfmlm.errors import UserError, first_line
from tfmlm.inside import find_inside, read_json, stays_inside

DICT_NAME = "dataset_dict.json"
"""Lists the splits of a DatasetDict."""

STATE_NAME = "state.json"
"""Lists the files of a Dataset."""

_INFO_NAME = "dataset_info.json"

_ONLY_SPLIT = "train"
"""What a Dataset is taken for, which has no splits."""


class FileRows(NamedTuple):
    """Rows of a file.

    Attributes:
        file: a path or a URL.
        first: row, from 0.
        end: the row after the last one; all that follow if it is None.
    """

    file: str
    first: int = 0
    end: int | None = None

    @property
    def is_part(self) -> bool:
        """Whether they may not be all rows of the file."""
        return self.first > 0 or self.end is not None


def is_saved_dataset(folder: str) -> bool:
    """Whether `save_to_disk` wrote the folder."""
    path = Path(folder)
    return Path(path, DICT_NAME).is_file() or all(
        Path(path, name).is_file() for name in (STATE_NAME, _INFO_NAME)
    )


def list_splits(folder: str) -> dict[str, Path]:
    """The folders of the splits by name; a Dataset is the only one of its own.

    Raises:
        UserError: the list of the splits is broken, or leads out of the folder.
    """
    path = Path(folder)
    if not Path(path, DICT_NAME).is_file():
        return {_ONLY_SPLIT: path}
    names = _read_list(path, DICT_NAME, "splits")
    for name in names:
        is_name = stays_inside(name) and "/" not in name
        if not is_name or not (path / name).resolve().is_relative_to(path.resolve()):
            raise UserError(f"{folder!r}: {DICT_NAME} names the split {name!r}, which is no folder in it")
    return {name: path / name for name in names}


def list_files(folder: Path) -> list[str]:
    """The files of a Dataset, in order.

    Raises:
        UserError: the list of the files is broken, leads out of the folder, or names one that is not there.
    """
    files = []
    for item in _read_list(folder, STATE_NAME, "_data_files"):
        name = item.get("filename") if isinstance(item, dict) else None
        is_name = isinstance(name, str) and stays_inside(name) and "/" not in name
        if not is_name or find_inside(folder, str(name), f"dataset {str(folder)!r}") is None:
            raise UserError(
                f"{str(folder)!r}: {STATE_NAME} names {name!r}, which is no file in it; save it again"
            )
        files.append(str(folder / str(name)))
    return files


def find_rows(folder: str, split: str, key: str) -> list[FileRows]:
    """The rows of a split, or of parts of splits.

    Args:
        folder: of `save_to_disk`.
        split: in the Hub's notation, such as `train[:10%]+test`.
        key: of the configuration, for messages.

    Raises:
        UserError: there is no such split, or the notation is wrong.
    """
    splits = list_splits(folder)
    names = [part.partition("[")[0].strip() for part in split.split("+")]
    missing = next((name for name in names if name not in splits), None)
    if missing is not None:
        raise UserError(f"{key} {missing!r} is no split of {folder!r}, which has {', '.join(splits)}")
    files = {name: list_files(splits[name]) for name in dict.fromkeys(names)}
    if "[" not in split:
        return [FileRows(file) for name in names for file in files[name]]
    lengths = {name: [_count(file) for file in files[name]] for name in files}
    try:
        parts = ReadInstruction.from_spec(split).to_absolute({name: sum(lengths[name]) for name in lengths})
    except (ValueError, AssertionError) as error:
        raise UserError(f"{key} {split!r} cannot be read: {first_line(error)}") from error
    rows = [
        rows
        for part in parts
        for rows in _cut(files[part.splitname], lengths[part.splitname], part.from_, part.to)
    ]
    if not rows:
        raise UserError(f"{key} {split!r} of {folder!r} holds no row")
    return rows


def _cut(files: list[str], lengths: list[int], first: int, end: int) -> list[FileRows]:
    """Rows `first` to `end` of files one after the other."""
    parts = []
    start = 0
    for file, length in zip(files, lengths, strict=True):
        begin, stop = max(first - start, 0), min(end - start, length)
        if begin < stop:
            parts.append(FileRows(file, begin, None if stop == length else stop))
        start += length
    return parts


def _count(file: str) -> int:
    try:
        return count_rows(file)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{file!r} cannot be read: {first_line(error)}; save the dataset again") from error


def _read_list(folder: Path, name: str, key: str) -> list[Any]:
    file = find_inside(folder, name, f"dataset {str(folder)!r}")
    if file is None:
        raise UserError(f"{str(folder)!r} has no {name}, so it is no whole dataset; save it again")
    try:
        values = read_json(file)[key]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"{str(folder / name)!r} cannot be read: {first_line(error)}") from error
    if not isinstance(values, list) or not values:
        raise UserError(f"{str(folder / name)!r} lists nothing in {key!r}")
    return values
