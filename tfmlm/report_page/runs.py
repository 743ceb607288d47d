"""Reads what a run folder tells about its run, finished or not, without TensorFlow."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tfmlm.config.schema import list_keys
from tfmlm.errors import UserError
from tfmlm.results import Result, Samples, to_perplexity
from tfmlm.run_folder import RunFolder, read_metrics


class Point(NamedTuple):
    """A perplexity at a moment of a run.

    Attributes:
        tokens: tokens that had gone through the model.
        seconds: seconds of training.
        perplexity: more than 0.
    """

    tokens: float
    seconds: float
    perplexity: float


@dataclass(frozen=True)
class ShownRun:
    """A run as the page shows it.

    Attributes:
        name: what tells it from the others.
        folder: where it lies.
        settings: `section.key` and its value, of every key that this or the run's version knows.
        result: its figures; None while it is not finished.
        steps: steps that are in its log.
        training: perplexity of the training batches, one point a step; empty before the first.
        held_out: perplexity of the held-out text.
        samples_before: sample texts, filled before training.
    """

    name: str
    folder: RunFolder
    settings: dict[str, Any]
    result: Result | None
    steps: int
    training: list[Point]
    held_out: list[Point]
    samples_before: Samples


def read_runs(paths: list[Path]) -> list[ShownRun]:
    """Reads run folders; one that is given twice is read once.

    Raises:
        UserError: one is no run folder, or cannot be read.
    """
    unique: dict[Path, Path] = {}
    for path in paths:
        unique.setdefault(path.resolve(), path)
    runs = [_read_run(path) for path in unique.values()]
    names = [run["name"] for run in runs]
    return [
        ShownRun(**run | {"name": run["name"] if names.count(run["name"]) == 1 else str(run["folder"].path)})
        for run in runs
    ]


def _read_run(path: Path) -> dict[str, Any]:
    folder = RunFolder(path)
    if not folder.config_file.is_file():
        raise UserError(f"{str(path)!r} is no run folder: it has no config.yaml; give one of `tfmlm train`")
    settings = _read_settings(folder.config_file)
    result = folder.read_result()
    rows = read_metrics(folder.logs_dir)
    tokens = _count_tokens(rows)
    return {
        "name": str(settings["run.name"]),
        "folder": folder,
        "settings": settings,
        "result": result,
        "steps": max((int(row["step"]) for row in rows), default=0),
        "training": [_make_point(row, row["loss"], tokens) for row in rows if row["loss"]],
        "held_out": [_make_point(row, row["eval_loss"], tokens) for row in rows if row["eval_loss"]],
        "samples_before": result.samples_before if result else _read_samples(folder),
    }


def _read_settings(path: Path) -> dict[str, Any]:
    """The file's keys, with the defaults of those that its version did not know."""
    settings = {str(key): key.default for key in list_keys()}
    try:
        sections = yaml.safe_load(path.read_text(encoding="utf-8"))
        given = {f"{name}.{key}": value for name, keys in sections.items() for key, value in keys.items()}
    except (OSError, ValueError, AttributeError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{str(path)!r} cannot be read ({reason}); give the folder of another run") from error
    return settings | given


def _count_tokens(rows: list[dict[str, str]]) -> dict[str, float]:
    """Tokens trained on, by step."""
    tokens = {"0": 0.0}
    for row in rows:
        if row["loss"]:
            tokens[row["step"]] = max(tokens.values()) + float(row["tokens"])
    return tokens


def _make_point(row: dict[str, str], loss: str, tokens: dict[str, float]) -> Point:
    # A loss of 100 nats is off any chart, and exp of a larger one overflows in the drawing.
    perplexity = to_perplexity(min(float(loss), 100.0))
    return Point(tokens[row["step"]], float(row["seconds"]), perplexity)


def _read_samples(folder: RunFolder) -> Samples:
    if not folder.samples_file.exists():
        return {}
    samples: Samples = json.loads(folder.samples_file.read_text(encoding="utf-8"))
    return samples
