"""Rows in a field of one JSON object: the same as Python reads them, whatever lies around them."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.data.source_files import ROW_TEXTS, assert_refused, load_all, read_file
from tfmlm.config import Config, DataConfig
from tfmlm.config.cross_checks import check_config
from tfmlm.data import files
from tfmlm.data.files import BadRow
from tfmlm.errors import UserError

pytestmark = pytest.mark.usefixtures("own_caches")

values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text('ab\\"[]{},:\u00e9\n', max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text('ab"{', max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)
others = st.dictionaries(st.text('abc"\\[', max_size=4), values, max_size=4)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    around=st.tuples(others, others),
    texts=st.lists(st.text('ab"\\ \u00e9', max_size=9), max_size=9),
    chunk_bytes=st.integers(1, 40),
    form=st.fixed_dictionaries({"indent": st.sampled_from([None, 0, 3]), "ensure_ascii": st.booleans()}),
)
def test_the_same_rows_as_from_the_whole(
    around: tuple[dict[str, Any], dict[str, Any]],
    texts: list[str],
    chunk_bytes: int,
    form: dict[str, Any],
    tmp_path: Path,
) -> None:
    before, after = around
    rows = [{"text": text, "n": number} for number, text in enumerate(texts)]
    whole = {key: value for key, value in before.items() if key not in after} | {"rows": rows} | after
    path = tmp_path / "a.json"
    path.write_text(json.dumps(whole, **form), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "_CHUNK_BYTES", chunk_bytes)
        assert read_file(path, "json", field="rows") == texts


def write_rows(path: Path) -> str:
    """As SQuAD has them."""
    rows = [{"title": "t", "paragraphs": [{"context": text, "qas": []}]} for text in ROW_TEXTS]
    path.write_text(json.dumps({"version": "1.1", "data": rows}))
    return str(path)


@pytest.mark.parametrize("streaming", [False, True])
def test_nested_columns_of_rows_in_a_field(streaming: bool, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.json")
    texts = load_all(
        source="json", train_files=[path], field="data", text_column="paragraphs.context", streaming=streaming
    )
    assert texts == sorted(ROW_TEXTS)


def test_another_field_is_another_text(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"one": list("abcdefgh"), "two": list("ijklmnop")}))
    for field, expected in {"one": list("abcdefgh"), "two": list("ijklmnop")}.items():
        texts = load_all(source="json", train_files=[str(path)], field=field, validation_fraction=0.5)
        assert texts == expected


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"a": [1], "b": {}}', "there is no such field (the fields are: a, b)"),
        ("{}", "there is no such field (the fields are: )"),
        ('{"rows": {"text": ["a"]}}', "it holds no list"),
        ('{"rows": [], "rows": []}', "it is there twice"),
        ('{"rows": []}\n{"rows": []}', "more follows its end"),
        ('[{"text": "a"}]', "'[' stands where one of '{' must"),
        ('{"rows": [{"text": "a"}', "it ends early"),
        ('{"a": "b', "it ends early"),
        ('{"a": "b\\', "it ends early"),
        ('{"a": 1', "it ends early"),
        ('{"a": }', "'}' stands where a value must"),
        ('{"a": :}', "':' stands where a value must"),
        ("{3: 4}", "'3' stands where one of '\"' must"),
        ("", "it ends early"),
    ],
)
def test_what_is_wrong_with_a_field_is_one_bad_row(content: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(content)
    *rows, last = read_file(path, "json", field="rows")
    assert isinstance(last, BadRow)
    assert last.reason == f"data.field 'rows' cannot be read: {reason}"
    assert all(row == "a" for row in rows)
    assert_refused("data.field 'rows'", source="json", train_files=[str(path)], field="rows")


def test_memory_does_not_grow_with_other_fields() -> None:
    whole = {"long": "a" * 2**22, "lists": [["b"]] * 10_000, "rows": ["c" * 200, "d"]}
    held = []

    class Letters(io.StringIO):
        def read(self, num_letters: int | None = -1) -> str:
            held.append(len(items._text) - items._place)
            return super().read(num_letters)

    items = files._ItemsOfArray(Letters(json.dumps(whole)), 10**6)
    assert list(items.take_field("rows")) == ["c" * 200, "d"]
    assert max(held) <= 20


def test_a_long_item_of_a_field_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"rows": ["a", "b" * 5_000_000]}))
    first, last = read_file(path, "json", field="rows", max_text_bytes=10**6)
    assert first == "a"
    assert "an item of it: it has more than 1,000,000 bytes" in str(last)


def test_the_key_is_for_json_alone() -> None:
    with pytest.raises(UserError, match=r"data\.field 'rows' is for data\.source json, and it is 'csv'"):
        check_config(Config(data=DataConfig(source="csv", train_files=["a"], field="rows")))
