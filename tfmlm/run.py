"""A whole run: train, export, fill the sample texts, push, and write down the result."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from tfmlm.config import Config
from tfmlm.data.files import describe_bad_row
from tfmlm.data.prepare import explained_errors
from tfmlm.data.sources import open_training_texts
from tfmlm.errors import UserError
from tfmlm.export.saved_model import Export, export_saved_model
from tfmlm.hub.card import Circumstances, write_card
from tfmlm.hub.pull import pull_run
from tfmlm.hub.push import push_run
from tfmlm.hub.snapshots import pushing_in_background
from tfmlm.results import Samples
from tfmlm.run_folder import Result, RunFolder, holding_run_folder, load_trained, open_run_folder
from tfmlm.samples import fill_samples, filling_first, read_first_samples
from tfmlm.training.evaluate import Evaluation, evaluate
from tfmlm.training.setup import set_up
from tfmlm.training.strategy import read_cluster
from tfmlm.training.train import MakeCallbacks, train

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
    """
    if not read_cluster().is_chief:
        _train_beside_chief(config)
        return None
    with holding_run_folder(config.run_dir):
        pull_run(config)
        folder = open_run_folder(config)
        result = folder.read_result() or _train_and_push(config, folder)
        unpushed = _push(config, folder)
        return FinishedRun(result, result.samples_after or fill_samples(config, folder), unpushed)


def _train_beside_chief(config: Config) -> None:
    """Takes part in the training of a finished or unfinished run, and leaves nothing."""
    if RunFolder(config.run_dir).read_result():
        return
    with tempfile.TemporaryDirectory() as scratch:
        train(config, RunFolder(Path(scratch), chief_path=config.run_dir))


def _train_and_push(config: Config, folder: RunFolder) -> Result:
    with pushing_in_background(config, folder) as make_callbacks:
        return _train_and_export(config, folder, make_callbacks)


def _train_and_export(config: Config, folder: RunFolder, make_callbacks: MakeCallbacks) -> Result:
    trained = train(config, folder, filling_first(config, folder, make_callbacks))
    export = export_run(config, folder.model_dir) if config.export.enabled else None
    result = Result(
        perplexity=trained.after.perplexity,
        eval_loss=trained.after.loss,
        eval_top_1=trained.after.top_1,
        eval_top_5=trained.after.top_5,
        initial_perplexity=trained.before.perplexity,
        steps=trained.log.step,
        tokens=trained.log.step * trained.log.tokens_per_step,
        train_seconds=trained.log.seconds,
        step_seconds_median=trained.log.step_seconds_median,
        tokens_per_second=trained.log.tokens_per_step / trained.log.step_seconds_median,
        model_dir=str(folder.model_dir),
        saved_model_dir=str(export.path) if export else None,
        bad_rows=sum(row.num_rows for row in trained.bad_rows),
        notes=[
            *trained.notes,
            *(describe_bad_row(row) for row in trained.bad_rows),
            *(export.notes if export else []),
        ],
        samples_before=read_first_samples(config, folder),
        samples_after=fill_samples(config, folder),
    )
    write_card(config, folder, result, Circumstances(trained.devices, trained.notes))
    folder.write_result(result)
    return result


def _push(config: Config, folder: RunFolder) -> str | None:
    """Pushes a finished run: a Hub that cannot be reached does not make it unfinished."""
    try:
        if config.hub.push:
            push_run(folder, config.hub)
    except UserError as error:
        return str(error)
    return None


def export_run(config: Config, model_dir: Path) -> Export:
    """Exports a model under the configured name, or the run's."""
    name = config.export.name or config.run.name
    return export_saved_model(model_dir, config.export, name, _read_corpus(config))


def _read_corpus(config: Config) -> Iterator[list[str]]:
    """Some of the run's own texts, if its source is one of texts and still there."""
    # The texts are gone when a model is exported on another machine, and shards hold none.
    with suppress(UserError):
        yield from open_training_texts(config.data).take(_TEXTS_TO_COMPARE)


def evaluate_folder(path: Path, overrides: list[str]) -> Evaluation:
    """Evaluates a run or a model folder on the held-out text of its run, as the run itself did."""
    config, model_dir = load_trained(path, overrides)
    setup = set_up(
        replace(
            config,
            model=replace(config.model, name_or_path=str(model_dir), config={}),
            tokenizer=replace(config.tokenizer, name_or_path=str(model_dir), train_vocab_size=None),
        ),
        needs_head=True,
    )
    with explained_errors(setup.data):
        return evaluate(setup.model, setup.validation)
