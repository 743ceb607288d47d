"""Joins the configured columns of a row into one text, however deep they lie."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from datasets import Features, Value

from tfmlm.config import DataConfig
from tfmlm.errors import UserError

_STRINGS = (pa.string(), pa.large_string())


class NoTextError(ValueError):
    """A row does not hold a configured column, or something else than text in it."""


class NoColumnError(NoTextError):
    """A row does not hold a configured column, which may only mean that it is empty there."""


def split_column_names(data: DataConfig) -> list[str]:
    """The dotted names in `data.text_column`."""
    return [name.strip() for name in data.text_column.split(",")]


def select_texts(table: pa.Table, names: list[str]) -> list[str]:
    """Joins the named columns of each row, lists at any depth included, by a space.

    Args:
        table: rows with columns of text, see `check_columns`.
        names: dotted names.

    Returns:
        The texts that are not blank, in order.
    """
    is_plain = len(names) == 1 and names[0] in table.column_names
    if is_plain and table.schema.field(names[0]).type in _STRINGS:
        texts = table.column(names[0]).to_pylist()
    else:
        texts = [join_columns(row, names) for row in table.to_pylist()]
    return [text for text in texts if text and not text.isspace()]


def join_columns(row: dict[str, Any], names: list[str]) -> str:
    """The text of one row.

    Raises:
        NoTextError: a column does not exist in this row or holds something else than text.
    """
    return " ".join(part for name in names for part in _collect(row, name, name))


def check_columns(features: Features, data: DataConfig) -> None:
    """Checks that the configured columns exist and hold text.

    Raises:
        UserError: one does not; the message lists the columns.
    """
    for name in split_column_names(data):
        feature = _find_feature(features, name)
        columns = f"the columns are: {', '.join(_list_names(features))}"
        if feature is None:
            raise UserError(f"data.text_column {name!r} does not exist; {columns}")
        if feature not in (Value("string"), Value("large_string")):
            kind = feature.dtype if isinstance(feature, Value) else "columns of its own"
            raise UserError(f"data.text_column {name!r} holds {kind}, not text; {columns}")


def _find_feature(feature: Any, name: str) -> Any:
    """What lies at a dotted name, lists passed through; None if nothing does."""
    while hasattr(feature, "feature"):
        feature = feature.feature
    if not name:
        return feature
    if not isinstance(feature, dict):
        return None
    found = (_find_feature(feature[key], rest) for key, rest in _match_keys(feature, name))
    return next((match for match in found if match is not None), None)


def _list_names(feature: Any, prefix: str = "") -> Iterator[str]:
    """Dotted names of all columns that are no structs."""
    while hasattr(feature, "feature"):
        feature = feature.feature
    if isinstance(feature, dict):
        for key in feature:
            yield from _list_names(feature[key], f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix


def _collect(value: Any, rest: str, name: str) -> Iterator[str]:
    """The non-empty strings at a dotted name of a row, in order."""
    if value is None:
        return
    if isinstance(value, list):
        for item in value:
            yield from _collect(item, rest, name)
    elif isinstance(value, dict):
        matches = _match_keys(value, rest)
        if not matches:
            raise NoColumnError(f"no column {name!r} (the columns are: {', '.join(value)})")
        for key, further in matches:
            yield from _collect(value[key], further, name)
    elif not isinstance(value, str) or rest:
        raise NoTextError(f"column {name!r} holds {value!r}, not text")
    elif value:
        yield value


def _match_keys(mapping: dict[str, Any], name: str) -> list[tuple[str, str]]:
    """Keys that the name may begin with, and the rest of it; a key may itself hold dots."""
    return [
        (key, name.removeprefix(key).removeprefix("."))
        for key in mapping
        if name == key or (name.startswith(f"{key}.") and name != f"{key}.")
    ]
