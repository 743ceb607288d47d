"""Trains one side from the material, in a process that does nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import tensorflow as tf
from transformers import PretrainedConfig, TFPreTrainedModel

from benchmarks import recipe
from benchmarks.material import Material, open_material
from benchmarks.matmul import count_step_flops, measure_matmul_rate
from benchmarks.measure import Size, TimedSteps, Trained, peak_gib
from tfmlm.config import Config, RunConfig
from tfmlm.data.blocks import PackedBlocks
from tfmlm.data.masking import IGNORE_LABEL, MaskableVocabulary, MaskingCollator
from tfmlm.data.pipeline import make_evaluation_batches, make_training_batches
from tfmlm.library_logging import quieten_libraries
from tfmlm.training.architectures import build_model
from tfmlm.training.evaluate import evaluate
from tfmlm.training.loss import count_slots
from tfmlm.training.masked_lm import MaskedLanguageModel
from tfmlm.training.model import make_model
from tfmlm.training.optimizer import make_optimizer
from tfmlm.training.strategy import make_strategy, precision_policy


class StepClock(tf.keras.callbacks.Callback):
    """Notes when training began and when each step ended."""

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        self.times = [time.perf_counter()]

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        self.times.append(time.perf_counter())

    @property
    def seconds(self) -> float:
        """From the beginning to the last step's end."""
        return self.times[-1] - self.times[0]

    @property
    def step_seconds(self) -> float:
        """Median of a step; the first, which traces the graph, does not count."""
        return median(end - start for start, end in zip(self.times[1:], self.times[2:], strict=False))


def time_steps(side: str, folder: Path, size: Size) -> TimedSteps:
    """Trains one side, `ours`, `recipe` or `bfloat16` (ours too), for a few steps."""
    quieten_libraries()
    material = open_material(folder, size)
    clock = StepClock()
    model = _FIT[side](material, size, 1 + size.timed_steps, clock)
    num_tokens = size.tokens_per_step
    num_logits = count_slots(num_tokens, material.config.masking.rate) if side != "recipe" else num_tokens
    flops = count_step_flops(model.config, num_tokens, size.block_size, num_logits)
    peak = peak_gib()  # before the products below add to it
    width, inner = model.config.hidden_size, model.config.intermediate_size
    shapes = [(num_tokens, width, width), (num_tokens, width, inner), (num_tokens, inner, width)]
    return TimedSteps(clock.step_seconds, flops, peak, measure_matmul_rate(shapes, 0.3 * size.timed_steps))


def train_and_evaluate(side: str, folder: Path, size: Size) -> Trained:
    """Trains one side, `ours` or `recipe`; both are evaluated by the project, with the same masks."""
    quieten_libraries()
    material = open_material(folder, size)
    clock = StepClock()
    initial, _ = make_model(material.config, material.tokenizer)
    before = measure_perplexity(initial, material, size)
    model = _FIT[side](material, size, size.training_steps, clock)
    return Trained(before, measure_perplexity(model, material, size), clock.seconds)


def measure_perplexity(model: TFPreTrainedModel, material: Material, size: Size) -> float:
    """Token-weighted perplexity on the material's last blocks, which no side trains on."""
    num_blocks = len(material.blocks)
    validation = material.blocks.select(range(num_blocks - size.validation_blocks, num_blocks))
    evaluated = MaskedLanguageModel(model, material.config)
    evaluated.compile()
    batches = make_evaluation_batches(
        PackedBlocks(validation), _make_collator(material), size.blocks_per_step
    )
    return evaluate(evaluated, batches).perplexity


def fit_ours(
    material: Material, size: Size, num_steps: int, clock: StepClock, precision: str = "float32"
) -> TFPreTrainedModel:
    """Trains as `tfmlm train` does."""
    tf.keras.utils.set_random_seed(size.seed)
    config = replace(material.config, run=RunConfig(seed=size.seed))
    with make_strategy(config.distribute).scope(), precision_policy(precision):
        pretrained, _ = make_model(config, material.tokenizer)
        model = MaskedLanguageModel(pretrained, config)
        model.compile(make_optimizer(config.optimizer, num_steps))
    blocks = material.blocks.select(range(num_steps * size.blocks_per_step))
    batches = make_training_batches(
        PackedBlocks(blocks),
        _make_collator(material, size.seed),
        seed=size.seed,
        first_step=0,
        last_step=num_steps,
        global_batch_size=size.blocks_per_step,
    )
    model.fit(batches, callbacks=[clock], verbose=0)
    return pretrained


def fit_recipe(material: Material, size: Size, num_steps: int, clock: StepClock) -> TFPreTrainedModel:
    """Trains as the guide does, on the same blocks."""
    tf.keras.utils.set_random_seed(size.seed)
    blocks = material.blocks.select(range(num_steps * size.blocks_per_step))
    return recipe.fit(
        material.config.model.name_or_path,
        recipe.to_recipe_blocks(blocks),
        material.tokenizer,
        size.blocks_per_step,
        [clock],
    )


_FIT = {"ours": fit_ours, "recipe": fit_recipe, "bfloat16": partial(fit_ours, precision="bfloat16")}


def _make_collator(material: Material, seed: int = 0) -> MaskingCollator:
    vocabulary = MaskableVocabulary.from_tokenizer(material.tokenizer)
    return MaskingCollator(vocabulary, material.config.masking, seed)


def start_random_training(
    shape: PretrainedConfig, config: Config, num_steps: int
) -> tuple[MaskedLanguageModel, Callable[[], None]]:
    """A model with random weights, and a call that trains it for a step on random tokens, with dropout.

    Args:
        shape: of the model.
        config: batch, block size, and how the step is computed.
        num_steps: the schedule's end.
    """
    tf.keras.utils.set_random_seed(0)
    with precision_policy("float32"):
        model = MaskedLanguageModel(build_model(shape), config)
        model.compile(make_optimizer(config.optimizer, num_steps), jit_compile=config.train.xla)
    rng = np.random.default_rng(0)
    size = (config.train.per_replica_batch_size, config.data.block_size)
    ids = rng.integers(0, shape.vocab_size, size, np.int32)
    labels = np.where(rng.random(ids.shape) < config.masking.rate, ids, IGNORE_LABEL).astype(np.int32)
    batch = {"input_ids": ids, "attention_mask": np.ones_like(ids), "labels": labels}
    batches = iter(tf.data.Dataset.from_tensors(batch).repeat())
    train_function = model.make_train_function()

    def take_step() -> None:
        train_function(batches)["loss"].numpy()

    return model, take_step
