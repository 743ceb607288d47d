"""Row: how long training stands still for a checkpoint.

The peer is `tf.train.Checkpoint.write` of the same objects, as `BackupAndRestore` calls it.
"""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

import tensorflow as tf
from transformers import BertConfig

from benchmarks.measure import Row, Size, alternate_alone
from benchmarks.training import start_random_training
from tfmlm.config import Config, DataConfig, TrainConfig
from tfmlm.library_logging import quieten_libraries
from tfmlm.training.checkpoint import TrainingCheckpoint

_WIDTH = 768
_STEPS_BETWEEN = 3


class Measured(NamedTuple):
    """Checkpoints of a training.

    Attributes:
        seconds: that the training waited for each.
        slowed_seconds: that the step after it took longer, which shares the cores with the writing.
        written_seconds: from the call to the whole checkpoint.
        gib: size of one.
    """

    seconds: list[float]
    slowed_seconds: list[float]
    written_seconds: list[float]
    gib: float


def measure(folder: Path, size: Size) -> Row:
    """Both in turn, each repeat in a process of its own."""
    results = alternate_alone(
        {
            "ours": ("benchmarks.checkpoint:save", folder, True, size),
            "peer": ("benchmarks.checkpoint:save", folder, False, size),
        },
        size.num_repeats,
    )
    ours, peer = ([seconds for repeat in results[name] for seconds in repeat.seconds] for name in results)
    slowed, written = (
        median(seconds for repeat in results["ours"] for seconds in getattr(repeat, name))
        for name in ("slowed_seconds", "written_seconds")
    )
    note = (
        f"the peer is tf.train.Checkpoint.write, {results['peer'][0].gib:.2f} GiB; the wait is "
        f"{median(ours) / written:.1%} of the {written:.2f} s of writing, which shares the cores: the next "
        f"step takes {slowed:.2f} s longer"
    )
    return Row(unit="s", ours=ours, peer=peer, higher_is_better=False, notes=[note])


def save(folder: Path, beside: bool, size: Size) -> Measured:
    """Trains a BERT with random weights on random tokens, and saves it every few steps."""
    quieten_libraries()
    rows, length = size.blocks_per_step // 4, size.block_size
    config = Config(data=DataConfig(block_size=length), train=TrainConfig(per_replica_batch_size=rows))
    shape = BertConfig(num_hidden_layers=size.num_layers, hidden_size=_WIDTH)
    model, step = start_random_training(shape, config, 100)
    checkpoint = TrainingCheckpoint(model, folder / "checkpoints", rows)
    plain = tf.train.Checkpoint(model=model.model, optimizer=model.optimizer)
    waited, slowed, written = [], [], []

    def time_step() -> float:
        begin = time.perf_counter()
        step()
        return time.perf_counter() - begin

    time_step()
    for _ in range(size.num_repeats):
        usual = median(time_step() for _ in range(_STEPS_BETWEEN))
        begin = time.perf_counter()
        if beside:
            checkpoint.save(0.0)
        else:
            plain.write(str(folder / "plain"))
        called = time.perf_counter() - begin
        waited.append(called)
        slowed.append(time_step() - usual)
        checkpoint.wait()
        written.append(time.perf_counter() - begin if beside else called)
    num_values = sum(int(variable.shape.num_elements()) for variable in model.optimizer.weights)
    return Measured(waited, slowed, written, (num_values + model.model.count_params()) * 4 / 2**30)
