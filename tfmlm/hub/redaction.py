"""Redaction of a configuration before it is published: of local paths only the last part stays."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import PurePosixPath
from typing import Any

from tfmlm.config import FILE_SOURCES, Config
from tfmlm.model_names import PACKAGE_SCHEME, is_hub_id
from tfmlm.urls import hide_secrets, is_url

_SECTIONS = ("data", "tokenizer", "masking", "model", "optimizer", "train", "distribute")
_SEED = "run.seed"
_PRIVATE = ("distribute.tpu", "train.callbacks")
"""Say where a machine is or whom it reports to, and nothing about the model."""

_TEXTS = ("run.sample_texts",)
"""May begin like a path."""

_PATHS = (
    "data.source",
    "data.train_files",
    "data.validation_files",
    "tokenizer.name_or_path",
    "model.name_or_path",
    "run.output_dir",
    "export.dir",
)


def list_settings(config: Config) -> Iterator[tuple[str, str]]:
    """Each setting that made the model what it is, as `section.key` and JSON."""
    yield _SEED, json.dumps(config.run.seed)
    published = redact_config(config)
    for section in _SECTIONS:
        for name, value in asdict(getattr(published, section)).items():
            key = f"{section}.{name}"
            if key not in _PRIVATE:
                yield key, json.dumps(value, ensure_ascii=False)


def redact_config(config: Config) -> Config:
    """The configuration without what only its own machine has: of local paths the last part is left."""
    sections = (*_SECTIONS, "run", "export")
    return replace(config, **{name: _redact_section(name, getattr(config, name)) for name in sections})


def redact_path(name: str) -> str:
    """A Hub id, a source or a package as it is; the last part of a path, or of a URL without its secrets."""
    is_known = name in (*FILE_SOURCES, "installed-docs") or name.startswith(PACKAGE_SCHEME)
    return name if is_known or is_hub_id(name) else PurePosixPath(hide_secrets(name)).name


def _redact_section(section: str, settings: Any) -> Any:
    defaults = type(settings)()
    published = {}
    for name, value in vars(settings).items():
        key = f"{section}.{name}"
        if key in _PRIVATE:
            published[name] = getattr(defaults, name)
        elif key not in _TEXTS:
            published[name] = _redact(value, is_path=key in _PATHS)
    return replace(settings, **published)


def _redact(value: Any, *, is_path: bool) -> Any:
    if isinstance(value, dict):
        return {name: _redact(item, is_path=False) for name, item in value.items()}
    if isinstance(value, list):
        return [_redact(item, is_path=is_path) for item in value]
    if isinstance(value, str) and (is_path or value.startswith(("/", "~")) or is_url(value)):
        return redact_path(value)
    return value
