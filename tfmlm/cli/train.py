"""The command `tfmlm train`: a configuration in, a run out."""

from __future__ import annotations

import argparse
import posixpath
from typing import TYPE_CHECKING

from tfmlm.cli.init import add_text_and_model, describe_suggestion, suggest
from tfmlm.cli.shared import add_overrides, describe_masks, describe_new_words, show, start_libraries
from tfmlm.errors import UserError
from tfmlm.results import Result

if TYPE_CHECKING:  # importing it at run time would bring TensorFlow
    from tfmlm.config import Config
    from tfmlm.run import FinishedRun


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `train` to the other commands."""
    train = commands.add_parser(
        "train", help="train, evaluate and export as a configuration says, or --text and --model"
    )
    train.add_argument("config", nargs="?", help="YAML file, such as configs/quickstart.yaml")
    add_overrides(train)
    add_text_and_model(train)
    train.set_defaults(command=_train, goes_on=True)


def _train(options: argparse.Namespace) -> int:
    config = _configure(options)
    from tfmlm.run import run

    finished = run(config)
    if finished:
        show(describe_run(finished))
    if finished and finished.unpushed:
        raise UserError(finished.unpushed)
    return 0


def _configure(options: argparse.Namespace) -> Config:
    """The configuration of a file, or one that is chosen and said."""
    from tfmlm.config.load import load_config

    if options.text is None and options.model is None:
        if options.config is None:
            raise UserError("there is no configuration; give a YAML file, or --text and --model")
        config = load_config(options.config, options.overrides)
        start_libraries()
        return config
    suggestion = suggest(options)
    show(describe_suggestion(suggestion))
    return suggestion.config


def _describe_words(result: Result) -> list[str]:
    before, after = result.tokens_a_text_before, result.tokens_a_text_after
    if before is None or after is None:
        return []
    per_character = result.perplexity_per_character
    compared = f"; perplexity per character {per_character:.4f}" if per_character else ""
    return [f"words        {describe_new_words(before, after, result.num_new_words)}{compared}"]


def describe_run(finished: FinishedRun) -> str:
    """The summary that ends a run."""
    result = finished.result
    unknown, unmasked = f"{result.unknown_share:.1%}", f"{result.unmasked_share:.1%}"
    lines = [
        f"perplexity   {result.initial_perplexity:,.2f} before, {result.perplexity:,.2f} after training",
        f"accuracy     {result.eval_top_1:.1%} at the first guess, {result.eval_top_5:.1%} within five",
        f"text         {unknown} unknown to the tokenizer, {unmasked} of the blocks without a mask",
        *_describe_words(result),
        f"training     {result.steps:,} steps, {result.tokens:,} tokens, {result.train_seconds:,.0f} s",
        f"speed        {result.step_seconds_median:.3f} s a step, {result.tokens_per_second:,.0f} tokens/s",
        f"model        {result.model_dir}",
    ]
    if result.saved_model_dir:
        lines.append(f"SavedModel   {result.saved_model_dir}")
    lines += [f"note         {note}" for note in result.notes]
    for text, masks in finished.samples.items():
        lines += ["", *describe_masks(text, masks)]
    example = next(iter(finished.samples), "TEXT WITH A MASK")
    lines += ["", f"next         tfmlm predict {result.model_dir} {example!r}"]
    if result.saved_model_dir:
        lines.append(f"             tfmlm serve {posixpath.dirname(result.saved_model_dir)}")
    return "\n".join(lines)
