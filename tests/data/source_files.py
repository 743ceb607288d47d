"""Files as a source of texts, and the texts that are loaded of them, or the refusal."""

import json
from pathlib import Path

import pytest

from tfmlm.config import DataConfig
from tfmlm.data.splitting import load_texts
from tfmlm.data.text_stream import TextStream
from tfmlm.errors import UserError

TEXTS = [f"text number {number}" for number in range(20)]


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
