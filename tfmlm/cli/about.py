"""The commands `tfmlm config`, `doctor` and `completion`, which say what there is."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from tfmlm.cli.shared import add_overrides

SHELLS = ("bash", "zsh", "fish")


def add_config(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `config` to the other commands."""
    config = commands.add_parser("config", help="list every key, or show what a file comes to")
    config.add_argument("config", nargs="?", help="YAML file; without it, every key with its default")
    add_overrides(config)
    config.set_defaults(command=_config)


def add_doctor(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `doctor` to the other commands."""
    doctor = commands.add_parser("doctor", help="check the installation and say how to mend it")
    doctor.set_defaults(command=_doctor)


def add_completion(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    make_parser: Callable[[], argparse.ArgumentParser],
) -> None:
    """Adds `completion` to the other commands; `make_parser` makes the parser of them all."""
    completion = commands.add_parser(
        "completion",
        help="print the completion of a shell",
        epilog='For bash: eval "$(tfmlm completion bash)". For zsh, after compinit: '
        'eval "$(tfmlm completion zsh)". For fish: tfmlm completion fish | source.',
    )
    completion.add_argument("shell", choices=SHELLS)
    completion.set_defaults(command=_completion, make_parser=make_parser)


def _config(options: argparse.Namespace) -> int:
    from tfmlm.config.load import dump_config, load_config
    from tfmlm.report import describe_keys

    if options.config is None:
        print(describe_keys())
    else:
        print(dump_config(load_config(options.config, options.overrides)), end="")
    return 0


def _doctor(options: argparse.Namespace) -> int:
    del options
    from tfmlm.cli.examination import examine

    findings = examine()
    for finding in findings:
        print(finding)
    return 1 if any(finding.is_wrong for finding in findings) else 0


def _completion(options: argparse.Namespace) -> int:
    from tfmlm.cli.shell_completion import write_completion

    print(write_completion(options.make_parser(), options.shell))
    return 0
