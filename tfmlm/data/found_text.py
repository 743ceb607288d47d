"""Finds out what text there is: its kind, its column, how its files are read, and how much of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import PurePath
from typing import NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerFast

from tfmlm.config import FILE_SOURCES, DataConfig
from tfmlm.data.files import find_schema, list_text_columns, read_rows
from tfmlm.data.sources import expand_paths, group_by_source, open_training_texts
from tfmlm.errors import UserError
from tfmlm.urls import hide_secrets

_USUAL_COLUMN = "text"

_EXAMINED_ROWS = 1000

_FEW_LETTERS = 20
"""Characters; what is shorter on the average is a name or a label rather than a text."""

_BLANK_SHARE = 0.02
"""Share of blank lines from which they are taken to part paragraphs."""

_MOST_NAMED = 5
"""Kinds of files that a message names."""


def find_source(paths: Sequence[str]) -> tuple[str, str]:
    """The value of `data.source` that reads files, folders or globs, by the endings of the names, and why.

    Raises:
        UserError: nothing is there, nothing that is read, or files of several kinds.
    """
    grouped = group_by_source(list(paths))
    named = ", ".join(repr(hide_secrets(path)) for path in paths)
    if not grouped:
        raise UserError(f"text {named} is no file, folder or glob of files; name one that is there")
    kinds = {source: files for source, files in grouped.items() if source is not None}
    if not kinds:
        endings = sorted({PurePath(hide_secrets(file)).suffix or "none" for file in grouped[None]})
        raise UserError(
            f"text {named} has no file whose ending is known, such as .txt, .md, .jsonl, .csv or .parquet "
            f"(they are: {', '.join(endings[:_MOST_NAMED])}); say what they are with data.source, one of "
            f"{', '.join(FILE_SOURCES)}"
        )
    if len(kinds) > 1:
        counts = ", ".join(f"{len(files):,} {source}" for source, files in kinds.items())
        raise UserError(
            f"text {named} has files of several kinds ({counts}); choose with data.source=KIND, or name the "
            "files of one kind"
        )
    ((source, files),) = kinds.items()
    others = len(grouped.get(None, []))
    passed_over = f"; {others:,} other files there are passed over" if others else ""
    return source, f"by the endings of the names, of {len(files):,} files{passed_over}"


def find_column(data: DataConfig) -> tuple[str, str]:
    """The column of text in files of JSON, CSV or Parquet, and why it is that one.

    Raises:
        UserError: there is none, or there are several.
    """
    files = expand_paths(data.train_files, data.source)
    schemas = (schema for file in files if (schema := find_schema(file, replace(data, text_column=""))))
    schema = next(schemas, None)
    if schema is None:
        raise UserError(f"{hide_secrets(files[0])} holds no row that can be read; name files with text")
    columns, all_columns = list_text_columns(schema)
    if _USUAL_COLUMN in columns:
        return _USUAL_COLUMN, "the column of this name"
    texts = [name for name in columns if _reads_as_text(_take_values(files, data, name))]
    found = texts or columns
    if len(found) == 1:
        return found[0], "the only column of text"
    if not found:
        raise UserError(
            f"{hide_secrets(files[0])} has no column of text; the columns are: {', '.join(all_columns)}"
        )
    raise UserError(
        f"{hide_secrets(files[0])} has several columns of text ({', '.join(found)}); choose with "
        f"data.text_column={found[0]}, or join some with data.text_column={','.join(found[:2])}"
    )


def _take_values(files: list[str], data: DataConfig, column: str) -> list[str]:
    settings = replace(data, text_column=column, on_bad_rows="skip")
    rows = (row for file in files for row in read_rows(file, settings))
    values = (row for row in rows if isinstance(row, str) and row.strip())
    return list(islice(values, _EXAMINED_ROWS))


def _reads_as_text(values: list[str]) -> bool:
    """Whether values are of words, and not numbers, names or labels."""
    if not values:
        return False
    num_letters = sum(map(len, values))
    num_words = sum(" " in value.strip() or not value.isascii() for value in values)
    num_alphabetic = sum(letter.isalpha() or letter.isspace() for value in values for letter in value)
    return (
        num_letters >= _FEW_LETTERS * len(values)
        and 2 * num_words > len(values)
        and 2 * num_alphabetic > num_letters
    )


def find_paragraphs(data: DataConfig) -> float:
    """Share of blank lines among the first lines of text files."""
    files = expand_paths(data.train_files, data.source)
    lines = (row for file in files for row in read_rows(file, replace(data, sample_by="line")))
    first = list(islice(lines, 10 * _EXAMINED_ROWS))
    return sum(isinstance(line, str) and not line.strip() for line in first) / max(len(first), 1)


def has_paragraphs(blank_share: float) -> bool:
    """Whether so many lines are blank that they part paragraphs."""
    return blank_share >= _BLANK_SHARE


# === Amount ===

_MOST_LETTERS = 2**27
"""Characters after which a text counts as large, and is read no further: some seconds."""

_SAMPLED_LETTERS = 2**20
_SAMPLED_TEXTS = 50
"""Of each batch, so that many files are looked into."""

_LETTERS_A_TOKEN = 4.0
"""Of a tokenizer that is still to be trained."""


class AmountOfText(NamedTuple):
    """How much text there is.

    Attributes:
        num_texts: texts, as far as they were read.
        num_tokens: about so many tokens.
        is_whole: whether all was read; else there is more.
        typical_length: tokens; half of all tokens are in texts of this length or more.
    """

    num_texts: int
    num_tokens: int
    is_whole: bool
    typical_length: int


def measure_text(data: DataConfig, tokenizer: PreTrainedTokenizerFast | None) -> AmountOfText:
    """Reads the texts, tokenizes some, and tells how much there is.

    Raises:
        UserError: a row cannot be read, or there is no text.
    """
    sample: list[str] = []
    num_texts = num_letters = num_sampled = 0
    is_whole = True
    for batch in open_training_texts(data):
        num_texts += len(batch)
        num_letters += sum(map(len, batch))
        if num_sampled < _SAMPLED_LETTERS:
            some = [text[:_SAMPLED_LETTERS] for text in batch[:_SAMPLED_TEXTS]]
            sample += some
            num_sampled += sum(map(len, some))
        if num_letters >= _MOST_LETTERS or num_texts >= (data.max_rows or num_texts + 1):
            is_whole = bool(data.max_rows and num_texts >= data.max_rows)
            break
    if not num_texts:
        raise UserError(f"text {', '.join(map(hide_secrets, data.train_files))} holds no text")
    lengths = np.sort(list(_count_tokens(sample, tokenizer)))
    num_tokens = int(lengths.sum() * num_letters / num_sampled)
    typical = lengths[np.searchsorted(lengths.cumsum(), lengths.sum() / 2)]
    return AmountOfText(num_texts, num_tokens, is_whole, int(typical))


def _count_tokens(texts: list[str], tokenizer: PreTrainedTokenizerFast | None) -> Iterator[int]:
    if tokenizer is None:
        return (max(1, int(len(text) / _LETTERS_A_TOKEN)) for text in texts)
    return (max(1, len(ids)) for ids in tokenizer(texts)["input_ids"])
