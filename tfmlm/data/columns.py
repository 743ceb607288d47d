"""Selects the configured columns of a dataset, however deep they lie, as one column of text."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from datasets import Dataset, Features, Value

from tfmlm.config import DataConfig
from tfmlm.errors import UserError

TEXT = "text"
"""The one column of a text dataset."""

_STRINGS = (Value("string"), Value("large_string"))


def select_text(dataset: Dataset, data: DataConfig) -> Dataset:
    """Makes one column of non-empty strings of the columns that `data.text_column` names.

    Lists at any depth, and several columns, are joined by a space.

    Raises:
        UserError: a column does not exist or holds no text; the message lists those that do.
    """
    paths = [path.strip() for path in data.text_column.split(",")]
    for path in paths:
        _check_is_text(dataset.features, path)
    if paths[0] in dataset.features and len(paths) == 1 and dataset.features[paths[0]] in _STRINGS:
        column = dataset.select_columns(paths).rename_columns({paths[0]: TEXT})
    else:
        column = dataset.map(
            partial(_join_columns, paths=paths),
            batched=True,
            remove_columns=dataset.column_names,
            features=Features({TEXT: Value("string")}),
        )
    texts = column.filter(_has_text, batched=True)
    if len(texts) == 0:
        raise UserError(
            f"data.source {data.source!r} holds no text in column {data.text_column!r}; "
            f"{len(column)} rows were read and all are empty"
        )
    return texts


def _check_is_text(features: Features, path: str) -> None:
    feature = _find_feature(features, path)
    columns = f"the columns are: {', '.join(_list_paths(features))}"
    if feature is None:
        raise UserError(f"data.text_column {path!r} does not exist; {columns}")
    if feature not in _STRINGS:
        kind = feature.dtype if isinstance(feature, Value) else "columns of its own"
        raise UserError(f"data.text_column {path!r} holds {kind}, not text; {columns}")


def _find_feature(feature: Any, path: str) -> Any:
    """What lies at a dotted path, lists passed through; None if nothing does."""
    while hasattr(feature, "feature"):
        feature = feature.feature
    if not path:
        return feature
    if not isinstance(feature, dict):
        return None
    found = (_find_feature(feature[name], rest) for name, rest in _match_names(feature, path))
    return next((match for match in found if match is not None), None)


def _list_paths(feature: Any, prefix: str = "") -> Iterator[str]:
    """Dotted paths of all columns that are no structs."""
    while hasattr(feature, "feature"):
        feature = feature.feature
    if isinstance(feature, dict):
        for name in feature:
            yield from _list_paths(feature[name], f"{prefix}.{name}" if prefix else name)
    else:
        yield prefix


def _join_columns(batch: dict[str, list[Any]], paths: list[str]) -> dict[str, list[str]]:
    names = list(batch)
    rows = (dict(zip(names, values, strict=True)) for values in zip(*batch.values(), strict=True))
    return {TEXT: [" ".join(part for path in paths for part in _collect(row, path)) for row in rows]}


def _collect(value: Any, path: str) -> Iterator[str]:
    """The non-empty strings at a dotted path of a row, in order."""
    if isinstance(value, list):
        for item in value:
            yield from _collect(item, path)
    elif isinstance(value, dict):
        for name, rest in _match_names(value, path):
            yield from _collect(value[name], rest)
    elif value and not path:
        yield value


def _match_names(mapping: dict[str, Any], path: str) -> list[tuple[str, str]]:
    """Names that the path may begin with, and the rest of it; a name may itself hold dots."""
    return [
        (name, path.removeprefix(name).removeprefix("."))
        for name in mapping
        if path == name or (path.startswith(f"{name}.") and path != f"{name}.")
    ]


def _has_text(batch: dict[str, list[str | None]]) -> list[bool]:
    return [text is not None and not text.isspace() and text != "" for text in batch[TEXT]]
