"""The set-up of training and of evaluation: data, masks, and a compiled model on its devices."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tfmlm.config import Config
from tfmlm.data.characters import count_characters
from tfmlm.data.masking import IGNORE_LABEL, MaskableVocabulary, MaskingCollator
from tfmlm.data.pipeline import make_evaluation_batches
from tfmlm.data.prepare import (
    PreparedData,
    count_texts,
    describe_long_texts,
    describe_unknown,
    explained_errors,
    prepare_data,
)
from tfmlm.data.shards import is_shard_folder
from tfmlm.errors import UserError
from tfmlm.training.cluster import explained_worker_loss
from tfmlm.training.heads import ARCHITECTURES
from tfmlm.training.masked_lm import MaskedLanguageModel
from tfmlm.training.model import (
    check_answers,
    check_model,
    describe_other_tokenizer,
    list_some,
    make_model,
    set_output_bias,
)
from tfmlm.training.optimizer import describe_rates, make_optimizer
from tfmlm.training.strategy import (
    choose_precision,
    describe_devices,
    find_unused_accelerators,
    make_strategy,
    precision_policy,
)
from tfmlm.training.weights import name_output_bias

_LOGGER = logging.getLogger(__name__)

_NOTED_UNMASKED = 0.01
"""Share of blocks without a mask above which a run says so."""

_MEASURED_BLOCKS = 4096
"""Held-out blocks whose masks are looked at, unless the characters under all of them are counted."""


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
        unknown: share of the text's tokens that the tokenizer does not know.
        unmasked: share of the held-out blocks that have no mask, and teach nothing.
        characters_a_token: mean of the held-out masked tokens; None where the tokenizer does not tell.
    """

    data: PreparedData
    collator: MaskingCollator
    model: MaskedLanguageModel
    validation: tf.data.Dataset
    blocks_per_step: int
    total_steps: int
    notes: list[str]
    unknown: float
    unmasked: float
    characters_a_token: float | None


@contextmanager
def explained_failures(setup: Setup) -> Iterator[None]:
    """Turns what goes wrong amid the computation, in the data or at another worker, into one line."""
    with explained_errors(setup.data), explained_worker_loss():
        yield


def set_up(config: Config, is_to_answer: bool = False) -> Setup:
    """Prepares the data and compiles the model.

    Args:
        config: the run.
        is_to_answer: refuse a model that is not whole, because nothing will train it.

    Raises:
        UserError: text, tokenizer, model and configuration do not fit together.
    """
    strategy = make_strategy(config.distribute)
    accelerators = _say(find_unused_accelerators())
    _check_length(strategy, config)
    _check_reading(strategy, config)
    check_model(config)
    tf.keras.utils.set_random_seed(config.run.seed)
    _LOGGER.info("reading %s", config.data.source)
    data = prepare_data(config)
    _LOGGER.info(
        "%s of %s%d tokens to train on, %s held out",
        describe_num_blocks(data.train.num_blocks),
        "" if config.data.pack else "at most ",
        config.data.block_size,
        describe_num_blocks(_at_most(data.validation.num_blocks, config.data.validation_blocks)),
    )
    collator = MaskingCollator(
        MaskableVocabulary.from_tokenizer(data.tokenizer), config.masking, config.run.seed
    )
    global_batch_size = config.train.per_replica_batch_size * strategy.num_replicas_in_sync
    blocks_per_step = global_batch_size * config.train.gradient_accumulation_steps
    total_steps = count_steps(config, data.train.num_blocks, blocks_per_step)
    validation = make_evaluation_batches(
        data.validation, collator, global_batch_size, config.data.validation_blocks
    )
    with explained_errors(data):
        counts = count_texts(data)
        unmasked, characters_a_token = _measure_masks(validation, count_characters(data.tokenizer))
    unknown = counts.unknown_share
    of_data = _say(
        [
            *describe_unknown(unknown, data.tokenizer.unk_token, bool(config.tokenizer.train_vocab_size)),
            *describe_long_texts(counts, config.data),
            *_describe_unmasked(unmasked),
        ]
    )
    model, notes = _compile_model(config, data, strategy, total_steps, is_to_answer)
    _LOGGER.info("%d steps of %d blocks", total_steps, blocks_per_step)
    return Setup(
        data=data,
        collator=collator,
        model=model,
        validation=validation,
        blocks_per_step=blocks_per_step,
        total_steps=total_steps,
        notes=[*accelerators, *of_data, *notes],
        unknown=unknown,
        unmasked=unmasked,
        characters_a_token=characters_a_token,
    )


def _compile_model(
    config: Config,
    data: PreparedData,
    strategy: tf.distribute.Strategy,
    total_steps: int,
    is_to_answer: bool,
) -> tuple[MaskedLanguageModel, list[str]]:
    """The model on its devices, and notes on what is not as one might expect."""
    precision, notes = choose_precision(config.train.precision)
    with strategy.scope(), precision_policy(precision):
        pretrained, diagnosis = make_model(config, data.tokenizer)
        if is_to_answer:
            check_answers(config.model.name_or_path or "", diagnosis)
        if name_output_bias(pretrained) & set(diagnosis.new):
            with explained_errors(data):
                set_output_bias(pretrained, data.train)
            notes.append("the masked-LM head is new: its output bias starts from the tokens' frequencies")
        elif diagnosis.new:
            new = ", ".join(diagnosis.new)
            notes.append(f"tensors of the masked-LM head are new and start at random: {new}")
        if diagnosis.unused:
            notes.append(
                f"the weights hold {len(diagnosis.unused)} tensors for which the model has no place: "
                f"{list_some(diagnosis.unused)}"
            )
        notes += _say(
            [
                *describe_other_tokenizer(config, data.tokenizer),
                *describe_rates(config.optimizer, total_steps, pretrained.trainable_variables),
            ]
        )
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


def _say(notes: list[str]) -> list[str]:
    """The notes, which are said before the minutes of training, and not only at its end."""
    for note in notes:
        _LOGGER.warning(note)
    return notes


def _measure_masks(
    validation: tf.data.Dataset, characters: NDArray[np.int64] | None
) -> tuple[float, float | None]:
    """The share of the held-out blocks that have no mask, and the characters that a masked token stands for.

    Args:
        validation: masked batches.
        characters: of each token, from `count_characters`.
    """
    num_blocks = num_unmasked = num_masks = num_characters = 0
    for batch in validation.as_numpy_iterator():
        is_block = batch["attention_mask"].any(axis=1)  # the last batch is filled up with empty rows
        is_masked = batch["labels"] != IGNORE_LABEL
        num_blocks += int(is_block.sum())
        num_unmasked += int((is_block & ~is_masked.any(axis=1)).sum())
        if characters is not None:
            masked = batch["labels"][is_masked]
            num_masks += len(masked)
            num_characters += int(characters[masked].sum())
        elif num_blocks >= _MEASURED_BLOCKS:
            break
    return num_unmasked / max(num_blocks, 1), num_characters / num_masks if num_characters else None


def _describe_unmasked(share: float) -> list[str]:
    if share < _NOTED_UNMASKED:
        return []
    return [f"{share:.1%} of the held-out blocks have no mask; raise masking.rate or data.block_size"]


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


def _check_reading(strategy: tf.distribute.Strategy, config: Config) -> None:
    """Checks that the hosts of a TPU can read the data: Python runs in this process alone."""
    if (
        isinstance(strategy, tf.distribute.TPUStrategy)
        and any("/job:localhost/" not in device for device in strategy.extended.worker_devices)
        and not is_shard_folder(config.data.source)
    ):
        raise UserError(
            f"data.source is {config.data.source!r}, and a TPU of other hosts reads nothing but shards; run "
            "`tfmlm prepare` first, to a folder that they can read (gs://), and set data.source to it"
        )


def _at_most(number: int | None, most: int | None) -> int | None:
    return min([each for each in (number, most) if each is not None], default=None)


def describe_num_blocks(number: int | None) -> str:
    """A number of blocks in words; None stands for a stream."""
    return "a stream of blocks" if number is None else f"{number:,} blocks"


def count_steps(config: Config, num_blocks: int | None, blocks_per_step: int) -> int:
    """Optimizer steps of the configured epochs, at least one and at most `train.max_steps`.

    A stream, whose number of blocks is not known, is trained on for `train.max_steps`.
    """
    if num_blocks is None:
        assert config.train.max_steps  # _check_length
        return config.train.max_steps
    steps = max(1, config.train.epochs * num_blocks // blocks_per_step)
    return min(steps, config.train.max_steps or steps)
