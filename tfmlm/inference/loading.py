"""Finds what a command was given: a run, a model folder, a Hub id or an export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from tfmlm.config import Config
from tfmlm.config.load import load_config, make_config
from tfmlm.errors import UserError
from tfmlm.export_layout import list_versions
from tfmlm.model_layouts import describe_folder
from tfmlm.model_names import resolve_name_or_path
from tfmlm.run_folder import RUN_CONFIG_NAME, RunFolder
from tfmlm.urls import is_url

if TYPE_CHECKING:  # importing it at run time would bring TensorFlow
    from transformers import PreTrainedTokenizerFast, TFPreTrainedModel


def locate(name: str) -> str:
    """The folder or Hub id that a name stands for; of a remote one, a copy.

    Raises:
        UserError: it cannot be read.
    """
    if not is_url(name):
        return name
    from tfmlm.remote_folders import bring_model

    return str(bring_model(name))


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
    from tfmlm.training.model import load_model_folder

    return load_model_folder(_find_model_dir(path))


def load_trained(name: str, overrides: list[str]) -> tuple[Config, Path]:
    """Finds the model folder of a run or model folder, and the configuration that it was trained with.

    Args:
        name: the folder, which may be a remote one.
        overrides: settings that win.

    Raises:
        UserError: it is neither.
    """
    model_dir = Path(_find_model_dir(locate(name)))
    config_file = model_dir / RUN_CONFIG_NAME
    if not config_file.exists():
        layout = describe_folder(model_dir)
        raise UserError(
            f"{name!r} is no finished run and no model folder of one: "
            f"{layout or f'it has no {RUN_CONFIG_NAME}'}"
        )
    return load_config(config_file, overrides), model_dir


class Exportable(NamedTuple):
    """A model that can be exported.

    Attributes:
        config: that of its run, or the defaults.
        name_or_path: its folder, or a Hub id.
        text: what `data` says of text on which the tokenization can be compared: that `of_run`, which may be
            gone by now, `named` by the user, or `none`.
    """

    config: Config
    name_or_path: str
    text: Literal["of_run", "named", "none"]


def find_exportable(name: str, overrides: list[str]) -> Exportable:
    """Finds what `load_trained` finds, or else any model folder or Hub id.

    Args:
        name: the folder, which may be a remote one, the Hub id or `package:NAME/PATH`.
        overrides: settings that win; of a model without a run those of `export` and `data`.

    Raises:
        UserError: it is neither, or a setting has no meaning for it.
    """
    path = _find_model_dir(locate(name))
    if Path(path, RUN_CONFIG_NAME).exists():
        return Exportable(load_config(Path(path, RUN_CONFIG_NAME), overrides), path, "of_run")
    if Path(path).is_dir() and not Path(path, "config.json").exists():
        layout = describe_folder(Path(path))
        raise UserError(
            f"{name!r} is no finished run and no model folder: "
            f"{layout or f'it has no {RUN_CONFIG_NAME} and no config.json'}"
        )
    for override in overrides:
        if not override.startswith(("export.", "data.")):
            raise UserError(
                f"override {override!r} changes nothing in an export of {name!r}, which is no run of tfmlm; "
                "give keys of export, or of data, on whose text the tokenization is compared"
            )
    resolved = resolve_name_or_path(path, "model")
    settings = {"run": {"name": _name_export(name)}, "model": {"name_or_path": resolved}}
    is_named = any(override.startswith("data.") for override in overrides)
    return Exportable(make_config(settings, overrides), resolved, "named" if is_named else "none")


def _name_export(name: str) -> str:
    """The last part of a model's name, which a server may give it in requests."""
    last = name.rstrip("/").rpartition("/")[2]
    named = Path(name).resolve().name if last in ("", ".", "..") else last
    return named.replace(":", "-") or "model"


def _find_model_dir(path: str) -> str:
    """The model folder of a run, or what was given."""
    of_run = RunFolder(Path(path)).model_dir
    return str(of_run) if of_run.is_dir() else path
