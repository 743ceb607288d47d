"""The sample texts of a run: filled before the first step, and with the trained model."""

from __future__ import annotations

import copy
import json

import tensorflow as tf

from tfmlm.atomic_files import write_atomically
from tfmlm.config import Config
from tfmlm.inference.fill import Predictor, load_predictor, make_predictor
from tfmlm.results import Samples
from tfmlm.run_folder import RunFolder
from tfmlm.training.model import max_block_size
from tfmlm.training.run_log import RunLog
from tfmlm.training.setup import Setup
from tfmlm.training.train import MakeCallbacks

_TOP_K = 5


def filling_first(config: Config, folder: RunFolder, make_callbacks: MakeCallbacks) -> MakeCallbacks:
    """Also fills the sample texts when a run begins: a text that cannot be filled is told before training."""

    def make(setup: Setup, log: RunLog) -> list[tf.keras.callbacks.Callback]:
        # A TPU computes whole programs; one for this would cost minutes.
        is_tpu = isinstance(setup.model.distribute_strategy, tf.distribute.TPUStrategy)
        if log.step == 0 and config.run.sample_texts and not is_tpu:
            tokenizer = copy.deepcopy(setup.data.tokenizer)
            tokenizer.model_max_length = max_block_size(setup.model.model.config)
            predictor = make_predictor(setup.model.model, tokenizer, _TOP_K)
            write_atomically(folder.samples_file, json.dumps(_fill(config, predictor)))
        return make_callbacks(setup, log)

    return make


def read_first_samples(config: Config, folder: RunFolder) -> Samples:
    """What was filled in when the run began, on whatever machine; empty if that was not kept."""
    if not folder.samples_file.exists():
        return {}
    before: Samples = json.loads(folder.samples_file.read_text(encoding="utf-8"))
    # A start that failed may have had other texts.
    return {text: before[text] for text in config.run.sample_texts if text in before}


def fill_samples(config: Config, folder: RunFolder) -> Samples:
    """Fills the masks of `run.sample_texts` with the trained model."""
    if not config.run.sample_texts:
        return {}
    return _fill(config, load_predictor(str(folder.model_dir), _TOP_K))


def _fill(config: Config, predictor: Predictor) -> Samples:
    return dict(zip(config.run.sample_texts, predictor(config.run.sample_texts), strict=True))
