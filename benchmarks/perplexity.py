"""Row: held-out perplexity after the same steps, and after the same time, from the same weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from benchmarks.measure import Row, Size, alternate_alone, run_alone, show


def measure(folder: Path, size: Size) -> Row:
    """Trains both sides once, each in a process of its own; minutes, so that it is not repeated."""
    results = alternate_alone(
        {side: ("benchmarks.training:train_and_evaluate", side, folder, size) for side in ("ours", "recipe")},
        num_repeats=1,
    )
    ours, recipe = results["ours"][0], results["recipe"][0]
    more_steps = int(size.training_steps * recipe.seconds / ours.seconds)
    longer = run_alone(
        "benchmarks.training:train_and_evaluate", "ours", folder, replace(size, training_steps=more_steps)
    )
    return Row(
        unit="perplexity",
        ours=[ours.perplexity],
        peer=[recipe.perplexity],
        higher_is_better=False,
        notes=[
            f"{size.training_steps} steps from {show(ours.initial_perplexity)}, same weights and blocks",
            f"training took {show(ours.seconds)} s, the recipe's {show(recipe.seconds)} s",
            f"ours after {more_steps} steps and {show(longer.seconds)} s: {show(longer.perplexity)}",
        ],
    )
