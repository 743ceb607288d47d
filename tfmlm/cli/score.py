"""The command `tfmlm score`: texts in, how probable each is out."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from tfmlm.cli.shared import add_texts, deliver, start_libraries
from tfmlm.errors import escape_controls
from tfmlm.inference.texts import read_texts

if TYPE_CHECKING:  # importing it at run time would bring TensorFlow
    from tfmlm.inference.score import TextScore


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `score` to the other commands."""
    score = commands.add_parser(
        "score",
        help="pseudo-log-likelihood of texts, to rank sentences",
        epilog="Prints score, tokens and text. The score is the sum of the log probabilities, in nats, of "
        "the text's tokens, each masked in turn: the higher, the more probable.",
    )
    score.add_argument("model", help="run, model folder or Hub id")
    add_texts(score, "text")
    score.set_defaults(command=_score)


def _score(options: argparse.Namespace) -> int:
    texts = read_texts(options.texts, options.input)
    start_libraries()
    from tfmlm.inference.score import load_scorer

    as_json = options.json or options.output
    deliver(
        (
            json.dumps(score) if as_json else describe_score(score)
            for score in load_scorer(options.model).score_stream(texts)
        ),
        options.output,
    )
    return 0


def describe_score(score: TextScore) -> str:
    """Score, tokens and text, in columns."""
    return f"{score['score']:>10.3f}  {score['tokens']:>5}  {escape_controls(score['text'], keep='')}"
