"""From a configured source to two sets of texts, one to train on and one held out."""

from __future__ import annotations

import glob
import math
from pathlib import Path
from typing import NamedTuple

from datasets import Dataset, Features, Value, load_dataset
from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError

from tfmlm.config import FILE_SOURCES, DataConfig
from tfmlm.data.installed_docs import load_installed_docs
from tfmlm.errors import UserError

TEXT = "text"
"""The one column of a text dataset."""

_STRINGS = (Value("string"), Value("large_string"))
_TEXT_FEATURES = Features({TEXT: Value("string")})


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
    texts = select_text(_load(data, data.train_files), data)
    if data.max_rows is not None and data.max_rows < len(texts):
        texts = texts.shuffle(seed=seed).select(range(data.max_rows))
    if data.validation_files:
        return Texts(texts, select_text(_load(data, data.validation_files), data))
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


def _load(data: DataConfig, files: list[str]) -> Dataset:
    if data.source == "installed-docs":
        return load_installed_docs(data.num_proc)
    if data.source in FILE_SOURCES:
        return _load_files(data.source, expand_globs(files))
    try:
        return load_dataset(data.source, data.config_name, split=data.split)
    except (DatasetGenerationError, DatasetNotFoundError, ValueError, OSError) as error:
        raise UserError(
            f"data.source {data.source!r} could not be loaded from the Hub: {_first_line(error)}; "
            f"give a dataset id, installed-docs, or one of {', '.join(FILE_SOURCES)}"
        ) from error


def _load_files(source: str, files: list[str]) -> Dataset:
    # pandas would read the words "NA" and "null" as nothing.
    options = {"keep_default_na": False} if source == "csv" else {}
    try:
        return load_dataset(source, data_files=files, split="train", **options)
    # StopIteration: an empty JSON file.
    except (DatasetGenerationError, ValueError, OSError, StopIteration) as error:
        raise UserError(f"{source} file cannot be read ({', '.join(files)}): {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    lines = str(error.__cause__ or error).splitlines()
    return lines[0] if lines else "it holds nothing"


def expand_globs(patterns: list[str]) -> list[str]:
    """Expands globs, in order, each file once; every pattern must match a file."""
    files: list[str] = []
    for pattern in patterns:
        matches = [pattern] if Path(pattern).is_file() else sorted(glob.glob(pattern, recursive=True))
        if not matches:
            raise UserError(f"no file matches {pattern!r}; check data.train_files and data.validation_files")
        files += matches
    return list(dict.fromkeys(files))


def select_text(dataset: Dataset, data: DataConfig) -> Dataset:
    """Keeps the configured column as one column of non-empty strings.

    Nested columns are flattened to dotted names and lists of strings joined by a space.
    """
    flat = dataset.flatten()
    if data.text_column not in flat.column_names:
        raise UserError(
            f"data.text_column {data.text_column!r} does not exist; "
            f"the columns are: {', '.join(flat.column_names)}"
        )
    column = flat.select_columns([data.text_column]).rename_columns({data.text_column: TEXT})
    feature = column.features[TEXT]
    if getattr(feature, "feature", None) in _STRINGS:
        column = column.map(_join_lists, batched=True, features=_TEXT_FEATURES)
    elif feature not in _STRINGS:
        raise UserError(
            f"data.text_column {data.text_column!r} holds {_describe(feature)}, not text; "
            f"the columns are: {', '.join(flat.column_names)}"
        )
    texts = column.filter(_has_text, batched=True)
    if len(texts) == 0:
        raise UserError(
            f"data.source {data.source!r} holds no text in column {data.text_column!r}; "
            f"{len(column)} rows were read and all are empty"
        )
    return texts


def _join_lists(batch: dict[str, list[list[str] | None]]) -> dict[str, list[str]]:
    return {TEXT: [" ".join(part for part in parts or () if part) for parts in batch[TEXT]]}


def _has_text(batch: dict[str, list[str | None]]) -> list[bool]:
    return [text is not None and not text.isspace() and text != "" for text in batch[TEXT]]


def _describe(feature: object) -> str:
    return feature.dtype if isinstance(feature, Value) else type(feature).__name__.lower()
