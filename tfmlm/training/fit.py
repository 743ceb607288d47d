"""The call of Keras' `fit`, with the batches that are left and the callbacks of a run."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import closing
from typing import cast

import tensorflow as tf

from tfmlm.config import Config
from tfmlm.data.blocks import Blocks
from tfmlm.data.pipeline import make_training_batches
from tfmlm.data.sharded_blocks import ShardedBlocks
from tfmlm.signals import noting_signals
from tfmlm.training.callbacks import make_callbacks
from tfmlm.training.checkpoint import TrainingCheckpoint
from tfmlm.training.choosing import EvaluateAndChoose, make_due_check
from tfmlm.training.cluster import read_cluster
from tfmlm.training.evaluate import evaluate
from tfmlm.training.progress import make_progress
from tfmlm.training.run_log import RunLog
from tfmlm.training.setup import Setup

MakeCallbacks = Callable[[Setup, RunLog], list[tf.keras.callbacks.Callback]]
"""What a stage after this one wants to do at each step, when the step's checkpoint has been saved."""


def make_no_callbacks(setup: Setup, log: RunLog) -> list[tf.keras.callbacks.Callback]:
    """For a run that is only trained."""
    del setup, log
    return []


def fit(
    config: Config,
    setup: Setup,
    checkpoint: TrainingCheckpoint,
    log: RunLog,
    make_more_callbacks: MakeCallbacks = make_no_callbacks,
) -> None:
    """Trains from the log's step to the last one.

    Raises:
        PreemptedError: SIGTERM came; the first worker has saved the step.
    """
    evaluating = EvaluateAndChoose(
        lambda: evaluate(setup.model, setup.validation),
        make_due_check(
            config.train.evaluate_every_steps,
            config.train.evaluate_each_epoch,
            setup.data.train.num_blocks,
            setup.blocks_per_step,
        ),
        checkpoint,
        log,
        config.train.early_stopping_patience,
    )
    with (
        noting_signals(signal.SIGTERM) as told_to_end,
        closing(make_progress(setup.model.optimizer.learning_rate, log)) as progress,
    ):
        callbacks = make_callbacks(config, setup.model, checkpoint, log, evaluating, told_to_end)
        callbacks += make_more_callbacks(setup, log)
        setup.model.fit(
            make_batches(config, setup, log.step),
            steps_per_epoch=setup.total_steps - log.step,
            callbacks=[*callbacks, progress],
            verbose=0,
        )


def make_batches(
    config: Config, setup: Setup, first_step: int
) -> tf.data.Dataset | tf.distribute.DistributedDataset:
    """The batches that are left; several workers read shards of their own."""
    strategy = setup.model.distribute_strategy

    def make(blocks: Blocks, batch_size: int) -> tf.data.Dataset:
        return make_training_batches(
            blocks, setup.collator, config.run.seed, first_step, setup.total_steps, batch_size
        )

    def make_of_worker(context: tf.distribute.InputContext) -> tf.data.Dataset:
        num_workers = context.num_input_pipelines
        blocks = cast(ShardedBlocks, setup.data.train).of_worker(context.input_pipeline_id, num_workers)
        return make(blocks, setup.blocks_per_step // num_workers)

    if isinstance(setup.data.train, ShardedBlocks) and read_cluster().num_workers > 1:
        return strategy.distribute_datasets_from_function(make_of_worker)
    return make(setup.data.train, setup.blocks_per_step)
