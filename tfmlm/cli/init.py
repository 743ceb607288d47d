"""The command `tfmlm init`: a text and a model in, a configuration with comments out."""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfmlm.cli.shared import add_overrides, show, start_libraries
from tfmlm.errors import UserError

if TYPE_CHECKING:  # importing them at run time would bring TensorFlow
    from tfmlm.training.suggestion import Suggestion

_WIDTH = 98
"""Of the comments, in characters."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `init` to the other commands."""
    init = commands.add_parser("init", help="write the configuration that --text and --model come to")
    add_text_and_model(init)
    add_overrides(init)
    init.add_argument("--output", type=Path, metavar="FILE", help="YAML file (default RUN_NAME.yaml)")
    init.set_defaults(command=_init, config=None)


def add_text_and_model(parser: argparse.ArgumentParser) -> None:
    """Adds the two things from which a configuration can be chosen."""
    parser.add_argument(
        "--text",
        action="append",
        metavar="PATH",
        help="file, folder or quoted glob of text, JSON, CSV or Parquet; may be given again",
    )
    parser.add_argument("--model", metavar="MODEL", help="folder, Hub id or package:NAME/PATH to go on from")


def _init(options: argparse.Namespace) -> int:
    if options.output and options.output.exists():
        raise _refuse_overwriting(options.output)
    suggestion = suggest(options)
    path = options.output or Path(f"{suggestion.config.run.name}.yaml")
    text = write_commented(suggestion)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise _refuse_overwriting(path) from None
    except OSError as error:
        raise UserError(f"{str(path)!r} cannot be written: {error.strerror}; give an --output") from error
    show(f"{describe_suggestion(suggestion)}\nwritten      {path}\n\nnext         tfmlm train {path}")
    return 0


def _refuse_overwriting(path: Path) -> UserError:
    return UserError(f"{str(path)!r} is there already and stays; choose another --output, or remove it")


def suggest(options: argparse.Namespace) -> Suggestion:
    """What the arguments of `add_text_and_model` and overrides come to.

    Raises:
        UserError: one is missing, or as of `suggest_config`.
    """
    for name, value in (("--text", options.text), ("--model", options.model)):
        if not value:
            raise UserError(
                f"{name} is not given; a run without a configuration needs --text PATH and --model MODEL, "
                "such as --text notes/ --model distilbert/distilroberta-base"
            )
    # The place of the configuration takes the first override.
    overrides = [*([options.config] if options.config else []), *options.overrides]
    further = next((each for each in overrides if "=" not in each), None)
    if further is not None:
        raise UserError(
            f"{further!r} is no section.key=value; beside --text there is no configuration, and each further "
            "file or folder has a --text of its own, or a quoted glob stands for all"
        )
    from tfmlm.config.load import make_config

    make_config({"model": {"name_or_path": options.model}}, overrides)
    start_libraries()
    from tfmlm.training.suggestion import suggest_config

    return suggest_config(options.text, options.model, overrides)


def describe_suggestion(suggestion: Suggestion) -> str:
    """The lines that say what was chosen."""
    amount = suggestion.amount
    more = "" if amount.is_whole else " and more"
    lines = [f"text         {amount.num_texts:,} texts, about {amount.num_tokens:,} tokens{more}"]
    if suggestion.has_begun:
        lines.append(
            f"begun        {suggestion.config.run_address} holds this run, which keeps its settings; "
            "run.name=OTHER begins anew"
        )
        lines += [
            f"kept         {kept.key}={_write_value(kept.value)}, which would be {_write_value(kept.now)} now"
            for kept in suggestion.kept
        ]
        return "\n".join(lines)
    settings = [f"{choice.key}={_write_value(choice.value)}" for choice in suggestion.choices]
    width = max(map(len, settings))
    lines += [
        f"{'' if number else 'chosen':<12} {setting:<{width}}  {choice.reason}"
        for number, (setting, choice) in enumerate(zip(settings, suggestion.choices, strict=True))
    ]
    return "\n".join(lines)


def write_commented(suggestion: Suggestion) -> str:
    """The configuration as YAML: what was chosen and what was said, each with its meaning and the reason."""
    from tfmlm.config.load import dump_settings, hide_secrets_of
    from tfmlm.config.schema import list_keys

    config = hide_secrets_of(suggestion.config)
    reasons = {choice.key: choice.reason for choice in suggestion.choices}
    lines = ["# Written by `tfmlm init`. `tfmlm config` lists every other key.", ""]
    section = ""
    for key in list_keys():
        value = getattr(getattr(config, key.section), key.name)
        if value == key.default and str(key) not in reasons:
            continue
        if key.section != section:
            lines.append(f"{key.section}:")
            section = key.section
        lines += [f"  {line}" for line in _comment(key.name, key.meaning, reasons.get(str(key)))]
        lines += [f"  {line}" for line in dump_settings({key.name: value}).splitlines()]
    return "\n".join([*lines, ""])


def _comment(name: str, meaning: str, reason: str | None) -> Iterator[str]:
    for text in (f"{name}: {meaning}", f"Here: {reason}." if reason else None):
        if text:
            yield from textwrap.wrap(text, _WIDTH, initial_indent="# ", subsequent_indent="# ")


def _write_value(value: Any) -> str:
    """A value as an override has it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
