"""Reads a configuration from YAML and overrides, checks it, and writes it back."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import (
    ConfigKeyError,
    InterpolationResolutionError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)
from yaml import YAMLError

from tfmlm.config import FILE_SOURCES, Config, DataConfig, HubConfig, TrainConfig
from tfmlm.errors import UserError, first_line

_CHOICES = {
    "data.on_bad_rows": ("error", "skip"),
    "data.sample_by": ("line", "paragraph", "document"),
    "tokenizer.algorithm": ("wordpiece", "byte_bpe", "unigram"),
    "optimizer.schedule": ("linear", "cosine", "polynomial", "constant"),
    "train.keep": ("last", "best"),
    "train.precision": ("float32", "bfloat16", "float16"),
    "train.logits": ("masked", "all"),
    "train.resume": ("auto", "never"),
    "export.text_signature": ("auto", "require", "off"),
    "export.long_texts": ("cut", "refuse"),
    "distribute.strategy": ("auto", "one_device", "mirrored", "multi_worker", "tpu"),
}
_POSITIVE = (
    "data.max_rows",
    "data.block_size",
    "data.num_proc",
    "tokenizer.train_vocab_size",
    "optimizer.learning_rate",
    "train.epochs",
    "train.max_steps",
    "train.max_seconds",
    "train.per_replica_batch_size",
    "train.gradient_accumulation_steps",
    "train.checkpoint_every_steps",
    "train.kept_checkpoints",
    "train.evaluate_every_steps",
    "train.early_stopping_patience",
    "train.steps_per_execution",
    "optimizer.polynomial_power",
    "export.top_k",
    "export.max_masks",
    "hub.every_steps",
    "hub.timeout_seconds",
)
_NOT_NEGATIVE = (
    "run.seed",
    "optimizer.weight_decay",
    "optimizer.warmup_steps",
    "optimizer.max_grad_norm",
    "model.freeze_layers",
    "hub.retry_seconds",
)
_FRACTIONS = (
    "masking.rate",
    "masking.mask_fraction",
    "masking.random_fraction",
    "masking.evaluation_rate",
    "optimizer.layer_decay",
)
_VALUE_ERRORS = (AttributeError, LookupError, TypeError, ValueError)
"""What PyYAML and OmegaConf raise for a value that is not what its tag or its look says, such as `0x_`."""

_SECTIONS: dict[str, type] = {section.name: cast(type, section.default_factory) for section in fields(Config)}


def load_config(path: str | Path, overrides: list[str] | None = None) -> Config:
    """Reads a YAML file, applies overrides, and checks the whole.

    Args:
        path: the YAML file.
        overrides: `section.key=value`, applied last and always winning; values are YAML.

    Raises:
        UserError: the file or a key or a value is wrong; the message names it.
    """
    try:
        settings = OmegaConf.merge(_read_yaml(Path(path)), _parse_overrides(overrides or []))
    except (OmegaConfBaseException, TypeError) as error:
        raise UserError(f"overrides do not fit {str(path)!r}: {first_line(error)}") from error
    config = _to_config(cast(DictConfig, settings))
    check_config(config)
    return config


def dump_config(config: Config) -> str:
    """The configuration as YAML that `load_config` reads back to an equal one."""
    return OmegaConf.to_yaml(_escape(asdict(config)))


def _escape(value: Any) -> Any:
    """Keeps `${` in texts what it is: OmegaConf would read a reference to another key."""
    if isinstance(value, dict):
        return {key: _escape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_escape(item) for item in value]
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", value) if isinstance(value, str) else value


def differing_keys(first: Config, second: Config) -> list[str]:
    """Keys (`section.key`) in which two configurations differ and that change what a run leaves behind.

    Where the run folder lies and what is pushed may change from one part of a run to the next.
    """
    return [
        f"{name}.{key.name}"
        for name, section in _SECTIONS.items()
        for key in fields(section)
        if name != "hub" and f"{name}.{key.name}" != "run.output_dir"
        if getattr(getattr(first, name), key.name) != getattr(getattr(second, name), key.name)
    ]


def _read_yaml(path: Path) -> DictConfig:
    try:
        settings = OmegaConf.load(path)
    except FileNotFoundError:
        raise UserError(
            f"config file {str(path)!r} does not exist; the shipped ones are in configs/"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"config file {str(path)!r} cannot be read: {error}") from error
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UserError(f"config file {str(path)!r}{place}: not valid YAML: {problem}") from error
    except _VALUE_ERRORS as error:
        raise UserError(
            f"config file {str(path)!r} has a value that cannot be read ({first_line(error)}); quote it"
        ) from error
    if not isinstance(settings, DictConfig):
        raise UserError(
            f"config file {str(path)!r} is a list; it must hold sections such as `run:` and `data:`"
        )
    return settings


def _parse_overrides(overrides: list[str]) -> DictConfig:
    for override in overrides:
        if "=" not in override:
            raise UserError(f"override {override!r} is not of the form section.key=value")
    try:
        return OmegaConf.from_dotlist(overrides)
    except (OmegaConfBaseException, YAMLError, *_VALUE_ERRORS) as error:
        raise UserError(f"override cannot be read: {first_line(error)} in {' '.join(overrides)}") from error


def _to_config(settings: DictConfig) -> Config:
    try:
        _check_containers(settings)
        return cast(Config, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), settings)))
    except ConfigKeyError as error:
        raise UserError(
            f"config key {error.full_key}: {first_line(error)} `tfmlm config` lists all"
        ) from error
    except (InterpolationResolutionError, MissingMandatoryValue) as error:
        named = re.search("full_key: (.*)", str(error))
        key = error.full_key or (named[1] if named else "")
        raise UserError(f"config key {key}: {first_line(error)}; write the value itself") from error
    except OmegaConfBaseException as error:
        key = str(error.full_key)
        raise UserError(
            f"{key} is {OmegaConf.select(settings, key)!r}; it must be of type {_type_of(key)}"
        ) from error


def _check_containers(settings: DictConfig) -> None:
    """Refuses lists and values where keys must be, keys where a list must be, and what no path may hold."""
    for name, section in settings.items():
        if name not in _SECTIONS or section is None:
            continue
        if not isinstance(section, DictConfig):
            raise UserError(
                f"config section {name} is {section!r}; it must hold keys such as {_example_key(name)}"
            )
        for item in fields(_SECTIONS[name]):
            if OmegaConf.is_interpolation(section, item.name):
                continue  # its value is found later, with the defaults of the other keys
            value = section.get(item.name)
            if isinstance(value, DictConfig if str(item.type).startswith("list") else ListConfig):
                raise UserError(f"{name}.{item.name} is {value!r}; it must be of type {item.type}")
            if any("\0" in str(text) for text in (value if isinstance(value, ListConfig) else [value])):
                raise UserError(f"{name}.{item.name} is {value!r}; it must be without the character NUL")


def _example_key(section: str) -> str:
    return f"{section}.{fields(_SECTIONS[section])[0].name}"


def _type_of(key: str) -> str:
    section, _, name = key.partition("[")[0].partition(".")
    if section not in _SECTIONS:
        return "mapping"
    return next((str(item.type) for item in fields(_SECTIONS[section]) if item.name == name), "mapping")


def check_config(config: Config) -> None:
    """Checks what types cannot: choices, ranges, and keys that need each other.

    Raises:
        UserError: names the first wrong key, what it holds and what it may hold.
    """
    for key, choices in _CHOICES.items():
        _check(key, config, choices.__contains__, f"one of {', '.join(choices)}")
    for key in _POSITIVE:
        _check(key, config, _is_positive_or_unset, "more than 0 and less than 2**63")
    for key in _NOT_NEGATIVE:
        _check(key, config, lambda value: 0 <= value < 2**63, "0 or more and less than 2**63")
    for key in _FRACTIONS:
        _check(key, config, lambda value: value is None or 0 <= value <= 1, "between 0 and 1")
    _check(
        "data.validation_fraction",
        config,
        lambda value: 0 < value < 1,
        "between 0 and 1, both excluded",
    )
    masking = config.masking
    if masking.mask_fraction + masking.random_fraction > 1:
        raise UserError(
            f"masking.mask_fraction {masking.mask_fraction} and masking.random_fraction "
            f"{masking.random_fraction} add up to more than 1"
        )
    _check_source(config.data)
    _check_evaluation(config.train, config.data)
    if not config.model.name_or_path and not config.model.config.get("model_type"):
        raise UserError("model.name_or_path is empty; set it, or model.config with a model_type")
    if not (config.model.name_or_path or config.tokenizer.name_or_path or config.tokenizer.train_vocab_size):
        raise UserError("no tokenizer: set tokenizer.name_or_path or tokenizer.train_vocab_size")
    _check_hub(config.hub, config.data)


def _check_hub(hub: HubConfig, data: DataConfig) -> None:
    if hub.push and not hub.repo_id:
        raise UserError("hub.push is true and hub.repo_id is empty; set it to a name such as me/my-model")
    if hub.repo_id and not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", hub.repo_id, re.ASCII):
        raise UserError(f"hub.repo_id is {hub.repo_id!r}; it must be a name such as me/my-model")
    for key, branch in (("revision", hub.revision), ("checkpoints", hub.checkpoints)):
        if branch is not None and not re.fullmatch(r"[\w.-]+(/[\w.-]+)*", branch, re.ASCII):
            raise UserError(f"hub.{key} is {branch!r}; it must be the name of a branch, such as training")
    if hub.checkpoints and hub.checkpoints == (hub.revision or "main"):
        raise UserError(
            f"hub.checkpoints is {hub.checkpoints!r}, where the model goes too; name another branch"
        )
    if hub.each_epoch and data.streaming:
        raise UserError("hub.each_epoch is true and a stream's epochs are not known; use hub.every_steps")


def _check_evaluation(train: TrainConfig, data: DataConfig) -> None:
    evaluates = train.evaluate_every_steps or train.evaluate_each_epoch
    for key, value in (
        ("keep", train.keep == "best"),
        ("early_stopping_patience", train.early_stopping_patience),
    ):
        if value and not evaluates:
            raise UserError(
                f"train.{key} is {getattr(train, key)!r} and needs evaluations during training; set "
                "train.evaluate_every_steps or train.evaluate_each_epoch"
            )
    if train.evaluate_each_epoch and data.streaming:
        raise UserError(
            "train.evaluate_each_epoch is true and a stream's epochs are not known; use "
            "train.evaluate_every_steps"
        )


def _check_source(data: DataConfig) -> None:
    if data.source in FILE_SOURCES and not data.train_files:
        raise UserError(f"data.source {data.source!r} needs data.train_files; it is empty")
    if data.validation_split and data.source in (*FILE_SOURCES, "installed-docs"):
        raise UserError(
            f"data.validation_split {data.validation_split!r} is for Hub datasets, and data.source is "
            f"{data.source!r}; use data.validation_files or data.validation_fraction"
        )


def _check(key: str, config: Config, is_valid: Callable[[Any], bool], allowed: str) -> None:
    section, name = key.split(".")
    value = getattr(getattr(config, section), name)
    if not is_valid(value):
        raise UserError(f"{key} is {value!r}; it must be {allowed}")


def _is_positive_or_unset(value: float | None) -> bool:
    return value is None or 0 < value < 2**63
