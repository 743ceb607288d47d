"""From a configured source to two sets of texts, one to train on and one held out."""

from __future__ import annotations

import glob
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from datasets import Dataset, get_dataset_split_names, load_dataset
from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError

from tfmlm.config import FILE_SOURCES, DataConfig
from tfmlm.data.columns import select_text
from tfmlm.data.installed_docs import load_installed_docs
from tfmlm.errors import UserError

_SUFFIXES = {
    "csv": (".csv", ".csv.gz"),
    "json": (".json", ".jsonl", ".json.gz", ".jsonl.gz"),
    "parquet": (".parquet",),
    "text": (".txt", ".txt.gz", ".md"),
}
"""Files that a folder stands for."""

_OWN_VALIDATION_SPLIT = "validation"
"""The Hub's usual name of a held-out split."""


_Answer = TypeVar("_Answer")


class Texts(NamedTuple):
    """Two datasets with one string column, `text`."""

    train: Dataset
    validation: Dataset


def load_texts(data: DataConfig, seed: int) -> Texts:
    """Loads the configured texts and holds some out.

    Args:
        data: the source.
        seed: chooses `max_rows` texts and the held-out ones.

    Raises:
        UserError: a file, column or dataset is missing or holds no text; the message names it.
    """
    texts = select_text(_load(data, data.train_files, data.split), data)
    if data.max_rows is not None and data.max_rows < len(texts):
        texts = texts.shuffle(seed=seed).select(range(data.max_rows))
    validation_split = _find_validation_split(data)
    if data.validation_files or validation_split:
        held_out = _load(data, data.validation_files, validation_split or data.split)
        return Texts(texts, select_text(held_out, data))
    if len(texts) < 2:
        raise UserError(
            f"data.source {data.source!r} holds {len(texts)} text; at least 2 are needed to hold one out; "
            "give more text or name data.validation_files"
        )
    if math.ceil(data.validation_fraction * len(texts)) >= len(texts):
        raise UserError(
            f"data.validation_fraction {data.validation_fraction} of {len(texts)} texts leaves none to train "
            "on; give more text or a smaller fraction"
        )
    split = texts.train_test_split(test_size=data.validation_fraction, seed=seed)
    return Texts(split["train"], split["test"])


def _find_validation_split(data: DataConfig) -> str | None:
    """The configured split of a Hub dataset, or its own `validation` if the training takes another."""
    if data.source in (*FILE_SOURCES, "installed-docs") or data.validation_split:
        return data.validation_split
    names = _ask_hub(data, lambda: get_dataset_split_names(data.source, data.config_name))
    takes_another = not data.split.startswith(_OWN_VALIDATION_SPLIT)
    return _OWN_VALIDATION_SPLIT if _OWN_VALIDATION_SPLIT in names and takes_another else None


def _load(data: DataConfig, files: list[str], split: str) -> Dataset:
    if data.source == "installed-docs":
        return load_installed_docs(data.num_proc)
    if data.source in FILE_SOURCES:
        return _load_files(data, expand_paths(files, data.source))
    return _ask_hub(data, lambda: load_dataset(data.source, data.config_name, split=split))


def _ask_hub(data: DataConfig, ask: Callable[[], _Answer]) -> _Answer:
    try:
        return ask()
    except (DatasetGenerationError, DatasetNotFoundError, ValueError, OSError) as error:
        raise UserError(
            f"data.source {data.source!r} could not be loaded from the Hub: {_first_line(error)}; "
            f"give a dataset id, installed-docs, or one of {', '.join(FILE_SOURCES)}"
        ) from error


def _load_files(data: DataConfig, files: list[str]) -> Dataset:
    options: dict[str, dict[str, Any]] = {
        # pandas would read the words "NA" and "null" as nothing.
        "csv": {"keep_default_na": False},
        "text": {"sample_by": data.sample_by},
    }
    try:
        return load_dataset(data.source, data_files=files, split="train", **options.get(data.source, {}))
    # StopIteration: an empty JSON file.
    except (DatasetGenerationError, ValueError, OSError, StopIteration) as error:
        raise UserError(
            f"{data.source} file cannot be read ({', '.join(files)}): {_first_line(error)}"
        ) from error


def _first_line(error: Exception) -> str:
    lines = str(error.__cause__ or error).splitlines()
    return lines[0] if lines else "it holds nothing"


def expand_paths(patterns: list[str], source: str) -> list[str]:
    """Expands globs and folders, in order, each file once; every pattern must match a file."""
    files: list[str] = []
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            matches = sorted(str(file) for file in path.rglob("*") if file.name.endswith(_SUFFIXES[source]))
        else:
            matches = [pattern] if path.is_file() else sorted(glob.glob(pattern, recursive=True))
        if not matches:
            raise UserError(
                f"no {source} file matches {pattern!r}; check data.train_files and data.validation_files"
            )
        files += matches
    return list(dict.fromkeys(files))
