"""The training run: from a configuration to a trained model in its run folder. Read this page first."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable
from contextlib import closing
from typing import NamedTuple, cast

import tensorflow as tf

from tfmlm.config import Config
from tfmlm.config.load import dump_config
from tfmlm.data.blocks import Blocks, ShardedBlocks
from tfmlm.data.files import BadRow
from tfmlm.data.pipeline import make_training_batches
from tfmlm.data.prepare import explained_errors
from tfmlm.run_folder import RUN_CONFIG_NAME, RunFolder
from tfmlm.signals import noting_signals
from tfmlm.training.callbacks import EvaluateAndChoose, make_callbacks, make_due_check
from tfmlm.training.checkpoint import TrainingCheckpoint
from tfmlm.training.evaluate import Evaluation, evaluate
from tfmlm.training.model_folder import save_model_folder
from tfmlm.training.progress import make_progress
from tfmlm.training.run_log import RunLog, plot_metrics, read_initial_evaluation
from tfmlm.training.setup import Setup, set_up
from tfmlm.training.strategy import describe_devices, explained_worker_loss, read_cluster

_LOGGER = logging.getLogger(__name__)


MakeCallbacks = Callable[[Setup, RunLog], list[tf.keras.callbacks.Callback]]
"""What a stage after this one wants to do at each step, when the step's checkpoint has been saved."""


def make_no_callbacks(setup: Setup, log: RunLog) -> list[tf.keras.callbacks.Callback]:
    """For a run that is only trained."""
    del setup, log
    return []


class TrainedModel(NamedTuple):
    """What a training run leaves behind; the model itself lies in `RunFolder.model_dir`.

    Attributes:
        before: evaluation of the model as it was loaded or made.
        after: evaluation of the trained model.
        log: steps, seconds and times of the steps.
        bad_rows: rows of the source that were left out.
        notes: what the person should know, one sentence each.
        devices: what it was computed on, such as `1 CPU`.
    """

    before: Evaluation
    after: Evaluation
    log: RunLog
    bad_rows: list[BadRow]
    notes: list[str]
    devices: str


def train(
    config: Config, folder: RunFolder, make_more_callbacks: MakeCallbacks = make_no_callbacks
) -> TrainedModel:
    """Trains a masked language model, from the newest checkpoint in `folder` if there is one.

    Args:
        config: the run.
        folder: where it is written.
        make_more_callbacks: what else is to be done at each step.

    Raises:
        UserError: text, tokenizer, model and configuration do not fit together.
        PreemptedError: the process was told to end; the first worker has saved the step.
        WorkerLostError: another worker of the run is gone.
    """
    setup = set_up(config)
    with explained_errors(setup.data), explained_worker_loss(setup.model.distribute_strategy):
        is_writer = folder.chief_path is None
        checkpoint = TrainingCheckpoint(
            setup.model, folder.checkpoints_dir, config.train.kept_checkpoints, is_writer
        )
        # Only the log that belongs to a checkpoint is of this configuration.
        before = read_initial_evaluation(folder.chief_logs_dir) if checkpoint.newest else None
        before = before or evaluate(setup.model, setup.validation)
        _LOGGER.info("perplexity before training: %.2f", before.perplexity)

        first_step = checkpoint.restore()
        if first_step:
            _LOGGER.info("going on from step %d", first_step)
        tokens_per_step = setup.blocks_per_step * config.data.block_size
        log = RunLog(folder.logs_dir, first_step, float(checkpoint.seconds), tokens_per_step)
        with closing(log):
            if first_step == 0:
                log.add_evaluation(before)
            is_over = checkpoint.is_stale(config.train.early_stopping_patience)
            if first_step < setup.total_steps and not is_over:
                fit(config, setup, checkpoint, log, make_more_callbacks)
            after = evaluate(setup.model, setup.validation)
            log.add_evaluation(after)
        notes = setup.notes + _describe_overflow(log)
        if config.train.keep == "best" and after.loss > float(checkpoint.best_loss):
            best_step = checkpoint.restore_best()
            notes.append(_describe_best(best_step, log.step))
            if best_step is not None:
                after = evaluate(setup.model, setup.validation)

        texts = {RUN_CONFIG_NAME: dump_config(config)}
        save_model_folder(setup.model.model, setup.data.tokenizer, folder.model_dir, texts)
        plot_metrics(folder.logs_dir / "metrics.csv", folder.plots_dir)
        devices = describe_devices(setup.model.distribute_strategy)
        return TrainedModel(before, after, log, list(setup.data.bad_rows.values()), notes, devices)


def _describe_best(best_step: int | None, last_step: int) -> str:
    if best_step is None:
        return f"the best weights cannot be read; the weights are those of step {last_step}, the last"
    return f"the weights are those of step {best_step}, the best"


def _describe_overflow(log: RunLog) -> list[str]:
    if not log.overflow:
        return []
    return [f"{log.overflow} masked tokens found no slot in their batch and were left out of the loss"]


# === Keras' fit ===


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
