"""Files of rows, good and bad, and what reading them gives."""

from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from tfmlm.config import DataConfig
from tfmlm.data.files import BadRow, read_rows

TEXTS = [f"text number {number}" for number in range(20)]


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def write_parquet(path: Path, column: pa.Array, **options: object) -> Path:
    parquet.write_table(pa.table({"text": column}), path, **options)
    return path


def read(path: Path, source: str, **options: str) -> list[str | BadRow]:
    return list(read_rows(str(path), DataConfig(source=source, **options)))


def drop_blank(items: list[str | BadRow]) -> list[str | BadRow]:
    return [item for item in items if isinstance(item, BadRow) or item.strip()]


def number_bad_rows(items: list[str | BadRow]) -> dict[int, str]:
    return {item.row: item.reason for item in items if isinstance(item, BadRow)}


def texts_of(items: list[str | BadRow]) -> list[str]:
    return [item for item in items if isinstance(item, str) and item.strip()]


def assert_one_bad_row(items: list[str | BadRow], path: Path, row: int, reason: str) -> None:
    """The only bad row stands where it lies, so row numbers and items agree."""
    (bad,) = (item for item in items if isinstance(item, BadRow))
    assert (bad.file, bad.row, bad.num_rows) == (str(path), row, 1)
    assert reason in bad.reason
    assert "\n" not in str(bad)
    assert items.index(bad) == row - 1
