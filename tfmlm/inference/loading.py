"""Finds what a command was given: a run, a model folder, a Hub id or an export."""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedTokenizerFast, TFPreTrainedModel

from tfmlm.config import Config
from tfmlm.config.load import load_config
from tfmlm.errors import UserError
from tfmlm.export_layout import list_versions
from tfmlm.model_layouts import describe_folder
from tfmlm.remote_folders import bring_model
from tfmlm.run_folder import RUN_CONFIG_NAME, RunFolder
from tfmlm.training.model import load_model_folder
from tfmlm.urls import is_url


def locate(name: str) -> str:
    """The folder or Hub id that a name stands for; of a remote one, a copy.

    Raises:
        UserError: it cannot be read.
    """
    return str(bring_model(name)) if is_url(name) else name


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


def load_trained(name: str, overrides: list[str]) -> tuple[Config, Path]:
    """Finds the model folder of a run or model folder, and the configuration that it was trained with.

    Args:
        name: the folder, which may be a remote one.
        overrides: settings that win.

    Raises:
        UserError: it is neither.
    """
    path = Path(locate(name))
    model_dir = RunFolder(path).model_dir if RunFolder(path).model_dir.is_dir() else path
    config_file = model_dir / RUN_CONFIG_NAME
    if not config_file.exists():
        layout = describe_folder(model_dir)
        raise UserError(
            f"{name!r} is no finished run and no model folder of one: "
            f"{layout or f'it has no {RUN_CONFIG_NAME}'}"
        )
    return load_config(config_file, overrides), model_dir
