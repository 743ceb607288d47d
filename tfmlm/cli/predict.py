"""The command `tfmlm predict`: texts with masks in, words for them out."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from tfmlm.cli.shared import add_texts, deliver, describe_masks, note, start_libraries
from tfmlm.errors import UserError
from tfmlm.inference.texts import read_texts

if TYPE_CHECKING:  # importing it at run time would bring TensorFlow
    from tfmlm.inference.fill import FilledText

_MOST_NOTES = 10
"""Texts that are named; a file may have millions."""


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
    predict.add_argument(
        "--without-mask",
        choices=("fail", "skip"),
        default="fail",
        help="what becomes of a text without a mask: end with an error (the default), or skip it",
    )
    predict.add_argument(
        "--long-texts",
        choices=("fail", "skip", "cut"),
        default="fail",
        help="what becomes of a text that is longer than the model takes: end with an error (the default), "
        "skip it, or cut it so that its masks stay",
    )
    predict.set_defaults(command=_predict)


def _predict(options: argparse.Namespace) -> int:
    if options.top_k is not None and options.top_k < 1:
        raise UserError(f"--top-k is {options.top_k}; it must be 1 or more")
    texts = read_texts(options.texts, options.input)
    start_libraries()
    from tfmlm.inference.fill import Policy, load_predictor, load_target_predictor

    if options.targets is None:
        predictor = load_predictor(options.model, 5 if options.top_k is None else options.top_k)
    else:
        predictor, targets = load_target_predictor(options.model, options.targets.split(","), options.top_k)
        for line in targets.notes:
            note(line)
    predictor = replace(predictor, policy=Policy(options.without_mask, options.long_texts))
    filled = predictor.fill_stream(texts)
    is_json = options.json or options.output
    deliver(_write_json(filled) if is_json else map(_describe, filled), options.output)
    return 0


def _describe(filled: FilledText) -> str:
    notes = [f"  note: {filled.note}"] if filled.note else []
    return "\n".join([*describe_masks(filled.text.text, filled.masks), *notes])


def _write_json(texts: Iterable[FilledText]) -> Iterator[str]:
    """A line for each text, so that line N answers text N; a skipped one is `[]`, and the notes go beside."""
    num_notes = 0
    for filled in texts:
        if filled.note:
            num_notes += 1
            if num_notes <= _MOST_NOTES:
                note(f"{filled.text.name}: {filled.note}")
        yield json.dumps(filled.masks)
    if num_notes > _MOST_NOTES:
        note(f"{num_notes:,} texts were skipped or cut, of which the first {_MOST_NOTES} are named above")
