"""What of a configuration may be published: Hub ids, settings, and of local paths only the last part."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any

from tfmlm.config import FILE_SOURCES, Config
from tfmlm.data.shards import is_shard_folder

_SECTIONS = ("data", "tokenizer", "masking", "model", "optimizer", "train", "distribute")
_SEED = "run.seed"
_PRIVATE = ("distribute.tpu",)
"""Says where a machine is, and nothing about the model."""

_PATHS = (
    "data.source",
    "data.train_files",
    "data.validation_files",
    "tokenizer.name_or_path",
    "model.name_or_path",
)
_PACKAGE_SCHEME = "package:"


def find_base_model(config: Config) -> str | None:
    """The Hub id of the model that was trained further, if it came from the Hub."""
    name = config.model.name_or_path
    return name if name and _is_hub_id(name) else None


def find_dataset(config: Config) -> str | None:
    """The Hub id of the dataset, if it came from the Hub."""
    source = config.data.source
    is_other = source in (*FILE_SOURCES, "installed-docs") or is_shard_folder(source)
    return source if not is_other and _is_hub_id(source) else None


def list_settings(config: Config) -> Iterator[tuple[str, str]]:
    """Each setting that made the model what it is, as `section.key` and JSON."""
    yield _SEED, json.dumps(config.run.seed)
    for section in _SECTIONS:
        for name, value in asdict(getattr(config, section)).items():
            key = f"{section}.{name}"
            if key not in _PRIVATE:
                shown = _publish(value, is_path=key in _PATHS)
                yield key, json.dumps(shown, ensure_ascii=False)


def publish_path(name: str) -> str:
    """A Hub id, a source or a package as it is; the last part of a path."""
    is_known = name in (*FILE_SOURCES, "installed-docs") or name.startswith(_PACKAGE_SCHEME)
    return name if is_known or _is_hub_id(name) else PurePosixPath(name).name


def _publish(value: Any, *, is_path: bool) -> Any:
    if isinstance(value, dict):
        return {name: _publish(item, is_path=False) for name, item in value.items()}
    if isinstance(value, list):
        return [_publish(item, is_path=is_path) for item in value]
    if isinstance(value, str) and (is_path or value.startswith(("/", "~")) or "://" in value):
        return publish_path(value)
    return value


def _is_hub_id(name: str) -> bool:
    return re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name, re.ASCII) is not None and not Path(name).exists()
