"""The command `tfmlm push`: a model folder goes to the Hugging Face Hub."""

from __future__ import annotations

import argparse
import shlex

from tfmlm.cli.shared import add_trained_model, show


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `push` to the other commands."""
    push = commands.add_parser("push", help="upload the model of a run to the Hugging Face Hub")
    add_trained_model(push)
    push.set_defaults(command=_push)


def _push(options: argparse.Namespace) -> int:
    from tfmlm.hub.push import push_model
    from tfmlm.inference.loading import load_trained
    from tfmlm.library_logging import quieten_hub, show_progress_lines

    quieten_hub()
    show_progress_lines()
    config, model_dir = load_trained(options.model, options.overrides)
    command = shlex.join(["tfmlm", "push", str(options.model), *options.overrides])
    show(push_model(model_dir, config.hub, command))
    return 0
