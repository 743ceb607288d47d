"""Row: memory of a training step with `train.rematerialize`, and beside it its time, without XLA and with it.

The peer is the same step without; a deep and narrow model on long blocks, where activations are most of it.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
from transformers import BertConfig

from benchmarks.measure import Row, Size, alternate_alone, peak_gib
from benchmarks.training import start_random_training
from tfmlm.config import Config, DataConfig, TrainConfig
from tfmlm.library_logging import quieten_libraries

_WIDTH = 256


class Measured(NamedTuple):
    """Training steps with or without rematerialization.

    Attributes:
        gib: peak memory of the process over what it had resident before its first step, tracing and
            compilation included.
        seconds: median of a step after the first.
    """

    gib: float
    seconds: float


def measure(folder: Path, size: Size) -> Row:  # noqa: ARG001
    """Both in turn, each repeat in a process of its own."""
    results = {
        xla: alternate_alone(
            {str(again): ("benchmarks.memory:measure_steps", again, xla, size) for again in (True, False)},
            1 if xla else size.num_repeats,  # it compiles for minutes
        )
        for xla in (False, True)
    }
    again, kept = results[False]["True"], results[False]["False"]
    return Row(
        unit="GiB",
        ours=[step.gib for step in again],
        peer=[step.gib for step in kept],
        higher_is_better=False,
        notes=[
            _describe("the peer is the same step without", again, kept),
            _describe("with XLA", results[True]["True"], results[True]["False"]),
        ],
    )


def _describe(what: str, again: list[Measured], kept: list[Measured]) -> str:
    gib, peer_gib = (median(step.gib for step in steps) for steps in (again, kept))
    seconds, peer_seconds = (median(step.seconds for step in steps) for steps in (again, kept))
    return (
        f"{what}: {gib:.2f} against {peer_gib:.2f} GiB ({gib / peer_gib:.0%}), "
        f"{seconds:.2f} against {peer_seconds:.2f} s ({seconds / peer_seconds:.2f}x)"
    )


def measure_steps(rematerialize: bool, xla: bool, size: Size) -> Measured:
    """Trains a BERT with random weights on random tokens, with dropout."""
    quieten_libraries()
    length, rows = size.long_block_size, size.blocks_per_step
    config = Config(
        data=DataConfig(block_size=length),
        train=TrainConfig(per_replica_batch_size=rows, rematerialize=rematerialize, xla=xla),
    )
    shape = BertConfig(
        num_hidden_layers=2 * size.num_layers,
        hidden_size=_WIDTH,
        intermediate_size=4 * _WIDTH,
        num_attention_heads=_WIDTH // 64,
        max_position_embeddings=length,
    )
    _, step = start_random_training(shape, config, size.memory_steps)
    before = _resident_gib()
    times = [time.perf_counter()]
    for _ in range(1 + size.memory_steps):
        step()
        times.append(time.perf_counter())
    return Measured(peak_gib() - before, float(np.median(np.diff(times)[1:])))


def _resident_gib() -> float:
    """What this process has resident now, on Linux."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**30
