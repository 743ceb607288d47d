"""Files of every source, and what is read of them."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from tfmlm.config import DataConfig
from tfmlm.data.files import BadRow, join_columns, read_rows
from tfmlm.data.splitting import load_texts
from tfmlm.data.text_stream import TextStream
from tfmlm.errors import UserError

TEXTS = [f"text number {number}" for number in range(20)]


def select_texts(table: pa.Table, names: list[str]) -> list[str]:
    """The texts of a table that are not blank, a row at a time."""
    texts = [join_columns(row, names) for row in table.to_pylist()]
    return [text for text in texts if text.strip()]


def write_lines(path: Path, lines: list[str]) -> str:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(path)


def write_json(path: Path, rows: list[object]) -> str:
    return write_lines(path, [json.dumps(row) for row in rows])


def load_all(seed: int = 0, **settings: object) -> list[str]:
    """Every text, training and held out, sorted."""
    texts = load_texts(DataConfig(**settings), seed)
    return sorted(read(texts.train) + read(texts.validation))


def read(stream: TextStream) -> list[str]:
    return [text for batch in stream for text in batch]


def assert_refused(*named: str, **settings: object) -> None:
    with pytest.raises(UserError) as refusal:
        load_texts(DataConfig(**settings), seed=0)
    message = str(refusal.value)
    assert message
    assert "\n" not in message
    for name in named:
        assert name in message


ROW_TEXTS = [f"text number {number}" for number in range(20)]


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def write_parquet(path: Path, column: pa.Array, **options: object) -> Path:
    parquet.write_table(pa.table({"text": column}), path, **options)
    return path


def read_file(path: Path, source: str, **options: str) -> list[str | BadRow]:
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


def reads_csv(test: Callable[..., None]) -> Callable[..., None]:
    ignored = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
    return pytest.mark.usefixtures("left_open")(ignored(test))
