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
import tensorflow as tf
from transformers import BertConfig

from benchmarks.measure import Row, Size, alternate_alone, peak_gib
from tfmlm.config import Config, DataConfig, TrainConfig
from tfmlm.data.masking import IGNORE_LABEL
from tfmlm.library_logging import quieten_libraries
from tfmlm.training.architectures import build_model
from tfmlm.training.masked_lm import MaskedLanguageModel
from tfmlm.training.optimizer import make_optimizer
from tfmlm.training.strategy import precision_policy

_WIDTH = 256
_VOCABULARY = 30_522


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
    tf.keras.utils.set_random_seed(0)
    length, rows = size.long_block_size, size.blocks_per_step
    config = Config(
        data=DataConfig(block_size=length),
        train=TrainConfig(per_replica_batch_size=rows, rematerialize=rematerialize, xla=xla),
    )
    fields = {"hidden_size": _WIDTH, "intermediate_size": 4 * _WIDTH, "num_attention_heads": _WIDTH // 64}
    shape = BertConfig(
        num_hidden_layers=2 * size.num_layers,
        max_position_embeddings=length,
        vocab_size=_VOCABULARY,
        **fields,
    )
    with precision_policy("float32"):
        model = MaskedLanguageModel(build_model(shape), config)
        model.compile(make_optimizer(config.optimizer, size.memory_steps), jit_compile=xla)
    rng = np.random.default_rng(0)
    ids = rng.integers(0, _VOCABULARY, (rows, length), np.int32)
    labels = np.where(rng.random(ids.shape) < config.masking.rate, ids, IGNORE_LABEL).astype(np.int32)
    batch = {"input_ids": ids, "attention_mask": np.ones_like(ids), "labels": labels}
    step = model.make_train_function()
    batches = iter(tf.data.Dataset.from_tensors(batch).repeat())
    before = _resident_gib()
    times = [time.perf_counter()]
    for _ in range(1 + size.memory_steps):
        step(batches)["loss"].numpy()
        times.append(time.perf_counter())
    return Measured(peak_gib() - before, float(np.median(np.diff(times)[1:])))


def _resident_gib() -> float:
    """What this process has resident now, on Linux."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**30
