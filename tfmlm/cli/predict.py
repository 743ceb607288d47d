"""The command `tfmlm predict`: texts with masks in, words for them out."""

from __future__ import annotations

import argparse
import json

from tfmlm.cli.shared import add_texts, deliver, describe_masks, note, start_libraries
from tfmlm.errors import UserError
from tfmlm.inference.texts import read_texts


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `predict` to the other commands."""
    predict = commands.add_parser("predict", help="fill the masks in texts")
    predict.add_argument("model", help="run, model folder, Hub id or SavedModel")
    add_texts(predict, "text with the model's mask token")
    predict.add_argument(
        "--top-k", type=int, metavar="K", help="candidates for each mask (default 5, or all the targets)"
    )
    predict.add_argument(
        "--targets",
        metavar="WORD,WORD",
        help="score these words only; one that is not in the vocabulary stands for its first token",
    )
    predict.set_defaults(command=_predict)


def _predict(options: argparse.Namespace) -> int:
    if options.top_k is not None and options.top_k < 1:
        raise UserError(f"--top-k is {options.top_k}; it must be 1 or more")
    texts = read_texts(options.texts, options.input)
    start_libraries()
    from tfmlm.inference.fill import load_predictor, load_target_predictor

    if options.targets is None:
        predictor = load_predictor(options.model, 5 if options.top_k is None else options.top_k)
    else:
        predictor, targets = load_target_predictor(options.model, options.targets.split(","), options.top_k)
        for line in targets.notes:
            note(line)
    as_json = options.json or options.output
    deliver(
        (
            json.dumps(masks) if as_json else "\n".join(describe_masks(text.text, masks))
            for text, masks in predictor.fill_stream(texts)
        ),
        options.output,
    )
    return 0
