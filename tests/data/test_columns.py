"""Columns of text at any depth."""

import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.source_files import select_texts
from tfmlm.config import DataConfig
from tfmlm.data.files import check_columns, split_column_names
from tfmlm.errors import UserError

ROWS = [
    {
        "title": "Why?",
        "answers": {"text": ["a", "b"], "score": [1, 2]},
        "threads": [{"posts": [{"body": "c", "likes": 1}, {"body": "d", "likes": 2}]}, {"posts": []}],
        "dotted.name": "e",
    },
    {"title": "How?", "answers": {"text": [], "score": []}, "threads": [], "dotted.name": "f"},
]


def select(path: str, rows: list[dict[str, object]] = ROWS) -> list[str]:
    table = Dataset.from_list(rows)
    data = DataConfig(text_column=path)
    check_columns(table.data.table.schema, data)
    return select_texts(table.data.table, split_column_names(data))


@pytest.mark.parametrize(
    ("path", "texts"),
    [
        ("title", ["Why?", "How?"]),
        ("answers.text", ["a b"]),
        ("threads.posts.body", ["c d"]),
        ("dotted.name", ["e", "f"]),
        ("title, answers.text", ["Why? a b", "How?"]),
        ("threads.posts.body,title", ["c d Why?", "How?"]),
    ],
)
def test_selects(path: str, texts: list[str]) -> None:
    assert select(path) == texts


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (
            "body",
            "'body' does not exist; the columns are: title, answers.text, answers.score, threads.posts.body",
        ),
        ("answers", "'answers' holds columns of its own, not text"),
        ("threads.posts.likes", "'threads.posts.likes' holds int64, not text"),
        ("title,answers.words", "'answers.words' does not exist"),
        ("title.", "'title.' does not exist"),
        ("", "'' holds columns of its own"),
    ],
)
def test_refuses(path: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        select(path)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.lists(st.lists(st.text("abc ", min_size=1), max_size=3), max_size=3), min_size=1, max_size=5)
)
def test_lists_of_lists_are_joined_in_order(rows: list[list[list[str]]]) -> None:
    rows = [*rows, [["last"]]]
    joined = [" ".join(text for texts in row for text in texts) for row in rows]
    expected = [text for text in joined if text.strip()]
    assert select("deep", [{"deep": row} for row in rows]) == expected
