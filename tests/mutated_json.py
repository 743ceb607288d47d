"""Files of JSON with something changed: what a stranger, or a bad disk, makes of them."""

import copy
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

Path = tuple[str | int, ...]

_LONG = 10**12

odd_values = st.sampled_from(
    [
        *(None, True, 0, -1, 1, 2, 7, 0.5, -0.0, 1e308, 2**31, 2**63, -(2**63) - 1, _LONG, 10**400),
        *("", "a", "\0", "\x1b[2J", "\u202e", "/etc/passwd", "../../etc/passwd", "<mask>", "\U0001f600" * 40),
        *(
            [],
            {},
            [[]],
            [None],
            {"a": 1},
            {"": {}},
            [[1, 2], "b"],
            {"type": "Nothing"},
            {"content": "<mask>"},
        ),
    ]
) | st.text(max_size=5)


@st.composite
def mutations(draw: st.DrawFn, value: Any, keys: tuple[str, ...] = ()) -> Any:
    """A copy of JSON in which a few values are others, gone, or new under one of the keys."""
    changed = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 3))):
        places = sorted(_list_places(changed), key=len)
        if not places:
            return changed
        *way, last = draw(st.sampled_from(places))
        parent = changed
        for step in way:
            parent = parent[step]
        what = draw(st.sampled_from(["replace", "remove", "add"]))
        if what == "remove":
            del parent[last]
        elif what == "add" and isinstance(parent, dict) and keys:
            parent[draw(st.sampled_from(keys))] = copy.deepcopy(draw(odd_values))
        else:
            parent[last] = copy.deepcopy(draw(odd_values))
    return changed


def _list_places(value: Any, way: Path = ()) -> Iterator[Path]:
    """Where something lies; of long lists and mappings, such as a vocabulary, the first few."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else []
    for key, item in list(items)[:12]:
        yield (*way, key)
        yield from _list_places(item, (*way, key))
