"""Opens a configured source as a stream of texts."""

from __future__ import annotations

import glob
import zlib
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import xxhash
from datasets import Dataset, IterableDataset, get_dataset_split_names, load_dataset
from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError
from fsspec.core import strip_protocol

from tfmlm.config import FILE_SOURCES, DataConfig
from tfmlm.data.cache import hash_once
from tfmlm.data.compressed import COMPRESSED_SUFFIXES
from tfmlm.data.files import (
    TEXTS_A_BATCH,
    BadRow,
    Batch,
    check_columns,
    find_bad_row,
    find_schema,
    holds_value,
    make_batches,
    read_batches,
    select_texts,
    split_column_names,
)
from tfmlm.data.installed_docs import load_installed_docs
from tfmlm.data.remote_files import find_remote_files, identify_remote_file
from tfmlm.data.text_stream import TextStream
from tfmlm.errors import UserError
from tfmlm.model_names import advise_offline
from tfmlm.urls import hide_secrets, is_url

_SUFFIXES = {
    source: tuple(f"{suffix}{packed}" for suffix in suffixes for packed in COMPRESSED_SUFFIXES)
    for source, suffixes in {"csv": [".csv"], "json": [".json", ".jsonl"], "text": [".txt", ".md"]}.items()
} | {"parquet": (".parquet",)}
"""Files that a folder stands for."""

_OWN_VALIDATION_SPLIT = "validation"
"""The Hub's usual name of a held-out split."""

_MAX_PARTS = 64
"""Parts of a source that is one table: enough for the workers of a Beam job."""

_READ_ERRORS = (
    ValueError,
    OSError,
    EOFError,
    RuntimeError,
    StopIteration,  # an empty JSON file
    pa.ArrowException,
    zlib.error,
    DatasetGenerationError,
    DatasetNotFoundError,
)

_Answer = TypeVar("_Answer")


def open_training_texts(data: DataConfig) -> TextStream:
    """The texts of `data.train_files` or `data.split`.

    Raises:
        UserError: a file, column or dataset is missing or broken; the message names it. Reading the stream
            raises it too, as soon as a row cannot be read.
    """
    return _open(data, data.train_files, data.split)


def open_validation_texts(data: DataConfig) -> TextStream | None:
    """The texts of a validation set of their own, if there is one."""
    split = _find_validation_split(data)
    if not data.validation_files and not split:
        return None
    return _open(data, data.validation_files, split or data.split)


def _open(data: DataConfig, files: list[str], split: str) -> TextStream:
    if data.source in FILE_SOURCES:
        return _open_files(data, expand_paths(files, data.source))
    if data.source == "installed-docs":
        return _open_table(load_installed_docs(data.num_proc), data)
    if data.streaming:
        rows = _ask_hub(
            data, lambda: load_dataset(data.source, data.config_name, split=split, streaming=True)
        )
        return _open_rows(rows, data, partial(_explain_hub, data))
    return _open_table(
        _ask_hub(
            data, lambda: load_dataset(data.source, data.config_name, split=split, num_proc=data.num_proc)
        ),
        data,
    )


def _open_table(table: Dataset, data: DataConfig) -> TextStream:
    rows = table.to_iterable_dataset(num_shards=max(1, min(len(table), _MAX_PARTS)))
    # The hash by which `datasets` itself tells tables apart.
    fingerprint = f"{table._fingerprint} {data.text_column}"  # noqa: SLF001
    return _open_rows(rows, data, partial(_explain_hub, data), lambda: fingerprint)


def _open_files(data: DataConfig, files: list[str]) -> TextStream:
    bad_rows: dict[str, BadRow] = {}
    if data.on_bad_rows == "error":
        _check_files(data, files)
        read = partial(_read_sound_rows, data, files[0])
    else:
        read = partial(_read_good_rows, data, bad_rows)
    return TextStream(
        num_parts=len(files),
        read_part=lambda part: make_batches(chain.from_iterable(read(files[part]))),
        fingerprint=cache(partial(_hash_files, files, data)),
        bad_rows=bad_rows,
    )


def _check_files(data: DataConfig, files: list[str]) -> None:
    """Checks the columns of the first file that has rows with a value."""
    schemas = (schema for file in files if (schema := find_schema(file, data)))
    first = schema = next(schemas, None)
    while schema is not None and not holds_value(schema, data):  # a file of nulls tells nothing
        schema = next(schemas, None)
    schema = schema or first
    if schema is None:
        bad_row = find_bad_row(files, data)
        raise _explain_files(data, str(bad_row or f"{', '.join(map(hide_secrets, files))}: it holds no row"))
    check_columns(schema, data)


def _open_rows(
    rows: IterableDataset,
    data: DataConfig,
    explain: Callable[[int | None, Exception], UserError],
    fingerprint: Callable[[], str] | None = None,
) -> TextStream:
    tables = rows.with_format("arrow")
    names = split_column_names(data)

    def read_part(part: int) -> Iterator[list[str]]:
        shard = tables.shard(num_shards=tables.num_shards, index=part)
        try:
            for table in shard.iter(TEXTS_A_BATCH):
                yield select_texts(table, names)
        except _READ_ERRORS as error:
            raise explain(part, error) from error

    try:
        first = next(iter(tables.iter(1)), None)
    except _READ_ERRORS as error:
        raise explain(None, error) from error
    if first is None:
        raise explain(None, ValueError("it holds no row"))
    check_columns(first.schema, data)
    return TextStream(tables.num_shards, read_part, fingerprint or _refuse_fingerprint)


def _refuse_fingerprint() -> str:
    raise NotImplementedError("a Hub dataset that is streamed is not cached")


def _read_sound_rows(data: DataConfig, first_file: str, file: str) -> Iterator[list[str]]:
    """The texts of a file all of whose rows can be read; one that lacks the column counts as empty."""
    lacking: list[BadRow] = []
    is_empty = True
    for batch in read_batches(file, data):
        texts, bad = _part(batch)
        for row in bad:
            if not row.is_whole:
                raise _explain_files(data, str(row))
        lacking = lacking or bad
        is_empty = is_empty and not texts
        yield texts
    if lacking and is_empty:
        row = lacking[0]._replace(reason=f"its columns are not those of {hide_secrets(first_file)}")
        raise _explain_files(data, str(row))


def _read_good_rows(data: DataConfig, bad_rows: dict[str, BadRow], file: str) -> Iterator[list[str]]:
    """The texts of the rows that can be read; the others are counted."""
    num_bad = 0
    for batch in read_batches(file, data):
        texts, bad = _part(batch)
        num_bad += len(bad)
        if bad:
            first = bad_rows.get(file, bad[0])
            # A pass before this one may have come further.
            bad_rows[file] = first._replace(num_rows=max(num_bad, first.num_rows))
        yield texts


def _part(batch: Batch) -> tuple[list[str], list[BadRow]]:
    """The texts that are not blank, and the bad rows."""
    texts = [item for item in batch if isinstance(item, str) and item and not item.isspace()]
    return texts, [] if len(texts) == len(batch) else [item for item in batch if isinstance(item, BadRow)]


def _hash_files(files: list[str], data: DataConfig) -> str:
    settings = f"{data.source} {data.text_column} {data.sample_by} {data.on_bad_rows} {data.max_text_bytes}"
    fingerprint = xxhash.xxh3_128(settings.encode())
    for file in files:
        identity = identify_remote_file(file) if is_url(file) else hash_once(Path(file))
        fingerprint.update(identity.encode())
    return fingerprint.hexdigest()


# === Errors ===


def _ask_hub(data: DataConfig, ask: Callable[[], _Answer]) -> _Answer:
    try:
        return ask()
    except _READ_ERRORS as error:
        raise _explain_hub(data, None, error) from error


def _explain_hub(data: DataConfig, part: int | None, error: Exception) -> UserError:
    del part
    return UserError(
        f"data.source {data.source!r} could not be loaded from the Hub: {_first_line(error)}"
        f"{advise_offline()}; give a dataset id, installed-docs, or one of {', '.join(FILE_SOURCES)}"
    )


def _explain_files(data: DataConfig, where: str) -> UserError:
    return UserError(
        f"{data.source} file cannot be read: {where}; mend it, or leave such rows out with "
        "data.on_bad_rows=skip"
    )


def _first_line(error: Exception) -> str:
    lines = str(error.__cause__ or error).splitlines()
    return lines[0] if lines else "it holds nothing"


# === Files and splits ===


def _find_validation_split(data: DataConfig) -> str | None:
    """The configured split of a Hub dataset, or its own `validation` if the training takes another."""
    if data.source in (*FILE_SOURCES, "installed-docs") or data.validation_split:
        return data.validation_split
    names = _ask_hub(data, lambda: get_dataset_split_names(data.source, data.config_name))
    takes_another = not data.split.startswith(_OWN_VALIDATION_SPLIT)
    return _OWN_VALIDATION_SPLIT if _OWN_VALIDATION_SPLIT in names and takes_another else None


def expand_paths(patterns: list[str], source: str) -> list[str]:
    """Expands globs and folders, in order, each file once; every pattern, or URL, must match a file."""
    files: list[str] = []
    for pattern in patterns:
        local = strip_protocol(pattern) if pattern.startswith("file://") else pattern
        matches = (
            find_remote_files(pattern, _SUFFIXES[source]) if is_url(local) else _find_files(local, source)
        )
        if not matches:
            raise UserError(
                f"no {source} file matches {hide_secrets(pattern)!r}; check data.train_files and "
                "data.validation_files"
            )
        files += matches
    return list(dict.fromkeys(files))


def group_by_source(paths: list[str]) -> dict[str | None, list[str]]:
    """Files that folders, globs and files stand for, by the source that their endings tell.

    Args:
        paths: local ones, or URLs of single files.

    Returns:
        By value of `data.source`, the files in order; under None those whose ending tells none. Empty where
        nothing is found.
    """
    grouped: dict[str | None, list[str]] = {}
    for file in chain.from_iterable(map(_list_all, paths)):
        path = strip_protocol(file).partition("?")[0] if is_url(file) else file
        source = next((each for each, suffixes in _SUFFIXES.items() if path.endswith(suffixes)), None)
        grouped.setdefault(source, []).append(file)
    return grouped


def _list_all(path: str) -> list[str]:
    if is_url(path) or Path(path).is_file():
        return [path]
    found = Path(path).rglob("*") if Path(path).is_dir() else map(Path, glob.glob(path, recursive=True))
    return sorted(str(file) for file in found if file.is_file())


def _find_files(pattern: str, source: str) -> list[str]:
    path = Path(pattern)
    if path.is_dir():
        return sorted(str(file) for file in path.rglob("*") if file.name.endswith(_SUFFIXES[source]))
    return [pattern] if path.is_file() else sorted(glob.glob(pattern, recursive=True))
