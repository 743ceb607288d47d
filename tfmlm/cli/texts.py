"""The commands `tfmlm predict` and `tfmlm score`: texts in, an answer for each out."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path

from tfmlm.cli.shared import start_libraries
from tfmlm.errors import UserError
from tfmlm.inference.texts import read_texts, write_lines


def add_predict(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `predict` to the other commands."""
    predict = commands.add_parser("predict", help="fill the masks in texts")
    predict.add_argument("model", help="run, model folder, Hub id or SavedModel")
    _add_texts(predict, "text with the model's mask token")
    predict.add_argument(
        "--top-k", type=int, metavar="K", help="candidates for each mask (default 5, or all the targets)"
    )
    predict.add_argument(
        "--targets",
        metavar="WORD,WORD",
        help="score these words only; one that is not in the vocabulary stands for its first token",
    )
    predict.set_defaults(command=_predict)


def add_score(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `score` to the other commands."""
    score = commands.add_parser(
        "score",
        help="pseudo-log-likelihood of texts, to rank sentences",
        epilog="Prints score, tokens and text. The score is the sum of the log probabilities, in nats, of "
        "the text's tokens, each masked in turn: the higher, the more probable.",
    )
    score.add_argument("model", help="run, model folder or Hub id")
    _add_texts(score, "text")
    score.set_defaults(command=_score)


def _add_texts(parser: argparse.ArgumentParser, meaning: str) -> None:
    parser.add_argument("texts", nargs="*", metavar="TEXT", help=f"{meaning}; - reads lines")
    parser.add_argument(
        "--input", type=Path, metavar="FILE", help="a text a line, or .jsonl with a field `text`"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the JSON lines into a file")
    parser.add_argument("--json", action="store_true", help="print one JSON line a text")


def _predict(options: argparse.Namespace) -> int:
    if options.top_k is not None and options.top_k < 1:
        raise UserError(f"--top-k is {options.top_k}; it must be 1 or more")
    texts = read_texts(options.texts, options.input)
    start_libraries()
    from tfmlm.inference.fill import load_predictor, load_target_predictor
    from tfmlm.report import describe_masks

    if options.targets is None:
        predictor = load_predictor(options.model, 5 if options.top_k is None else options.top_k)
    else:
        predictor, targets = load_target_predictor(options.model, options.targets.split(","), options.top_k)
        for note in targets.notes:
            print(f"tfmlm: {note}", file=sys.stderr)
    as_json = options.json or options.output
    _deliver(
        (
            json.dumps(masks) if as_json else "\n".join(describe_masks(text.text, masks))
            for text, masks in predictor.fill_stream(texts)
        ),
        options.output,
    )
    return 0


def _score(options: argparse.Namespace) -> int:
    texts = read_texts(options.texts, options.input)
    start_libraries()
    from tfmlm.inference.score import load_scorer
    from tfmlm.report import describe_score

    as_json = options.json or options.output
    _deliver(
        (
            json.dumps(score) if as_json else describe_score(score)
            for score in load_scorer(options.model).score_stream(texts)
        ),
        options.output,
    )
    return 0


def _deliver(lines: Iterable[str], output: Path | None) -> None:
    """Prints each line when it is there, or writes them all into a file."""
    if output:
        print(f"{write_lines(output, lines):,} texts -> {output}")
        return
    for line in lines:
        print(line, flush=True)
