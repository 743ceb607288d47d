"""The normalizer of a `tokenizer.json` as ops.

What works on each character alone is tried out on every character and becomes a table, so it follows the
tokenizers library's own Unicode version. What looks at neighbours has an op of its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache
from itertools import groupby
from typing import Any

import tensorflow as tf
import tensorflow_text as tf_text
from tokenizers import Tokenizer, normalizers

from tfmlm.graph_tokenizer import UnsupportedTokenizerError
from tfmlm.graph_tokenizer.charsmap import Precompiled
from tfmlm.graph_tokenizer.code_points import CharacterMap, decode_utf8, encode_utf8, map_characters
from tfmlm.graph_tokenizer.special_tokens import WHITE_SPACE

Step = Callable[[tf.Tensor], tf.Tensor]
"""From strings [N] to strings [N]."""

_CHARACTERWISE = {"BertNormalizer", "Lowercase", "StripAccents", "Nmt", "NFC", "NFD", "NFKC", "NFKD"}
_COMPOSING = {"NFC", "NFD", "NFKC", "NFKD"}
"""Forms that also order and join neighbours: the op does that after the table has done the characters."""


def make_normalizer(tokenizer: Tokenizer) -> Step:
    """The normalizer of a tokenizer.

    Raises:
        UnsupportedTokenizerError: it has a step that is not known here.
    """
    described = json.loads(tokenizer.to_str())["normalizer"]
    steps = [step for group in _group(_list_steps(described)) for step in _make_steps(group)]

    def normalize(texts: tf.Tensor) -> tf.Tensor:
        for step in steps:
            texts = step(texts)
        return texts

    return normalize


def _list_steps(described: dict[str, Any] | None) -> list[dict[str, Any]]:
    if described is None:
        return []
    if described["type"] == "Sequence":
        return [step for part in described["normalizers"] for step in _list_steps(part)]
    return [described]


def _group(steps: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Neighbouring characterwise steps together: one table does them all."""
    groups = []
    for is_characterwise, group in groupby(steps, key=lambda step: step["type"] in _CHARACTERWISE):
        if not is_characterwise:
            groups += [[step] for step in group]
            continue
        pending: list[dict[str, Any]] = []
        for step in group:
            pending.append(step)
            if step["type"] in _COMPOSING:
                groups.append(pending)
                pending = []
        groups += [pending] if pending else []
    return groups


def _make_steps(group: list[dict[str, Any]]) -> list[Step]:
    if group[0]["type"] in _CHARACTERWISE:
        table = _make_map(json.dumps(group))
        steps: list[Step] = [lambda texts: encode_utf8(table(decode_utf8(texts)))]
        form = group[-1]["type"]
        return [*steps, lambda texts: tf_text.normalize_utf8(texts, form)] if form in _COMPOSING else steps
    (step,) = group
    if step["type"] == "Precompiled":
        return [Precompiled(step["precompiled_charsmap"])]
    if step["type"] == "Replace":
        pattern = _translate_pattern(step["pattern"])
        rewrite = step["content"].replace("\\", "\\\\")
        return [lambda texts: tf.strings.regex_replace(texts, pattern, rewrite)]
    if step["type"] == "Strip":
        ends = [f"^{WHITE_SPACE}+"] * step["strip_left"] + [f"{WHITE_SPACE}+$"] * step["strip_right"]
        return [lambda texts: tf.strings.regex_replace(texts, "|".join(ends), "")]
    raise UnsupportedTokenizerError(f"the normalizer {step['type']}")


def _load(step: dict[str, Any]) -> normalizers.Normalizer:
    """The tokenizers library's own object for a step."""
    empty = {"version": "1.0", "added_tokens": [], "normalizer": step}
    empty |= {"model": {"type": "WordLevel", "vocab": {"?": 0}, "unk_token": "?"}}
    return Tokenizer.from_str(json.dumps(empty)).normalizer


@cache
def _make_map(group: str) -> CharacterMap:
    """The table of these steps, as JSON; kept, since tokenizers have the same few."""
    steps = normalizers.Sequence([_load(step) for step in json.loads(group)])
    return CharacterMap(map_characters(steps.normalize_str))


def _translate_pattern(pattern: dict[str, str]) -> str:
    """RE2's form of a pattern: a plain string, or one of the few regular expressions that tokenizers use."""
    if "String" in pattern:
        return re.escape(pattern["String"])
    known = {r"\s+": f"{WHITE_SPACE}+", " {2,}": " {2,}", r"\s{2,}": f"{WHITE_SPACE}{{2,}}"}
    if pattern["Regex"] not in known:
        raise UnsupportedTokenizerError(f"the normalizer Replace with the pattern {pattern['Regex']!r}")
    return known[pattern["Regex"]]
