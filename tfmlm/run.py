"""A run, from top to bottom: the page to read first."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf

from tfmlm.atomic_files import write_atomically
from tfmlm.config import Config, TokenizerConfig
from tfmlm.config.load import dump_config
from tfmlm.data.files import describe_bad_row
from tfmlm.data.sources import open_training_texts
from tfmlm.errors import UserError
from tfmlm.export.saved_model import Export, check_target, export_saved_model
from tfmlm.hub.card import TrainingEnvironment, write_card
from tfmlm.hub.pull import pull_run
from tfmlm.hub.push import push_run
from tfmlm.hub.snapshots import pushing_in_background
from tfmlm.inference.fill import Predictor, load_predictor, make_predictor
from tfmlm.inference.loading import Exportable, load_trained
from tfmlm.remote_folders import explained_remote_errors
from tfmlm.remote_run import bring_checkpoints, bring_run, holding_run
from tfmlm.results import Evaluation, Result, Samples, to_perplexity
from tfmlm.run_folder import RUN_CONFIG_NAME, RunFolder, goes_on_longer, open_run_folder
from tfmlm.signals import ending_when_told
from tfmlm.training.architectures import max_block_size
from tfmlm.training.checkpoint import list_checkpoints
from tfmlm.training.cluster import (
    explained_worker_loss,
    read_cluster,
    telling_how_it_ends,
    wait_for_chief,
)
from tfmlm.training.evaluate import evaluate_held_out
from tfmlm.training.model_folder import save_model_folder
from tfmlm.training.run_log import plot_metrics
from tfmlm.training.setup import Setup, set_up
from tfmlm.training.strategy import describe_devices
from tfmlm.training.train import Trained, train
from tfmlm.training.user_callbacks import find_callbacks
from tfmlm.urls import is_url

_SAMPLE_TOP_K = 5

_TEXTS_TO_COMPARE = 2_000
"""Texts on which an export's tokenization is compared with the tokenizer: seconds."""


class FinishedRun(NamedTuple):
    """A finished run.

    Attributes:
        result: its figures.
        samples: its filled sample texts; for each text, one list of candidates a mask.
        unpushed: why its model is not on the Hub, where it should be, and what to type.
    """

    result: Result
    samples: Samples
    unpushed: str | None = None


def run(config: Config) -> FinishedRun | None:
    """Does everything that a configuration asks for; a finished run is only read again.

    Returns:
        The finished run; None for a worker that is not the chief.

    Raises:
        UserError: something in the configuration, the data or the run folder is wrong.
        PreemptedError: this process or another worker was told to end.
        WorkerLostError: another worker of the run is gone.
    """
    with telling_how_it_ends(), ending_when_told(), explained_worker_loss():
        if read_cluster().is_chief:
            return _run_as_chief(config)
        _train_beside_chief(config)
        return None


def _run_as_chief(config: Config) -> FinishedRun:
    with holding_run(config) as folder:
        pull_run(config, folder)
        open_run_folder(folder, config)
        result = folder.read_result() or _train_and_export(config, folder)
        unpushed = _push(config, folder)
        return FinishedRun(result, result.samples_after or _fill_after_training(config, folder), unpushed)


def _train_and_export(config: Config, folder: RunFolder) -> Result:
    check_target(config.export)
    find_callbacks(config)  # what is wrong with one is said before the text is read
    setup = set_up(config)
    samples_before = _fill_before_training(config, folder, setup)
    with pushing_in_background(config, folder, setup) as (callbacks, offer_checkpoint):

        def offer() -> None:
            offer_checkpoint()
            if folder.remote:
                folder.remote.offer()

        trained = train(config, folder, setup, callbacks, offer)
        texts = {RUN_CONFIG_NAME: dump_config(config)}
        save_model_folder(setup.model.model, setup.data.tokenizer, folder.model_dir, texts)
        plot_metrics(folder.logs_dir, folder.plots_dir)
        export = export_run(config, folder.model_dir) if config.export.enabled else None
        samples_after = _fill_after_training(config, folder)
        result = _summarize(folder, setup, trained, export, samples_before, samples_after)
        environment = TrainingEnvironment(
            describe_devices(setup.model.distribute_strategy),
            [*setup.notes, *trained.notes],
            setup.blocks_per_step,
        )
        write_card(config, folder, result, environment)
        folder.write_result(result)
    return result


def _summarize(
    folder: RunFolder,
    setup: Setup,
    trained: Trained,
    export: Export | None,
    samples_before: Samples,
    samples_after: Samples,
) -> Result:
    bad_rows = list(setup.data.bad_rows.values())
    characters, words = setup.characters_a_token, setup.data.tokens_a_text
    return Result(
        perplexity=trained.after.perplexity,
        eval_loss=trained.after.loss,
        eval_top_1=trained.after.top_1,
        eval_top_5=trained.after.top_5,
        initial_perplexity=trained.before.perplexity,
        steps=trained.log.step,
        tokens=trained.log.tokens,
        train_seconds=trained.log.seconds,
        step_seconds_median=trained.log.step_seconds_median,
        tokens_per_second=trained.log.tokens_per_second,
        model_dir=folder.locate(folder.model_dir),
        saved_model_dir=export.address if export else None,
        bad_rows=sum(row.num_rows for row in bad_rows),
        unknown_share=setup.unknown,
        unmasked_share=setup.unmasked,
        perplexity_per_character=to_perplexity(trained.after.loss / characters) if characters else None,
        tokens_a_text_before=words.before if words else None,
        tokens_a_text_after=words.after if words else None,
        num_new_words=words.num_new if words else 0,
        notes=[
            *setup.notes,
            *trained.notes,
            *map(describe_bad_row, bad_rows),
            *(export.notes if export else []),
        ],
        samples_before=samples_before,
        samples_after=samples_after,
    )


def _push(config: Config, folder: RunFolder) -> str | None:
    """Pushes a finished run: a Hub that cannot be reached does not make it unfinished."""
    try:
        if config.hub.push:
            push_run(folder, config.hub)
    except UserError as error:
        return str(error)
    return None


def _train_beside_chief(config: Config) -> None:
    """Takes part in the training of a run that is not finished, and leaves nothing."""
    with tempfile.TemporaryDirectory() as scratch:
        chief = _find_chief_folder(config, Path(scratch, "chief"))
        if chief.read_result() and not goes_on_longer(chief, config):
            return
        train(config, RunFolder(Path(scratch), chief_path=chief.path), set_up(config))
        wait_for_chief()


def _find_chief_folder(config: Config, copy: Path) -> RunFolder:
    """The run folder that the chief writes; of a remote one a copy, with the checkpoints to go on from."""
    if not is_url(config.run_address):
        return RunFolder(config.run_dir)
    folder = RunFolder(copy)
    with explained_remote_errors(config.run_address):
        bring_run(config.run_address, copy)
        if folder.result_file.exists() and goes_on_longer(folder, config):
            bring_checkpoints(config.run_address, copy)
    return folder


# === Sample texts ===


def _fill_before_training(config: Config, folder: RunFolder, setup: Setup) -> Samples:
    """Fills `run.sample_texts` as the run begins, and so says before training that one cannot be filled.

    A run that goes on, on whatever machine, reads what was filled in then.
    """
    texts = config.run.sample_texts
    if list_checkpoints(folder.checkpoints_dir, "step"):
        return _read_first_samples(texts, folder)
    # A TPU computes whole programs; one for this would cost minutes.
    if not texts or isinstance(setup.model.distribute_strategy, tf.distribute.TPUStrategy):
        return {}
    tokenizer = copy.deepcopy(setup.data.tokenizer)
    tokenizer.model_max_length = max_block_size(setup.model.model.config)
    samples = _fill(texts, make_predictor(setup.model.model, tokenizer, _SAMPLE_TOP_K))
    folder.logs_dir.mkdir(exist_ok=True)
    write_atomically(folder.samples_file, json.dumps(samples))
    return samples


def _read_first_samples(texts: list[str], folder: RunFolder) -> Samples:
    """Empty if they were not kept."""
    if not folder.samples_file.exists():
        return {}
    before: Samples = json.loads(folder.samples_file.read_text(encoding="utf-8"))
    # A start that failed may have had other texts.
    return {text: before[text] for text in texts if text in before}


def _fill_after_training(config: Config, folder: RunFolder) -> Samples:
    if not config.run.sample_texts:
        return {}
    return _fill(config.run.sample_texts, load_predictor(str(folder.model_dir), _SAMPLE_TOP_K))


def _fill(texts: list[str], predictor: Predictor) -> Samples:
    return dict(zip(texts, predictor(texts), strict=True))


# === Parts of a run that are commands of their own ===


def export_run(config: Config, model_dir: Path) -> Export:
    """Exports the model of a run under the configured name, or the run's.

    Raises:
        UserError: as `export_saved_model`.
    """
    return export_model(Exportable(config, str(model_dir), "of_run"))


def export_model(model: Exportable) -> Export:
    """Exports a model under the configured name, or that of the run or the model.

    Raises:
        UserError: as `export_saved_model`, or text that the user named cannot be read.
    """
    config = model.config
    name = config.export.name or config.run.name
    return export_saved_model(model.name_or_path, config.export, name, _read_corpus(model))


def _read_corpus(model: Exportable) -> Iterator[list[str]]:
    """Some texts to compare on: those of the run, if its source is one of texts and still there."""
    if model.text == "none":
        return
    # The texts are gone when a model is exported on another machine, and shards hold none.
    with suppress(*([UserError] if model.text == "of_run" else [])):
        yield from open_training_texts(model.config.data).take(_TEXTS_TO_COMPARE)


def evaluate_folder(name: str, overrides: list[str]) -> Evaluation:
    """Evaluates a run or a model folder on the held-out text of its run, as the run itself did.

    Args:
        name: the folder, which may be a remote one.
        overrides: settings that win.

    Raises:
        UserError: it is neither, its vocabulary head is not whole, or the text cannot be read.
    """
    config, model_dir = load_trained(name, overrides)
    setup = set_up(
        replace(
            config,
            model=replace(config.model, name_or_path=str(model_dir), config={}),
            # Which has the new words already.
            tokenizer=TokenizerConfig(name_or_path=str(model_dir)),
        ),
        is_to_answer=True,
    )
    return evaluate_held_out(setup)
