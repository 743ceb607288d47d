"""The command `tfmlm evaluate`: the perplexity of a trained model."""

from __future__ import annotations

import argparse
import json

from tfmlm.cli.shared import add_trained_model, start_libraries


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `evaluate` to the other commands."""
    evaluate = commands.add_parser("evaluate", help="perplexity of a trained model on its held-out text")
    add_trained_model(evaluate)
    evaluate.add_argument("--json", action="store_true", help="print one JSON line")
    evaluate.set_defaults(command=_evaluate)


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
