"""What the rows share: their sizes, processes of their own, alternating repeats, and medians."""

from __future__ import annotations

import math
import resource
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pkgutil import resolve_name
from statistics import median
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        num_files: read the docstrings of this many source files only, uncached; all when empty.
        num_texts: at most this many texts, the first in order.
        block_size: tokens in a block.
        blocks_per_step: blocks in a batch.
        num_layers: layers kept of the encoder.
        num_batches: batches that the recipe's pipeline is timed over; ours is timed over eight times as many.
        timed_steps: training steps that are timed, after the one that traces the graph.
        training_steps: steps before the perplexities are compared: one pass over as many batches.
        validation_blocks: held-out blocks that the perplexities are measured on.
        num_repeats: times that both sides are run in turn.
        pipeline_repeats: the same for the input pipelines, whose seconds are few and noisy.
        scored_texts: texts whose pseudo-log-likelihood is computed.
        seed: of data order, masks and dropout.
        num_seeds: seeds that the perplexities are means over.
        timed_calls: calls that a fill-mask figure is the median of.
        serving_seconds: that the clients keep asking the server.
        long_block_size: tokens in a block where activations are to be most of the memory.
        memory_steps: steps whose memory is measured, after the first, which is slower.
        num_new_words: words that a vocabulary grows by.
        new_word_steps: training steps before their perplexities per character are compared.
        new_word_layers: layers of the model there.
        num_copies: times that the texts are written into the file that is streamed, so that it is longer
            than a shuffle window.
        alone: each measurement is a process of its own; without it all share one, which starts faster.
    """

    num_files: int | None = None
    num_texts: int = 8000
    block_size: int = 128
    blocks_per_step: int = 16
    num_layers: int = 6
    num_batches: int = 500
    timed_steps: int = 12
    training_steps: int = 60
    validation_blocks: int = 256
    num_repeats: int = 3
    seed: int = 0
    num_seeds: int = 3
    timed_calls: int = 5
    serving_seconds: int = 60
    pipeline_repeats: int = 7
    scored_texts: int = 8
    long_block_size: int = 512
    memory_steps: int = 3
    num_copies: int = 8
    num_new_words: int = 1000
    new_word_steps: int = 150
    new_word_layers: int = 2
    alone: bool = True

    @property
    def tokens_per_step(self) -> int:
        """Tokens in a batch."""
        return self.block_size * self.blocks_per_step


QUICK = Size(
    num_files=300,
    num_texts=400,
    block_size=32,
    blocks_per_step=4,
    num_layers=1,
    num_batches=20,
    timed_steps=2,
    training_steps=3,
    validation_blocks=8,
    num_repeats=1,
    num_seeds=1,
    timed_calls=2,
    serving_seconds=2,
    pipeline_repeats=1,
    scored_texts=2,
    long_block_size=64,
    memory_steps=1,
    num_copies=1,
    num_new_words=20,
    new_word_steps=3,
    new_word_layers=1,
    alone=False,
)
"""Seconds instead of minutes: shows that every row runs; its figures mean nothing."""


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        unit: of the figures.
        ours: the project's figure in each repeat.
        peer: the other side's figure in each repeat.
        higher_is_better: which way the ratio goes.
        notes: floors and whatever else was measured beside it, a short line each.
    """

    unit: str
    ours: list[float]
    peer: list[float]
    higher_is_better: bool
    notes: list[str]

    @property
    def ratio(self) -> float:
        """How many times better ours is, by the medians."""
        gain = median(self.ours) / median(self.peer)
        return gain if self.higher_is_better else 1 / gain

    def to_json(self) -> dict[str, Any]:
        """Medians, ratio, and every repeat."""
        return {
            "unit": self.unit,
            "ours": median(self.ours),
            "peer": median(self.peer),
            "ratio": self.ratio,
            "ours_repeats": self.ours,
            "peer_repeats": self.peer,
            "notes": self.notes,
        }


class TimedSteps(NamedTuple):
    """Training steps of one side.

    Attributes:
        seconds: median of a step.
        flops: floating-point operations of a step's matrix products.
        peak_gib: peak memory of the process.
        machine_rate: operations a second of this machine's matrix products, measured after the steps.
    """

    seconds: float
    flops: float
    peak_gib: float
    machine_rate: float


class Trained(NamedTuple):
    """A side after training.

    Attributes:
        initial_perplexity: held-out perplexity of the initial model.
        perplexity: held-out perplexity after training.
        seconds: of training, tracing of the graph included.
    """

    initial_perplexity: float
    perplexity: float
    seconds: float


def run_alone(function: str, *arguments: Any) -> Any:
    """Calls a function in a fresh process: no memory, graph or thread of another measurement is in it.

    Args:
        function: `module:name`. It is named and not imported, so that the process that starts others stays
            small: on Linux, `peak_gib` of a process is at least the peak of the one that started it.
        arguments: what the function gets; the last is the `Size`, which may ask for no process.
    """
    if not arguments[-1].alone:
        return _call(function, arguments)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        return executor.submit(_call, function, arguments).result()


def _call(function: str, arguments: tuple[Any, ...]) -> Any:
    return resolve_name(function)(*arguments)


def alternate(contenders: Mapping[str, Callable[[], T]], num_repeats: int) -> dict[str, list[T]]:
    """Runs the contenders in turn, A B A B, so that a slow minute of the machine hits them all."""
    results: dict[str, list[T]] = {name: [] for name in contenders}
    for _ in range(num_repeats):
        for name, run in contenders.items():
            results[name].append(run())
    return results


def alternate_alone(contenders: Mapping[str, tuple[Any, ...]], num_repeats: int) -> dict[str, list[Any]]:
    """`alternate`, each run in a process of its own; a contender is the arguments of `run_alone`."""
    return alternate(
        {name: partial(run_alone, *arguments) for name, arguments in contenders.items()}, num_repeats
    )


def peak_gib() -> float:
    """The most memory that this process has had resident, in GiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2 ** (30 if sys.platform == "darwin" else 20)  # bytes on macOS, KiB elsewhere


def show(figure: float) -> str:
    """A positive figure with four digits or all before the point."""
    return f"{figure:,.{max(0, 3 - math.floor(math.log10(figure)))}f}"
