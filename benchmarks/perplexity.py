"""Row: held-out perplexity after the same steps from the same weights on the same blocks."""

from __future__ import annotations

from pathlib import Path

from benchmarks.measure import Row, Size, alternate_alone, show


def measure(folder: Path, size: Size) -> Row:
    """Trains both sides once, each in a process of its own; minutes, so that it is not repeated."""
    results = alternate_alone(
        {side: ("benchmarks.training:train_and_evaluate", side, folder, size) for side in ("ours", "recipe")},
        num_repeats=1,
    )
    ours, recipe = results["ours"][0], results["recipe"][0]
    return Row(
        unit="perplexity",
        ours=[ours.perplexity],
        peer=[recipe.perplexity],
        higher_is_better=False,
        notes=[
            f"{size.training_steps} steps from {show(ours.initial_perplexity)}, same weights and blocks",
            f"training took {show(ours.seconds)} s, the recipe's {show(recipe.seconds)} s",
        ],
    )
