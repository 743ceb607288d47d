"""Chooses what nobody has said about a run: from the text, the model and the machine.

The choice is the same for the same text and the same machine. A run that has begun keeps its own, so that
more text or another machine does not make it another run.
"""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import tensorflow as tf
from transformers import PretrainedConfig

from tfmlm.config import Config
from tfmlm.config.load import (
    compare_settings,
    list_settings,
    load_config,
    make_config,
    parse_overrides,
)
from tfmlm.data.found_text import (
    AmountOfText,
    find_column,
    find_paragraphs,
    find_source,
    has_paragraphs,
    measure_text,
)
from tfmlm.data.tokenizers import load_tokenizer
from tfmlm.model_names import resolve_name_or_path
from tfmlm.remote_folders import explained_remote_errors, list_names
from tfmlm.remote_run import bring_records
from tfmlm.run_folder import RunFolder
from tfmlm.training.architectures import max_block_size
from tfmlm.training.cluster import read_cluster
from tfmlm.training.model import has_trained_head, read_model_config
from tfmlm.training.sizes import measure_memory
from tfmlm.training.strategy import has_fast_bfloat16, has_tpu
from tfmlm.urls import hide_secrets, is_url


class Choice(NamedTuple):
    """A setting that was chosen.

    Attributes:
        key: such as `data.block_size`.
        value: what it was set to.
        reason: why, in words for people.
    """

    key: str
    value: Any
    reason: str


class Kept(NamedTuple):
    """A setting with which a run has begun, and which would be another one now.

    Attributes:
        key: such as `train.max_steps`.
        value: the run's.
        now: what it would be.
    """

    key: str
    value: Any
    now: Any


class Suggestion(NamedTuple):
    """A configuration for a text and a model.

    Attributes:
        config: the whole, with what the user said.
        choices: what the user did not say, in the order in which it was chosen.
        amount: of the text.
        has_begun: whether the run folder holds a run of this text and model, whose settings these are.
        kept: settings of that run that would be others now.
    """

    config: Config
    choices: list[Choice]
    amount: AmountOfText
    has_begun: bool
    kept: list[Kept]


def suggest_config(texts: Sequence[str], model: str, overrides: Sequence[str]) -> Suggestion:
    """Chooses a configuration for a text and a model.

    Args:
        texts: files, folders or globs of one kind.
        model: a folder, a Hub id or `package:NAME/PATH`.
        overrides: `section.key=value`, which win.

    Raises:
        UserError: the text cannot be read or its column not be told, or the model is unknown.
    """
    said = parse_overrides(overrides)
    files = [text if is_url(text) else str(Path(text)) for text in texts]
    # Two spellings of a path are one.
    folder = str(Path(model)) if Path(model).is_dir() else model
    asked = {"data.train_files": files, "model.name_or_path": folder}
    choices: list[Choice] = []

    def settle(*new: Choice) -> Config:
        """The configuration so far: what was asked for, chosen, and said, which wins."""
        choices.extend(choice for choice in new if choice.key not in said)
        chosen = {choice.key: choice.value for choice in choices}
        return make_config(_nest(asked | chosen), overrides)

    settle(Choice("run.name", _name_run(files[0]), "after the text"))
    if "data.source" not in said:
        config = settle(Choice("data.source", *find_source(said.get("data.train_files", files))))
    else:
        config = settle()
    model_config = read_model_config(config.model)
    config = settle(*_choose_reading(config, said))
    amount = measure_text(config.data, _load_tokenizer(config))
    machine = _look_at_machine()
    config = settle(_choose_block_size(amount, model_config, machine))
    config = settle(*_choose_amounts(config, amount, machine))
    config = settle(*_choose_kept_weights(config))
    has_head = has_trained_head(config.model)
    config = settle(*_choose_steps(config, amount, model_config, has_head, machine))
    begun = _read_begun_run(config.run_address)
    if begun is None or not _is_of(begun, config):
        return Suggestion(config, choices, amount, has_begun=False, kept=[])
    # As they are given now, for of URLs the run keeps no secrets.
    data = replace(begun.data, train_files=config.data.train_files)
    config_of_run = make_config(replace(begun, data=data), overrides)
    its, ours = list_settings(config_of_run), list_settings(config)
    kept = [Kept(key, its[key], ours[key]) for key in compare_settings(its, ours)]
    choices = [choice._replace(value=its[choice.key]) for choice in choices]
    return Suggestion(config_of_run, choices, amount, has_begun=True, kept=kept)


# === A run that has begun ===


def _read_begun_run(address: str) -> Config | None:
    """The configuration of the run in a folder, if a step of it is saved."""
    if not is_url(address):
        folder = RunFolder(Path(address))
        return load_config(folder.config_file) if folder.config_file.exists() and folder.has_begun else None
    with tempfile.TemporaryDirectory() as copy, explained_remote_errors(address):
        bring_records(address, Path(copy))
        folder = RunFolder(Path(copy))
        has_begun = folder.result_file.exists() or list_names(f"{address}/checkpoints")
        return load_config(folder.config_file) if folder.config_file.exists() and has_begun else None


def _is_of(begun: Config, config: Config) -> bool:
    """Whether a run that has begun is of the same text and the same model."""
    keys = ("data.source", "data.train_files", "model.name_or_path")
    ours, its = list_settings(config), list_settings(begun)
    return all(ours[key] == its[key] for key in keys)


# === Choices: each rule with its reason ===

_SMALLEST_BLOCK = 64
_LARGEST_BLOCK = {"CPU": 256, "GPU": 512, "TPU": 512}

_FEW_BLOCKS = 200
"""With fewer, shorter blocks teach more: there are more of them, and more steps."""

_TOKENS_TO_SEE = 3_000_000
_MOST_EPOCHS = 20
"""Each pass masks other tokens, so that a small text bears more of them (https://arxiv.org/abs/2004.10964)."""

_USUAL_EPOCHS = 3
_LARGE_TEXT = 30_000_000
"""Tokens of a text for which one pass is enough."""

_FEW_STEPS = 100
_SECONDS_ON_A_CPU = 3600.0
_HELD_OUT_TOKENS = 200_000

_USUAL_RATE, _USUAL_WIDTH, _USUAL_BATCH = 5e-5, 768, 16
_HIGHEST_RATE = 1e-3
_NEW_HEAD_FACTOR = 4

_MEMORY_OF_A_GPU = 4 * 2**30
"""Bytes for activations: TensorFlow tells how much there is only when it has taken it; a card has 8 GB."""


class _Machine(NamedTuple):
    """What the choices depend on.

    Attributes:
        kind: `CPU`, `GPU` or `TPU`.
        num_replicas: devices of all workers that share a step.
        num_workers: processes.
        precision: the fastest that is safe.
        activation_bytes: memory of one device for activations.
    """

    kind: str
    num_replicas: int
    num_workers: int
    precision: str
    activation_bytes: int


def _look_at_machine() -> _Machine:
    num_workers = read_cluster().num_workers
    gpus = tf.config.list_physical_devices("GPU")
    if has_tpu():
        return _Machine("TPU", num_workers, num_workers, "bfloat16", _MEMORY_OF_A_GPU)
    if gpus:
        details = tf.config.experimental.get_device_details(gpus[0])
        precision = "bfloat16" if details.get("compute_capability", (0, 0)) >= (8, 0) else "float32"
        return _Machine("GPU", num_workers * len(gpus), num_workers, precision, _MEMORY_OF_A_GPU)
    precision = "bfloat16" if has_fast_bfloat16() else "float32"
    return _Machine("CPU", num_workers, num_workers, precision, measure_memory() // 4)


def _choose_reading(config: Config, said: dict[str, Any]) -> Iterator[Choice]:
    if config.data.source != "text" and "data.text_column" not in said:
        yield Choice("data.text_column", *find_column(config.data))
    if config.data.source == "text" and "data.sample_by" not in said:
        share = find_paragraphs(config.data)
        reason = f"{share:.0%} of the lines are blank"
        yield Choice("data.sample_by", "paragraph" if has_paragraphs(share) else "line", reason)


def _choose_block_size(amount: AmountOfText, model_config: PretrainedConfig, machine: _Machine) -> Choice:
    most = min(max_block_size(model_config), _LARGEST_BLOCK[machine.kind])
    size = _SMALLEST_BLOCK
    while size < amount.typical_length:
        size *= 2
    reason = f"half of the tokens are in texts of {amount.typical_length:,} or more"
    while size > _SMALLEST_BLOCK and amount.num_tokens < size * _FEW_BLOCKS:
        size //= 2
        reason = f"of about {amount.num_tokens:,} tokens, longer blocks would be few"
    if size > most:
        size, reason = most, f"{reason}; the most for this model on a {machine.kind}"
    return Choice("data.block_size", size, reason)


def _choose_amounts(config: Config, amount: AmountOfText, machine: _Machine) -> Iterator[Choice]:
    """How often the text is seen, and how much of it is held out."""
    about = f"about {amount.num_tokens:,} tokens{'' if amount.is_whole else ' and more'}"
    epochs = min(max(math.ceil(_TOKENS_TO_SEE / amount.num_tokens), _USUAL_EPOCHS), _MOST_EPOCHS)
    is_large = not amount.is_whole or amount.num_tokens >= _LARGE_TEXT
    if not config.data.streaming:
        yield Choice("train.epochs", 1 if is_large else epochs, about)
    share = _HELD_OUT_TOKENS / amount.num_tokens
    if share < config.data.validation_fraction and not config.data.validation_files:
        yield Choice("data.validation_fraction", float(f"{share:.0e}"), f"200,000 of {about}")
    if machine.kind == "CPU" and machine.num_workers == 1:
        yield Choice("train.max_seconds", _SECONDS_ON_A_CPU, "at most an hour, as there is no GPU")
        yield Choice("train.checkpoint_every_steps", 100, "minutes on a CPU")
    if not config.data.streaming and not config.train.evaluate_every_steps:
        yield Choice("train.evaluate_each_epoch", True, "to see when it gets no better")


def _choose_kept_weights(config: Config) -> Iterator[Choice]:
    if config.train.evaluate_each_epoch or config.train.evaluate_every_steps:
        yield Choice("train.keep", "best", "those that do best on what is held out")


def _choose_steps(
    config: Config, amount: AmountOfText, model_config: PretrainedConfig, has_head: bool, machine: _Machine
) -> Iterator[Choice]:
    """Blocks of a step, the rate that goes with them, and the precision."""
    num_blocks = config.train.epochs * amount.num_tokens // config.data.block_size
    wanted = _USUAL_BATCH if machine.kind == "CPU" else 2 * _USUAL_BATCH
    while wanted > machine.num_replicas and wanted > 4 and num_blocks < wanted * _FEW_STEPS:
        wanted //= 2
    per_replica = max(1, wanted // machine.num_replicas)
    needed = _estimate_activations(model_config, config.data.block_size, machine.precision)
    accumulated = 1
    while per_replica > 1 and per_replica * needed > machine.activation_bytes:
        per_replica, accumulated = per_replica // 2, accumulated * 2
    yield Choice("train.per_replica_batch_size", per_replica, f"about {num_blocks:,} blocks in all")
    if accumulated > 1:
        reason = f"memory for {per_replica} blocks at once"
        yield Choice("train.gradient_accumulation_steps", accumulated, reason)
    yield Choice("train.precision", machine.precision, f"what this {machine.kind} is fast in")
    blocks_per_step = per_replica * accumulated * machine.num_replicas
    rate = _USUAL_RATE * _USUAL_WIDTH / model_config.hidden_size * math.sqrt(blocks_per_step / _USUAL_BATCH)
    reason = f"for a width of {model_config.hidden_size} and {blocks_per_step} blocks a step"
    if not has_head:
        rate, reason = rate * _NEW_HEAD_FACTOR, f"{reason}, and a masked-LM head that is new"
    yield Choice("optimizer.learning_rate", float(f"{min(rate, _HIGHEST_RATE):.0e}"), reason)
    if not config.optimizer.warmup_steps:
        yield Choice("optimizer.warmup_ratio", 0.06, "as BERT and RoBERTa have it")


def _estimate_activations(model_config: PretrainedConfig, block_size: int, precision: str) -> int:
    """Bytes that one block keeps for the backward pass, by https://arxiv.org/abs/2205.05198, equation 1."""
    width, heads = model_config.hidden_size, model_config.num_attention_heads
    of_layer = block_size * (34 * width + 5 * heads * block_size)
    return int(model_config.num_hidden_layers * of_layer * (2 if precision == "float32" else 1))


def _load_tokenizer(config: Config) -> Any:
    """The tokenizer of the run; None for one that is still to be trained."""
    if config.tokenizer.train_vocab_size:
        return None
    name = config.tokenizer.name_or_path or config.model.name_or_path
    key = "tokenizer.name_or_path" if config.tokenizer.name_or_path else "model.name_or_path"
    return load_tokenizer(resolve_name_or_path(name or "", key))


def _name_run(text: str) -> str:
    """The last part of a path without its endings, of letters that a folder may have anywhere."""
    last = PurePosixPath(hide_secrets(text) if is_url(text) else Path(text).absolute().as_posix())
    name = re.sub(r"[^\w-]+", "-", last.name.partition(".")[0]).strip("-")
    if name:
        return name
    folder = re.sub(r"[^\w-]+", "-", last.parent.name).strip("-")
    return folder or "run"


def _nest(settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Sections, of keys such as `data.source`."""
    nested: dict[str, dict[str, Any]] = {}
    for key, value in settings.items():
        section, _, name = key.partition(".")
        nested.setdefault(section, {})[name] = value
    return nested
