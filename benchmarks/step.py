"""Row: seconds of a training step in float32, and beside it in bfloat16 where the processor has it."""

from __future__ import annotations

from pathlib import Path
from statistics import median

from benchmarks.measure import Row, Size, TimedSteps, alternate_alone
from tfmlm.training.strategy import has_fast_bfloat16


def measure(folder: Path, size: Size) -> Row:
    """Both sides' `fit`, each repeat in a process of its own."""
    sides = ["ours", "recipe", *(["bfloat16"] if has_fast_bfloat16() else [])]
    results = alternate_alone(
        {side: ("benchmarks.training:time_steps", side, folder, size) for side in sides},
        size.num_repeats,
    )
    ours, recipe = results["ours"], results["recipe"]
    seconds = median(step.seconds for step in ours)
    rate = ours[0].flops / seconds
    most = median(step.machine_rate for step in [*ours, *recipe])
    return Row(
        unit="seconds",
        ours=[step.seconds for step in ours],
        peer=[step.seconds for step in recipe],
        higher_is_better=False,
        notes=[
            f"{rate / 1e9:,.0f} of {most / 1e9:,.0f} GFLOP/s that matmul alone reaches: {rate / most:.0%}",
            f"work {ours[0].flops / 1e9:,.0f} GFLOP, the recipe's {recipe[0].flops / 1e9:,.0f}",
            f"peak memory {_peak(ours):.2f} GiB, the recipe's {_peak(recipe):.2f}",
            _describe_bfloat16(results.get("bfloat16"), recipe),
        ],
    )


def _describe_bfloat16(ours: list[TimedSteps] | None, recipe: list[TimedSteps]) -> str:
    if ours is None:
        return "no bfloat16: this processor has none"
    seconds, peer = (median(step.seconds for step in steps) for steps in (ours, recipe))
    return (
        f"ours in bfloat16 {seconds:.3f} s, {peer / seconds:.2f}x the recipe's float32; {_peak(ours):.2f} GiB"
    )


def _peak(steps: list[TimedSteps]) -> float:
    return median(step.peak_gib for step in steps)
