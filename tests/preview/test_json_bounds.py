"""What the JSON of a request would come to is counted without making it, and strings may hold anything."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfmlm.preview import json_bounds
from tfmlm.preview.json_bounds import check_json
from tfmlm.preview.status import ServingError

strings = st.text('ab"\\[]{},:é\U0001f600\n', max_size=8)
documents = st.recursive(
    st.integers(0, 9) | st.booleans() | strings,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(strings, inner, max_size=4),
    max_leaves=20,
)


def measure(value: Any) -> tuple[int, int, int]:
    """Depth; lists, objects and strings; commas, as many values as follow another."""
    if isinstance(value, str):
        return 0, 1, 0
    if not isinstance(value, list | dict):
        return 0, 0, 0
    inner = [measure(item) for item in (value.values() if isinstance(value, dict) else value)]
    keys = len(value) if isinstance(value, dict) else 0
    depth = 1 + max((depth for depth, _, _ in inner), default=0)
    num_commas = max(len(value) - 1, 0) + sum(commas for _, _, commas in inner)
    return depth, 1 + keys + sum(parts for _, parts, _ in inner), num_commas


@given(value=documents, indent=st.none() | st.just(1), as_ascii=st.booleans())
def test_counts_are_exact(value: Any, indent: int | None, as_ascii: bool) -> None:
    body = json.dumps(value, indent=indent, ensure_ascii=as_ascii).encode()
    depth, num_parts, num_commas = measure(value)
    for name, limit, says in (
        ("MAX_DEPTH", depth, "nested too deeply"),
        ("MAX_PARTS", num_parts, f"{num_parts} lists, objects and strings; at most {num_parts - 1} are"),
        ("MAX_VALUES", num_commas + 1, f"{num_commas + 1} values; at most {num_commas} are"),
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(json_bounds, name, limit)
            check_json(body, max_texts=0)
            patch.setattr(json_bounds, name, limit - 1)
            if limit:
                with pytest.raises(ServingError, match=says):
                    check_json(body, max_texts=0)


def test_more_texts_may_have_more_parts() -> None:
    body = b"[" + b"[]," * 100_000 + b"[]]"
    check_json(body, max_texts=10_000)
    with pytest.raises(ServingError, match="100002 lists, objects and strings; at most 65536"):
        check_json(body, max_texts=256)


@given(body=st.text('"\\[]{},1', max_size=40))
def test_what_is_no_json_is_left_to_the_parser(body: str) -> None:
    check_json(body.encode(), max_texts=256)
