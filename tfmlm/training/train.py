"""Training: from a model that is set up to a trained and evaluated one, in so many steps as are left."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import NamedTuple

import tensorflow as tf

from tfmlm.config import Config
from tfmlm.data.blocks import Blocks, ShardedBlocks
from tfmlm.data.pipeline import make_training_batches
from tfmlm.data.shards import number_tokenizer
from tfmlm.results import Evaluation
from tfmlm.run_folder import RunFolder
from tfmlm.signals import noting_stop_signals
from tfmlm.training.agreement import agree_on_start, restore_together
from tfmlm.training.callbacks import EvaluateAndChoose, StopTogether, make_callbacks, make_due_check
from tfmlm.training.checkpoint import TrainingCheckpoint
from tfmlm.training.evaluate import evaluate_held_out
from tfmlm.training.progress import make_progress
from tfmlm.training.run_log import RunLog
from tfmlm.training.setup import Setup, explained_failures
from tfmlm.training.user_callbacks import calling_user_callbacks

_LOGGER = logging.getLogger(__name__)


class Trained(NamedTuple):
    """The outcome of training the model of a setup.

    Attributes:
        before: evaluation of the model as it was loaded or made.
        after: evaluation of the trained model.
        log: steps, seconds and times of the steps.
        notes: what the person should know, one sentence each.
    """

    before: Evaluation
    after: Evaluation
    log: RunLog
    notes: list[str]


def train(
    config: Config,
    folder: RunFolder,
    setup: Setup,
    callbacks: Sequence[tf.keras.callbacks.Callback] = (),
    when_saved: Callable[[], None] = lambda: None,
) -> Trained:
    """Trains a masked language model, from the newest checkpoint in `folder` if there is one.

    Args:
        config: the run.
        folder: where checkpoints and the log are written.
        setup: what `set_up` made of the configuration.
        callbacks: what else is to be done at each step.
        when_saved: what is to be done when a checkpoint is whole, called by the thread that writes it.

    Raises:
        UserError: the text cannot be read, the loss is not finite, or the folder cannot be written.
        PreemptedError: this process or another worker was told to end, and the step is saved.
        WorkerLostError: another worker of the run is gone.
    """
    checkpoint = TrainingCheckpoint(
        setup.model,
        folder.checkpoints_dir,
        setup.blocks_per_step,
        config.train.kept_checkpoints,
        folder.is_writer,
        when_saved,
        number_tokenizer(setup.data.tokenizer),
    )
    with closing(checkpoint), noting_stop_signals(signal.SIGTERM) as told_to_end:
        trained = _train_together(config, folder, setup, checkpoint, StopTogether(told_to_end), callbacks)
        checkpoint.wait()
    if told_to_end.stop_requested:  # after the last batch of the last evaluation
        signal.raise_signal(signal.SIGTERM)
    return trained


def _train_together(
    config: Config,
    folder: RunFolder,
    setup: Setup,
    checkpoint: TrainingCheckpoint,
    stopping: StopTogether,
    callbacks: Sequence[tf.keras.callbacks.Callback],
) -> Trained:
    """What all workers do in the same order: every step and every batch of an evaluation waits for all."""
    before = agree_on_start(config, setup, checkpoint, folder)
    before = before or evaluate_held_out(setup, [stopping])
    _LOGGER.info("perplexity before training: %.2f", before.perplexity)

    first_step = restore_together(config, checkpoint)
    if first_step:
        _LOGGER.info("going on from step %d", first_step)
    log = RunLog(folder.logs_dir, first_step, float(checkpoint.seconds))
    with closing(log):
        if first_step == 0:
            log.add_evaluation(before)
        if first_step < setup.total_steps:
            fit(config, setup, checkpoint, log, stopping, callbacks)
        after = evaluate_held_out(setup, [stopping])
        log.add_evaluation(after)
    notes = _describe_overflow(log)
    if config.train.keep == "best" and after.loss > float(checkpoint.best_loss):
        best_step = checkpoint.restore_best()
        notes.append(_describe_best(best_step, log.step))
        if best_step is not None:
            after = evaluate_held_out(setup, [stopping])
    return Trained(before, after, log, notes)


def fit(
    config: Config,
    setup: Setup,
    checkpoint: TrainingCheckpoint,
    log: RunLog,
    stopping: StopTogether,
    callbacks: Sequence[tf.keras.callbacks.Callback] = (),
) -> None:
    """Trains from the log's step to the last one; arguments and errors as of `train`."""
    evaluating = EvaluateAndChoose(
        lambda: evaluate_held_out(setup, [stopping]),
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
    evaluating.catch_up()
    if checkpoint.is_stale(config.train.early_stopping_patience):
        return
    with (
        explained_failures(setup),
        calling_user_callbacks(
            config, log, setup.data.train.num_blocks, setup.blocks_per_step, checkpoint
        ) as users,
        closing(make_progress(setup.model.optimizer.learning_rate, log)) as progress,
    ):
        own_callbacks = make_callbacks(config, setup.model, checkpoint, log, evaluating, stopping)
        setup.model.fit(
            make_batches(config, setup, log.step),
            steps_per_epoch=setup.total_steps - log.step,
            callbacks=[*own_callbacks, *callbacks, *users, progress],
            verbose=0,
        )


def make_batches(
    config: Config, setup: Setup, first_step: int
) -> tf.data.Dataset | tf.distribute.DistributedDataset:
    """The batches that are left; of shards, each input pipeline reads its share for its own replicas."""
    strategy = setup.model.distribute_strategy
    blocks = setup.data.train

    def make(blocks: Blocks) -> tf.data.Dataset:
        return make_training_batches(
            blocks, setup.collator, config.run.seed, first_step, setup.total_steps, setup.blocks_per_step
        )

    def make_share(context: tf.distribute.InputContext) -> tf.data.Dataset:
        assert isinstance(blocks, ShardedBlocks)
        batches = make(blocks.of_pipeline(context.input_pipeline_id, context.num_input_pipelines))
        # The replicas of a pipeline take its batches in turn.
        return batches.rebatch(context.get_per_replica_batch_size(setup.blocks_per_step), drop_remainder=True)

    # Which blocks are of like length only the one who reads all of them can tell.
    if isinstance(blocks, ShardedBlocks) and blocks.is_packed and strategy.num_replicas_in_sync > 1:
        return strategy.distribute_datasets_from_function(make_share)
    return make(blocks)


def _describe_best(best_step: int | None, last_step: int) -> str:
    if best_step is None:
        return f"the best weights cannot be read; the weights are those of step {last_step}, the last"
    return f"the weights are those of step {best_step}, the best"


def _describe_overflow(log: RunLog) -> list[str]:
    if not log.overflow:
        return []
    return [f"{log.overflow} masked tokens found no slot in their batch and were left out of the loss"]
