"""Row: held-out perplexity after the same steps, and after the same time, from the same weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import mean

from benchmarks.measure import Row, Size, Trained, alternate_alone, run_alone, show

_TRAIN = "benchmarks.training:train_and_evaluate"


def measure(folder: Path, size: Size) -> Row:
    """Trains both sides with each seed, each in a process of its own; minutes, so that it is not repeated.

    A seed draws other masks, dropout and order on each side, which move the perplexity by some percent.
    """
    pairs = [_train_both(folder, replace(size, seed=seed)) for seed in range(size.num_seeds)]
    ours, recipe = ([pair[side] for pair in pairs] for side in (0, 1))
    more_steps = int(size.training_steps * recipe[0].seconds / ours[0].seconds)
    longer = run_alone(_TRAIN, "ours", folder, replace(size, training_steps=more_steps))
    return Row(
        unit="perplexity",
        ours=[mean(trained.perplexity for trained in ours)],
        peer=[mean(trained.perplexity for trained in recipe)],
        higher_is_better=False,
        notes=[
            f"mean of {size.num_seeds} seeds, {size.training_steps} steps each",
            f"by seed {_list(ours)}, the recipe's {_list(recipe)}",
            f"training took {show(ours[0].seconds)} s, the recipe's {show(recipe[0].seconds)} s",
            f"ours after {more_steps} steps and {show(longer.seconds)} s: {show(longer.perplexity)}",
        ],
    )


def _train_both(folder: Path, size: Size) -> tuple[Trained, Trained]:
    results = alternate_alone(
        {side: (_TRAIN, side, folder, size) for side in ("ours", "recipe")}, num_repeats=1
    )
    return results["ours"][0], results["recipe"][0]


def _list(trained: list[Trained]) -> str:
    return ", ".join(show(each.perplexity) for each in trained)
