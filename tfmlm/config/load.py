"""Reads a configuration from YAML and overrides, checks it, and writes it back."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path, PurePath
from typing import Any, cast

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import (
    ConfigKeyError,
    GrammarParseError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)
from yaml import YAMLError

from tfmlm.config.cross_checks import check_config
from tfmlm.config.schema import Config, list_keys
from tfmlm.errors import UserError, escape_controls, first_line
from tfmlm.known_tokens import holds_token, list_known_tokens
from tfmlm.urls import hide_secrets

_VALUE_ERRORS = (AttributeError, LookupError, TypeError, ValueError)
"""Raised by PyYAML and OmegaConf for a value that is not what its tag or its look says, such as `0x_`."""

_INTERPOLATION = re.compile(r"(?<!\\)(\\\\)*\$\{")
"""`${` after an even number of backslashes; an odd one escapes it."""

_SECTIONS: dict[str, type] = {section.name: cast(type, section.default_factory) for section in fields(Config)}


def load_config(path: str | Path, overrides: list[str] | None = None) -> Config:
    """Reads a YAML file, applies overrides, and checks the whole.

    Args:
        path: the YAML file.
        overrides: `section.key=value`, applied last and always winning; values are YAML.

    Raises:
        UserError: the file or a key or a value is wrong; the message names it.
    """
    return _merge(partial(_read_yaml, Path(path)), overrides or [], repr(str(path)))


def make_config(settings: Config | Mapping[str, Any], overrides: Sequence[str] = ()) -> Config:
    """Makes a configuration of sections in memory, applies overrides, and checks the whole.

    Args:
        settings: a mapping of sections, each a mapping of keys; texts are taken as they are. Or a `Config`.
        overrides: as of `load_config`.

    Raises:
        UserError: a key or a value is wrong; the message names it.
    """
    sections = asdict(settings) if isinstance(settings, Config) else settings
    return _merge(partial(_read_mapping, sections), overrides, "the settings")


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """The keys `section.key` that overrides set, with their values as YAML has them.

    Raises:
        UserError: one is not of that form.
    """
    sections = cast(dict[str, Any], OmegaConf.to_container(_parse_overrides(list(overrides)), resolve=False))
    return {
        f"{section}.{key}": value
        for section, values in sections.items()
        if isinstance(values, dict)
        for key, value in values.items()
    }


def _merge(read: Callable[[], DictConfig], overrides: Sequence[str], whose: str) -> Config:
    tokens = list_known_tokens()
    for override in overrides:
        _refuse_tokens(override.partition("=")[0], override, tokens)
    parts = (read(), _parse_overrides(list(overrides)))
    for part in parts:
        _refuse_secrets(part)
    try:
        settings = OmegaConf.merge(*parts)
    except (OmegaConfBaseException, TypeError) as error:
        raise UserError(f"overrides do not fit {whose}: {first_line(error)}") from error
    config = _to_config(cast(DictConfig, settings))
    check_config(config)
    return config


def dump_config(config: Config) -> str:
    """The configuration as YAML that `load_config` reads back to an equal one, but for secrets in URLs."""
    return dump_settings(asdict(hide_secrets_of(config)))


def dump_settings(settings: Mapping[str, Any]) -> str:
    """Keys and values as YAML, in which texts are what they are."""
    text = OmegaConf.to_yaml(escaped := _escape(settings))
    if escape_controls(text) == text:
        return text
    # YAML's own escapes, of all that is not ASCII.
    return yaml.safe_dump(escaped, default_flow_style=False, sort_keys=False)


def hide_secrets_of(config: Config) -> Config:
    """The configuration as it may be shown and written: a file's URL may hold a signature or a token."""
    data = replace(
        config.data,
        train_files=list(map(hide_secrets, config.data.train_files)),
        validation_files=list(map(hide_secrets, config.data.validation_files)),
    )
    return replace(config, data=data)


def _escape(value: Any) -> Any:
    """Keeps `${` in texts what it is: unescaped it would be an interpolation, which is refused."""
    if isinstance(value, Mapping):
        return {key: _escape(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_escape(item) for item in value]
    if isinstance(value, PurePath):
        return _escape(str(value))
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", value) if isinstance(value, str) else value


def _refuse_secrets(settings: DictConfig) -> None:
    """Refuses tokens, and `${...}` before anything resolves it: `${oc.env:HF_TOKEN}` would end in files."""
    tokens = list_known_tokens()
    for key, value in _list_values(OmegaConf.to_container(settings, resolve=False)):
        _refuse_tokens(key, value, tokens)
        if isinstance(value, str) and _INTERPOLATION.search(value):
            raise UserError(
                f"config key {key}: {value!r} is an interpolation, which is never resolved; "
                "write the value itself, or \\${ for these characters"
            )


def _refuse_tokens(key: str, value: object, tokens: list[str]) -> None:
    """Refuses the known tokens, which would end up in `config.yaml`, on the card and on the Hub."""
    if holds_token(key, tokens):
        raise UserError("a config key is a token of this machine, which belongs into no configuration")
    if holds_token(value, tokens):
        raise UserError(
            f"config key {key} holds a token of this machine, which would be written into files; leave it "
            "out: tokens are taken from the environment or the login"
        )


def _list_values(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every value in a tree of mappings and lists, with its key, such as `data.train_files[0]`."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _list_values(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _list_values(item, f"{key}[{number}]")
    else:
        yield key, value


def differing_keys(first: Config, second: Config) -> list[str]:
    """Keys (`section.key`) in which two configurations differ and that change what a run leaves behind.

    Where the run folder lies and what is pushed may always change.
    """
    return compare_settings(list_settings(first), list_settings(second))


CUTS_OF_A_STEP = {
    "distribute.strategy",
    "distribute.tpu",
    "train.per_replica_batch_size",
    "train.gradient_accumulation_steps",
}
"""With these another, a run may go on: that a step has as many blocks, the checkpoint makes sure of."""

_OBSERVERS = {"run.output_dir", "distribute.wait_seconds", "train.callbacks"}
"""Keys that say nothing about what is trained."""

LENGTHS = {"train.max_steps", "train.epochs", "train.max_seconds"}
"""With more of these a run may go on, a finished one too."""


def makes_longer(config: Config, earlier: Config) -> bool:
    """Whether a configuration asks for more of the `LENGTHS` than an earlier one, and for less of none."""
    settings, before = list_settings(config), list_settings(earlier)
    changed = [key for key in LENGTHS if settings[key] != before[key]]
    return bool(changed) and all(
        before[key] is not None and (settings[key] is None or settings[key] > before[key]) for key in changed
    )


def compare_settings(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """Keys of which two `list_settings` hold another value, or one holds none."""
    return [key for key in {**first, **second} if first.get(key, ...) != second.get(key, ...)]


def list_settings(config: Config) -> dict[str, Any]:
    """The keys `section.key` that change what a run leaves behind, with their values, secrets hidden."""
    return {
        f"{section}.{key}": value
        for section, values in asdict(hide_secrets_of(config)).items()
        for key, value in values.items()
        if section != "hub" and f"{section}.{key}" not in _OBSERVERS
    }


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
    except GrammarParseError as error:  # half an interpolation, such as `${`
        raise UserError(
            f"config key {error.full_key}: {first_line(error)}; interpolations are never resolved: "
            "write the value itself, or \\${ for these characters"
        ) from error
    except RecursionError:
        raise UserError(f"config file {str(path)!r}: not valid YAML: it is nested too deeply") from None
    except (OmegaConfBaseException, *_VALUE_ERRORS) as error:
        raise UserError(
            f"config file {str(path)!r} has a value that cannot be read ({first_line(error)}); quote it"
        ) from error
    if not isinstance(settings, DictConfig):
        raise UserError(
            f"config file {str(path)!r} is a list; it must hold sections such as `run:` and `data:`"
        )
    return settings


def _read_mapping(settings: object) -> DictConfig:
    if not isinstance(settings, Mapping):
        raise UserError(f"settings are {settings!r}; they must be a mapping of sections such as run and data")
    try:
        return cast(DictConfig, OmegaConf.create(_escape(settings)))
    except (OmegaConfBaseException, *_VALUE_ERRORS) as error:
        raise UserError(f"settings hold a value that no configuration takes: {first_line(error)}") from error


def _parse_overrides(overrides: list[str]) -> DictConfig:
    for override in overrides:
        if "=" not in override:
            raise UserError(f"override {override!r} is not of the form section.key=value")
    try:
        return OmegaConf.from_dotlist(overrides)
    except RecursionError:
        raise UserError("override cannot be read: it is nested too deeply") from None
    except (OmegaConfBaseException, YAMLError, *_VALUE_ERRORS) as error:
        raise UserError(f"override cannot be read: {first_line(error)} in {' '.join(overrides)}") from error


def _to_config(settings: DictConfig) -> Config:
    try:
        _check_containers(settings)
        _read_added_tokens(settings)
        # YAML 1.1 reads a plain `off` as false.
        if OmegaConf.select(settings, "export.text_signature") is False:
            OmegaConf.update(settings, "export.text_signature", "off")
        return cast(Config, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), settings)))
    except ConfigKeyError as error:
        raise UserError(
            f"config key {error.full_key}: {first_line(error)} `tfmlm config` lists all"
        ) from error
    except MissingMandatoryValue as error:
        named = re.search("full_key: (.*)", str(error))
        key = error.full_key or (named[1] if named else "")
        raise UserError(f"config key {key}: {first_line(error)}; write the value itself") from error
    except OmegaConfBaseException as error:
        key = str(error.full_key)
        raise UserError(
            f"{key} is {OmegaConf.select(settings, key)!r}; it must be {_describe(key)}"
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
            value = section.get(item.name)
            if isinstance(value, DictConfig if str(item.type).startswith("list") else ListConfig):
                raise UserError(f"{name}.{item.name} is {value!r}; it must be of type {item.type}")
            if str(item.type).startswith("list[dict"):
                for number, each in enumerate(value or []):
                    if not isinstance(each, DictConfig):
                        raise UserError(f"{name}.{item.name}[{number}] is {each!r}; it must be a mapping")
            if any("\0" in str(text) for text in (value if isinstance(value, ListConfig) else [value])):
                raise UserError(f"{name}.{item.name} is {value!r}; it must be without the character NUL")


_WORDS = "tokenizer.added_tokens"


def _read_added_tokens(settings: DictConfig) -> None:
    """Puts the words of a file in the place of its path, so that a run keeps them, whatever becomes of it."""
    given = OmegaConf.select(settings, _WORDS)
    if isinstance(given, str):
        given = _read_lines(given)
        tokens = list_known_tokens()
        for word in given:
            _refuse_tokens(_WORDS, word, tokens)
        OmegaConf.update(settings, _WORDS, _escape(given))
    for word in given or []:
        if not isinstance(word, str):
            raise UserError(f"{_WORDS} holds {word!r}, which YAML takes for no word; put it in quotes")


def _read_lines(path: str) -> list[str]:
    """The lines of a file that are not blank, without white space at their ends."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(
            f"{_WORDS} {path!r} cannot be read: {first_line(error)}; give a list, or a file in UTF-8 with a "
            "word a line"
        ) from error
    return [line.strip() for line in lines if line.strip()]


def _example_key(section: str) -> str:
    return f"{section}.{fields(_SECTIONS[section])[0].name}"


def _describe(name: str) -> str:
    """The values that a key may hold, or an item of it such as `data.train_files[0]`."""
    key = next((key for key in list_keys() if str(key) == name.partition("[")[0]), None)
    if key is None:
        return "of type mapping"
    if key.choices:
        return f"one of {', '.join(key.choices)}"
    declared = {item.name: item.type for item in fields(_SECTIONS[key.section])}
    return f"of type {declared[key.name]}"
