"""What text there is: its kind, its column, its paragraphs and its amount."""

import csv
import io
import json
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from transformers import PreTrainedTokenizerFast

from tests.tiny import SENTENCES
from tfmlm.config import DataConfig
from tfmlm.data.found_text import (
    find_column,
    find_paragraphs,
    find_source,
    has_paragraphs,
    measure_text,
)
from tfmlm.errors import UserError

ENDINGS = {"txt": "text", "md": "text", "csv": "csv", "json": "json", "jsonl": "json", "parquet": "parquet"}


@pytest.mark.parametrize("ending", [*ENDINGS, "txt.gz", "jsonl.gz"])
@pytest.mark.parametrize("place", ["folder", "glob", "file"])
def test_a_kind_is_told_by_the_endings(ending: str, place: str, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in (f"a.{ending}", f"deep/b.{ending}", "picture.png"):
        (tmp_path / name).write_text("x")
    path = {"folder": tmp_path, "glob": tmp_path / "**" / f"*.{ending}", "file": tmp_path / f"a.{ending}"}
    source, reason = find_source([str(path[place])])
    assert source == ENDINGS[ending.removesuffix(".gz")]
    assert (f"of {1 if place == 'file' else 2} files" in reason, "1 other files" in reason) == (
        True,
        place == "folder",
    )


def test_kinds_that_differ_or_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no file, folder or glob"):
        find_source([str(tmp_path)])
    (tmp_path / "a.pdf").write_text("x")
    with pytest.raises(UserError, match=r"no file whose ending is known.*they are: \.pdf"):
        find_source([str(tmp_path)])
    (tmp_path / "a.csv").write_text("x")
    (tmp_path / "b.txt").write_text("x")
    with pytest.raises(UserError, match=r"several kinds \(1 csv, 1 text\)"):
        find_source([str(tmp_path)])


def write_rows(path: Path, rows: list[dict[str, object]]) -> DataConfig:
    """A file of the kind that its ending says."""
    if path.suffix == ".csv":
        out = io.StringIO()
        writer = csv.DictWriter(out, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        path.write_text(out.getvalue())
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        parquet.write_table(pa.Table.from_pylist(rows), path)
    return DataConfig(source=ENDINGS[path.suffix[1:]], train_files=[str(path)])


def make_row(number: int) -> dict[str, object]:
    """A row of which `body` alone is text, whatever else a file of its kind has as strings."""
    return {
        "id": number,
        "key": f"4f1c-{number:030d}",
        "day": f"2026-11-{number % 28 + 1:02d} 10:00:00",
        "label": "good one" if number % 2 else "bad",
        "body": SENTENCES[number],
    }


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_the_column_of_text_is_found(name: str, tmp_path: Path) -> None:
    rows = [make_row(number) for number in range(60)]
    assert find_column(write_rows(tmp_path / name, rows)) == ("body", "the only column of text")
    titled = [row | {"title": f"What is to be said about number {row['id']}"} for row in rows]
    data = write_rows(tmp_path / name, titled)
    with pytest.raises(UserError, match=r"several columns of text \(body, title\); choose with"):
        find_column(data)
    named = [row | {"text": "short"} for row in titled]
    assert find_column(write_rows(tmp_path / name, named))[0] == "text"


def test_a_nested_column_and_none_at_all(tmp_path: Path) -> None:
    rows = [{"n": 1, "answers": {"a_id": ["a"], "text": [sentence]}} for sentence in SENTENCES[:9]]
    assert find_column(write_rows(tmp_path / "a.jsonl", rows))[0] == "answers.text"
    with pytest.raises(UserError, match="no column of text; the columns are: n, x"):
        find_column(write_rows(tmp_path / "b.parquet", [{"n": 1, "x": 2.5}]))
    (tmp_path / "c.jsonl").write_text("")
    with pytest.raises(UserError, match="holds no row that can be read"):
        find_column(DataConfig(source="json", train_files=[str(tmp_path / "c.jsonl")]))


@settings(max_examples=20, deadline=None)
@given(num_blank=st.lists(st.integers(0, 3), min_size=1, max_size=8))
def test_paragraphs_are_told_by_blank_lines(
    num_blank: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("lines") / "a.txt"
    lines = [line for number in num_blank for line in ("some words", *[" "] * number)]
    path.write_text("\n".join(lines) + "\n")
    share = find_paragraphs(DataConfig(source="text", train_files=[str(path)]))
    assert share == pytest.approx(sum(num_blank) / len(lines))
    assert has_paragraphs(share) == (sum(num_blank) > 0)


@settings(max_examples=15, deadline=None)
@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=30), max_rows=st.none() | st.integers(1, 40))
def test_a_small_text_is_counted_exactly(
    lengths: list[int],
    max_rows: int | None,
    byte_tokenizer: PreTrainedTokenizerFast,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Against counting text by text, and walking from the longest to half of all tokens."""
    texts = [" ".join(SENTENCES[number].split()[:1] * length) for number, length in enumerate(lengths)]
    path = tmp_path_factory.mktemp("amount") / "a.txt"
    path.write_text("\n".join(texts))
    data = DataConfig(source="text", train_files=[str(path)], max_rows=max_rows)
    amount = measure_text(data, byte_tokenizer)
    counts = [len(byte_tokenizer(text)["input_ids"]) for text in texts]
    passed = 0
    for typical in sorted(counts, reverse=True):
        passed += typical
        if 2 * passed >= sum(counts):
            break
    assert amount.num_texts == len(texts)
    assert amount.num_tokens == sum(counts)
    assert amount.typical_length == typical
    assert amount.is_whole
