"""The commands `tfmlm evaluate`, `export` and `push`, which take a trained model."""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path

from tfmlm.cli.shared import add_overrides, start_libraries


def add_evaluate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `evaluate` to the other commands."""
    evaluate = commands.add_parser("evaluate", help="perplexity of a trained model on its held-out text")
    evaluate.add_argument("model", type=Path, help="run or model folder")
    add_overrides(evaluate)
    evaluate.add_argument("--json", action="store_true", help="print one JSON line")
    evaluate.set_defaults(command=_evaluate)


def add_export(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `export` to the other commands."""
    export = commands.add_parser("export", help="write a SavedModel of a run or a model folder")
    export.add_argument("model", type=Path, help="run or model folder")
    add_overrides(export)
    export.set_defaults(command=_export)


def add_push(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `push` to the other commands."""
    push = commands.add_parser("push", help="upload the model of a run to the Hugging Face Hub")
    push.add_argument("model", type=Path, help="run or model folder")
    add_overrides(push)
    push.set_defaults(command=_push)


def _evaluate(options: argparse.Namespace) -> int:
    start_libraries()
    from tfmlm.run import evaluate_folder

    evaluation = evaluate_folder(options.model, options.overrides)
    measured = {"perplexity": evaluation.perplexity, "eval_loss": evaluation.loss}
    if options.json:
        print(json.dumps(measured))
    else:
        print(f"perplexity {measured['perplexity']:.6g}, loss {measured['eval_loss']:.6g}")
    return 0


def _export(options: argparse.Namespace) -> int:
    start_libraries()
    from tfmlm.run import export_run
    from tfmlm.run_folder import load_trained

    export = export_run(*load_trained(options.model, options.overrides))
    print("\n".join([str(export.path), *(f"note: {note}" for note in export.notes)]))
    return 0


def _push(options: argparse.Namespace) -> int:
    from tfmlm.hub.push import push_model
    from tfmlm.library_logging import quieten_hub, show_progress_lines
    from tfmlm.run_folder import load_trained

    quieten_hub()
    show_progress_lines()
    config, model_dir = load_trained(options.model, options.overrides)
    command = shlex.join(["tfmlm", "push", str(options.model), *options.overrides])
    print(push_model(model_dir, config.hub, command))
    return 0
