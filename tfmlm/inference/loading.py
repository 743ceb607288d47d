"""Finds what a command was given: a run, a model folder, a Hub id or an export."""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedTokenizerFast, TFPreTrainedModel

from tfmlm.export_layout import list_versions
from tfmlm.run_folder import RunFolder
from tfmlm.training.model import load_model_folder


def find_export(path: str) -> Path | None:
    """The version that `path` is, or the newest one below it; None if it is no export."""
    folder = Path(path)
    versions = list_versions(folder) if folder.is_dir() else []
    if versions:
        folder /= str(max(versions))
    return folder if (folder / "saved_model.pb").exists() else None


def load_run_or_model(path: str) -> tuple[TFPreTrainedModel, PreTrainedTokenizerFast]:
    """Loads the model of a run, a model folder or a Hub id, as `load_model_folder` does.

    Raises:
        UserError: there is none of these at `path`.
    """
    of_run = RunFolder(Path(path)).model_dir
    return load_model_folder(of_run if of_run.is_dir() else path)
