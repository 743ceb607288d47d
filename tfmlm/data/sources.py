"""Opens a configured source as a stream of texts."""

from __future__ import annotations

import glob
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from itertools import chain, pairwise
from pathlib import Path
from typing import NamedTuple, TypeVar

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
    name_bad_rows,
    read_batches,
    read_record_batch,
)
from tfmlm.data.installed_docs import load_installed_docs
from tfmlm.data.remote_files import find_remote_files, identify_remote_file
from tfmlm.data.saved_datasets import (
    DICT_NAME,
    FileRows,
    find_rows,
    is_saved_dataset,
    list_files,
    list_splits,
)
from tfmlm.data.text_stream import TextStream
from tfmlm.data.zip_archives import ZIP_SUFFIX, is_zip, list_zip, name_in_zip, split_zip_name
from tfmlm.errors import UserError
from tfmlm.model_names import advise_offline
from tfmlm.urls import hide_secrets, is_url

_SUFFIXES = {
    source: tuple(f"{suffix}{packed}" for suffix in suffixes for packed in COMPRESSED_SUFFIXES)
    for source, suffixes in {
        "csv": [".csv"],
        "json": [".json", ".jsonl", ".ndjson"],
        "text": [".txt", ".md"],
    }.items()
} | {"arrow": (".arrow", ".feather"), "parquet": (".parquet",)}
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
    return _open(data, data.train_files, data.split, "data.split")


def open_validation_texts(data: DataConfig) -> TextStream | None:
    """The texts of a validation set of their own, if there is one."""
    split = _find_validation_split(data)
    if not data.validation_files and not split:
        return None
    return _open(data, data.validation_files, split or data.split, "data.validation_split")


def _open(data: DataConfig, files: list[str], split: str, split_key: str) -> TextStream:
    if data.source in FILE_SOURCES:
        return _open_files(data, [FileRows(file) for file in expand_paths(files, data.source)])
    if data.source == "installed-docs":
        return _open_table(load_installed_docs(data.num_proc), data, data.source)
    if is_saved_dataset(data.source):
        return _open_files(replace(data, source="arrow"), find_rows(data.source, split, split_key))
    name = f"{data.source}, split {split}"
    if data.streaming:
        rows = _ask_hub(
            data, lambda: load_dataset(data.source, data.config_name, split=split, streaming=True)
        )
        return _open_stream(rows, data, name)
    table = _ask_hub(
        data, lambda: load_dataset(data.source, data.config_name, split=split, num_proc=data.num_proc)
    )
    return _open_table(table, data, name)


# === Files ===


def _open_files(data: DataConfig, parts: list[FileRows]) -> TextStream:
    bad_rows: dict[str, BadRow] = {}
    if data.on_bad_rows == "error":
        _check_files(data, list(dict.fromkeys(part.file for part in parts)))

    def read_part(number: int) -> Iterator[list[str]]:
        part = parts[number]
        batches = _read_rows_of(part, data)
        if data.on_bad_rows == "error":
            texts = _read_sound_rows(data, parts[0].file, batches)
        else:
            texts = _read_good_rows(bad_rows, _name_part(part), batches)
        return make_batches(chain.from_iterable(texts))

    return TextStream(len(parts), read_part, cache(partial(_hash_files, parts, data)), bad_rows)


def _name_part(part: FileRows) -> str:
    """The file, and where the same one is there in several parts, the rows of it."""
    if not part.is_part:
        return part.file
    return f"{part.file}[{part.first}:{'' if part.end is None else part.end}]"


def _read_rows_of(part: FileRows, data: DataConfig) -> Iterator[Batch]:
    batches = read_batches(part.file, data)
    if not part.is_part:
        yield from batches
        return
    end = part.end if part.end is not None else sys.maxsize
    num_rows = 0
    for batch in batches:
        wanted = batch[max(0, part.first - num_rows) : max(0, end - num_rows)]
        name = hide_secrets(_name_part(part))
        yield [row._replace(file=name) if isinstance(row, BadRow) else row for row in wanted]
        num_rows += len(batch)
        if num_rows >= end:
            return


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


# === Tables ===


def _open_table(table: Dataset, data: DataConfig, name: str) -> TextStream:
    rows = table.with_format("arrow")
    num_parts = max(1, min(len(table), _MAX_PARTS))
    starts = [len(table) * part // num_parts for part in range(num_parts + 1)]

    def read_tables(part: int) -> Iterator[pa.Table]:
        for first in range(starts[part], starts[part + 1], TEXTS_A_BATCH):
            yield rows[first : min(first + TEXTS_A_BATCH, starts[part + 1])]

    # The hash by which `datasets` itself tells tables apart.
    fingerprint = f"{table._fingerprint} {_describe_reading(data)}"  # noqa: SLF001
    parts = [
        _TablePart(name if num_parts == 1 else f"{name}, rows {start + 1:,} to {end:,}", start)
        for start, end in pairwise(starts)
    ]
    return _open_tables(parts, read_tables, data, lambda: fingerprint)


def _open_stream(rows: IterableDataset, data: DataConfig, name: str) -> TextStream:
    tables = rows.with_format("arrow")
    num_parts = tables.num_shards

    def read_tables(part: int) -> Iterator[pa.Table]:
        yield from tables.shard(num_shards=num_parts, index=part).iter(TEXTS_A_BATCH)

    names = [f"{name}, shard {part + 1} of {num_parts}" for part in range(num_parts)]
    parts = [_TablePart(name if num_parts == 1 else of_shard) for of_shard in names]
    return _open_tables(parts, read_tables, data, _refuse_fingerprint)


class _TablePart(NamedTuple):
    """A part of a dataset.

    Attributes:
        name: for messages.
        first: number of its first row in what the name names.
    """

    name: str
    first: int = 0


def _open_tables(
    parts: list[_TablePart],
    read_tables: Callable[[int], Iterator[pa.Table]],
    data: DataConfig,
    fingerprint: Callable[[], str],
) -> TextStream:
    """The texts of the tables of each part.

    Raises:
        UserError: there is no row, or no column of text.
    """
    bad_rows: dict[str, BadRow] = {}

    def read_part(part: int) -> Iterator[list[str]]:
        batches = _read_batches_of(read_tables(part), parts[part], data)
        if data.on_bad_rows == "skip":
            return _read_good_rows(bad_rows, parts[part].name, batches)
        return map(_refuse_bad_rows, batches)

    every_table = chain.from_iterable(map(read_tables, range(len(parts))))
    with _explained(data):
        first = next((table for table in every_table if len(table)), None)
        if first is None:
            raise ValueError("it holds no row")
    check_columns(first.schema, data)
    return TextStream(len(parts), read_part, fingerprint, bad_rows)


def _refuse_bad_rows(batch: Batch) -> list[str]:
    texts, bad = _part(batch)
    if bad:
        raise UserError(f"data.source {bad[0]}; mend it, or leave such rows out with data.on_bad_rows=skip")
    return texts


def _read_batches_of(tables: Iterator[pa.Table], part: _TablePart, data: DataConfig) -> Iterator[Batch]:
    num_rows = part.first
    with _explained(data):
        for table in tables:
            for record_batch in table.to_batches():
                for batch in read_record_batch(record_batch, data):
                    yield name_bad_rows(batch, part.name, num_rows + 1)
                    num_rows += len(batch)


def _refuse_fingerprint() -> str:
    raise NotImplementedError("a Hub dataset that is streamed is not cached")


# === Rows ===


def _read_sound_rows(data: DataConfig, first_file: str, batches: Iterator[Batch]) -> Iterator[list[str]]:
    """The texts of a file all of whose rows can be read; one that lacks the column counts as empty."""
    lacking: list[BadRow] = []
    is_empty = True
    for batch in batches:
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


def _read_good_rows(bad_rows: dict[str, BadRow], name: str, batches: Iterator[Batch]) -> Iterator[list[str]]:
    """The texts of the rows that can be read; the others are counted."""
    num_bad = 0
    for batch in batches:
        texts, bad = _part(batch)
        num_bad += len(bad)
        if bad:
            first = bad_rows.get(name, bad[0])
            # A pass before this one may have come further.
            bad_rows[name] = first._replace(num_rows=max(num_bad, first.num_rows))
        yield texts


def _part(batch: Batch) -> tuple[list[str], list[BadRow]]:
    """The texts that are not blank, and the bad rows."""
    texts = [item for item in batch if isinstance(item, str) and item and not item.isspace()]
    return texts, [] if len(texts) == len(batch) else [item for item in batch if isinstance(item, BadRow)]


def _hash_files(parts: list[FileRows], data: DataConfig) -> str:
    settings = f"{data.source} {_describe_reading(data)}"
    fingerprint = xxhash.xxh3_128(settings.encode())
    for part in parts:
        fingerprint.update(f"{_identify(part.file)} {part.first}:{part.end}".encode())
    return fingerprint.hexdigest()


def _identify(file: str) -> str:
    in_zip = split_zip_name(file)
    if in_zip:
        return f"{_identify(in_zip.archive)} {in_zip.name}"
    return identify_remote_file(file) if is_url(file) else hash_once(Path(file))


def _describe_reading(data: DataConfig) -> str:
    """The keys that say what of a row, and which rows, are read."""
    return f"{data.text_column} {data.sample_by} {data.on_bad_rows} {data.max_text_bytes} {data.field!r}"


# === Errors ===


def _ask_hub(data: DataConfig, ask: Callable[[], _Answer]) -> _Answer:
    with _explained(data):
        return ask()


@contextmanager
def _explained(data: DataConfig) -> Iterator[None]:
    """Says in one line why a dataset cannot be read."""
    try:
        yield
    except _READ_ERRORS as error:
        raise UserError(
            f"data.source {data.source!r} could not be loaded from the Hub: {_first_line(error)}"
            f"{advise_offline()}; give a dataset id, installed-docs, or one of {', '.join(FILE_SOURCES)}"
        ) from error


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
    """The configured split of a dataset, or its own `validation` if the training takes another."""
    if data.source in (*FILE_SOURCES, "installed-docs") or data.validation_split:
        return data.validation_split
    if is_saved_dataset(data.source):
        names = list(list_splits(data.source))
    else:
        names = _ask_hub(data, lambda: get_dataset_split_names(data.source, data.config_name))
    takes_another = not data.split.startswith(_OWN_VALIDATION_SPLIT)
    return _OWN_VALIDATION_SPLIT if _OWN_VALIDATION_SPLIT in names and takes_another else None


def expand_paths(patterns: list[str], source: str) -> list[str]:
    """Expands globs, folders and zip archives, in order, each file once.

    Raises:
        UserError: a pattern, or URL, matches no file.
    """
    files: list[str] = []
    for pattern in patterns:
        local = strip_protocol(pattern) if pattern.startswith("file://") else pattern
        matches = _find_remote(pattern, source) if is_url(local) else _find_local(local, source)
        in_zips = [_open_zip(match, source) if is_zip(match) else [match] for match in matches]
        matches = list(chain.from_iterable(in_zips))
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


def _find_remote(pattern: str, source: str) -> list[str]:
    files = find_remote_files(pattern, (*_SUFFIXES[source], ZIP_SUFFIX, f"/{DICT_NAME}"))
    _refuse_several_splits(files, pattern)
    return [file for file in files if not _is_cache(file)]


def _find_local(pattern: str, source: str) -> list[str]:
    path = Path(pattern)
    if not path.is_dir():
        return [pattern] if path.is_file() else sorted(glob.glob(pattern, recursive=True))
    if is_saved_dataset(pattern) and source != "arrow":
        raise UserError(
            f"{pattern!r} is a folder of save_to_disk; set data.source to it, without data.train_files"
        )
    files = [str(file) for file in path.rglob("*")]
    _refuse_several_splits(files, pattern)
    if is_saved_dataset(pattern):
        return list_files(path)
    suffixes = (*_SUFFIXES[source], ZIP_SUFFIX)
    return sorted(file for file in files if file.endswith(suffixes) and not _is_cache(file))


def _refuse_several_splits(files: list[str], pattern: str) -> None:
    if any(file.endswith(f"/{DICT_NAME}") for file in files):
        raise UserError(
            f"{hide_secrets(pattern)!r} holds a DatasetDict, with several splits; set data.source to its "
            "folder, or name the folder of one split in data.train_files"
        )


def _is_cache(file: str) -> bool:
    """Whether `datasets` has left it beside the file of a dataset, when something was made of it."""
    name = file.rpartition("/")[2]
    return name.startswith("cache-") and name.endswith(".arrow")


def _open_zip(archive: str, source: str) -> list[str]:
    """The files of a kind in an archive, as in a folder; if it holds one file alone, that one."""
    names = list_zip(archive)
    wanted = [name for name in names if name.endswith(_SUFFIXES[source])]
    return [name_in_zip(archive, name) for name in wanted or names[: len(names) == 1]]
