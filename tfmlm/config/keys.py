"""Every key of the configuration, with its default and its meaning."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields

from tfmlm.config.schema import Config


def list_keys() -> Iterator[tuple[str, str, object, str]]:
    """Section, key, default and meaning of every setting, read off the docstrings of the dataclasses."""
    defaults = asdict(Config())
    for section in fields(Config):
        meanings = _read_attributes(section.default_factory.__doc__ or "")
        for key, default in defaults[section.name].items():
            yield section.name, key, default, meanings[key]


def _read_attributes(docstring: str) -> Mapping[str, str]:
    """The entries of a Google-style `Attributes:` section."""
    entries = re.findall(
        r"^ {8}(\w+): ((?:.*\n)(?: {12}.*\n)*)", docstring.partition("Attributes:")[2] + "\n", re.M
    )
    return {name: " ".join(text.split()) for name, text in entries}
