"""The command `tfmlm config`: every key, or what a file comes to."""

from __future__ import annotations

import argparse
import textwrap

from tfmlm.cli.shared import add_overrides, show


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `config` to the other commands."""
    config = commands.add_parser("config", help="list every key, or show what a file comes to")
    config.add_argument("config", nargs="?", help="YAML file; without it, every key with its default")
    add_overrides(config)
    config.set_defaults(command=_config)


def _config(options: argparse.Namespace) -> int:
    from tfmlm.config.load import dump_config, load_config

    if options.config is None:
        print(describe_keys())
    else:
        show(dump_config(load_config(options.config, options.overrides)).removesuffix("\n"))
    return 0


def describe_keys() -> str:
    """Every key of the configuration with its default and meaning."""
    from tfmlm.config.schema import list_keys

    return "\n".join(
        f"{key} = {key.default!r}\n{textwrap.indent(textwrap.fill(key.meaning, 88), '    ')}"
        for key in list_keys()
    )
