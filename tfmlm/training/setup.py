"""The set-up of training and of evaluation: data, masks, and a compiled model on its devices."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import tensorflow as tf

from tfmlm.config import Config
from tfmlm.data.blocks import Blocks
from tfmlm.data.masking import MaskableVocabulary, MaskingCollator
from tfmlm.data.pipeline import make_evaluation_batches
from tfmlm.data.prepare import PreparedData, explained_errors, measure_unknown, prepare_data
from tfmlm.errors import UserError
from tfmlm.training.heads import ARCHITECTURES
from tfmlm.training.masked_lm import MaskedLanguageModel
from tfmlm.training.model import check_has_head, check_model, make_model, set_output_bias
from tfmlm.training.model_folder import name_output_bias
from tfmlm.training.optimizer import make_optimizer
from tfmlm.training.strategy import (
    choose_precision,
    describe_devices,
    explained_worker_loss,
    make_strategy,
    precision_policy,
)

_LOGGER = logging.getLogger(__name__)

_NOTED_UNKNOWN = 0.01
"""Share of unknown tokens above which a run says so."""


class Setup(NamedTuple):
    """Everything that a run computes with.

    Attributes:
        data: the tokenizer and the blocks.
        collator: masks the batches.
        model: compiled, on the devices of the strategy.
        validation: batches of the held-out blocks.
        blocks_per_step: blocks that all replicas and accumulation steps of one optimizer step see.
        total_steps: optimizer steps that the configuration asks for.
        notes: what the person should know, one sentence each.
    """

    data: PreparedData
    collator: MaskingCollator
    model: MaskedLanguageModel
    validation: tf.data.Dataset
    blocks_per_step: int
    total_steps: int
    notes: list[str]


@contextmanager
def explained_failures(setup: Setup) -> Iterator[None]:
    """Turns what goes wrong amid the computation, in the data or at another worker, into one line."""
    with explained_errors(setup.data), explained_worker_loss(setup.model.distribute_strategy):
        yield


def set_up(config: Config, needs_head: bool = False) -> Setup:
    """Prepares the data and compiles the model.

    Args:
        config: the run.
        needs_head: refuse a model whose vocabulary head is new, because nothing will train it.

    Raises:
        UserError: text, tokenizer, model and configuration do not fit together.
    """
    strategy = make_strategy(config.distribute)
    _check_length(strategy, config)
    check_model(config)
    tf.keras.utils.set_random_seed(config.run.seed)
    _LOGGER.info("reading %s", config.data.source)
    data = prepare_data(config)
    _LOGGER.info(
        "%s of %d tokens to train on, %s held out",
        _count_blocks(data.train),
        config.data.block_size,
        _count_blocks(data.validation),
    )
    collator = MaskingCollator(
        MaskableVocabulary.from_tokenizer(data.tokenizer), config.masking, config.run.seed
    )
    global_batch_size = config.train.per_replica_batch_size * strategy.num_replicas_in_sync
    blocks_per_step = global_batch_size * config.train.gradient_accumulation_steps
    total_steps = count_steps(config, data.train.num_blocks, blocks_per_step)
    unknown = _describe_unknown(config, data)
    model, notes = _compile_model(config, data, strategy, total_steps, needs_head)
    _LOGGER.info("%d steps of %d blocks", total_steps, blocks_per_step)
    return Setup(
        data=data,
        collator=collator,
        model=model,
        validation=make_evaluation_batches(data.validation, collator, global_batch_size),
        blocks_per_step=blocks_per_step,
        total_steps=total_steps,
        notes=[*unknown, *notes],
    )


def _compile_model(
    config: Config,
    data: PreparedData,
    strategy: tf.distribute.Strategy,
    total_steps: int,
    needs_head: bool,
) -> tuple[MaskedLanguageModel, list[str]]:
    """The model on its devices, and notes on what is not as one might expect."""
    precision, notes = choose_precision(config.train.precision)
    with strategy.scope(), precision_policy(precision):
        pretrained, new = make_model(config, data.tokenizer)
        if needs_head:
            check_has_head(config.model.name_or_path or "", new)
        if name_output_bias(pretrained) & set(new):
            with explained_errors(data):
                set_output_bias(pretrained, data.train)
            notes.append("the masked-LM head is new: its output bias starts from the tokens' frequencies")
        elif new:
            notes.append(f"tensors of the masked-LM head are new and start at random: {', '.join(new)}")
        if config.train.logits == "masked" and pretrained.config.model_type not in ARCHITECTURES:
            notes.append(f"{pretrained.config.model_type}: logits are computed at every position")
        model = MaskedLanguageModel(pretrained, config)
        model.compile(
            make_optimizer(config.optimizer, total_steps, pretrained.trainable_variables),
            jit_compile=config.train.xla,
            steps_per_execution=config.train.steps_per_execution,
        )
    _LOGGER.info(
        "%s with %s parameters, %s on %s",
        pretrained.config.model_type,
        f"{pretrained.count_params():,}",
        precision,
        describe_devices(strategy),
    )
    return model, notes


def _describe_unknown(config: Config, data: PreparedData) -> list[str]:
    """A note, and a line before training, if much of the text is unknown to the tokenizer."""
    with explained_errors(data):
        share = measure_unknown(data)
    if share <= _NOTED_UNKNOWN:
        return []
    advice = (
        "raise tokenizer.train_vocab_size, or set tokenizer.algorithm=byte_bpe, which knows every character"
        if config.tokenizer.train_vocab_size
        else "use a tokenizer that was made for such text"
    )
    note = f"{share:.1%} of the held-out tokens are {data.tokenizer.unk_token}, unknown to it; {advice}"
    _LOGGER.warning(note)
    return [note]


def _check_length(strategy: tf.distribute.Strategy, config: Config) -> None:
    """Checks that the last step can be known: a stream has no end, and workers have no common clock."""
    if config.data.streaming and not config.train.max_steps:
        raise UserError(
            "train.max_steps is empty; set it, because data.streaming does not know how long the data is"
        )
    if strategy.extended._in_multi_worker_mode() and config.train.max_seconds:  # noqa: SLF001
        raise UserError(
            f"train.max_seconds is {config.train.max_seconds}, and several workers have no common clock; set "
            "train.max_steps instead"
        )


def _count_blocks(blocks: Blocks) -> str:
    return "a stream of blocks" if blocks.num_blocks is None else f"{blocks.num_blocks:,} blocks"


def count_steps(config: Config, num_blocks: int | None, blocks_per_step: int) -> int:
    """Optimizer steps of the configured epochs, at least one and at most `train.max_steps`.

    A stream, whose number of blocks is not known, is trained on for `train.max_steps`.
    """
    if num_blocks is None:
        assert config.train.max_steps  # _check_length
        return config.train.max_steps
    steps = max(1, config.train.epochs * num_blocks // blocks_per_step)
    return min(steps, config.train.max_steps or steps)
