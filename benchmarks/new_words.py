"""Row: held-out perplexity per character after the same steps, with new words and without."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from transformers import PreTrainedTokenizerFast, TFPreTrainedModel

from benchmarks.material import TEXT, open_material
from benchmarks.measure import Row, Size, alternate_alone, show
from tfmlm.config import Config, MaskingConfig, ModelConfig, OptimizerConfig, TokenizerConfig
from tfmlm.data.blocks import PackedBlocks, open_blocks, write_blocks
from tfmlm.data.characters import count_characters
from tfmlm.data.masking import IGNORE_LABEL, MaskableVocabulary, MaskingCollator
from tfmlm.data.new_words import extend_tokenizer
from tfmlm.data.packing import BlockFormat, pack_texts
from tfmlm.data.pipeline import make_evaluation_batches, make_training_batches
from tfmlm.data.splitting import TextSplit
from tfmlm.data.tokenizers import count_ids
from tfmlm.library_logging import quieten_libraries
from tfmlm.training.evaluate import evaluate
from tfmlm.training.masked_lm import MaskedLanguageModel
from tfmlm.training.model import make_model
from tfmlm.training.optimizer import make_optimizer
from tfmlm.training.strategy import precision_policy

_HELD_OUT = TextSplit(seed=0, held_out_below=2**64 // 20)

_OPTIMIZER = OptimizerConfig(learning_rate=5e-4, warmup_ratio=0.1)
"""Of the quickstart: the material's rate is too low to see a difference after few steps."""


class Side(NamedTuple):
    """One vocabulary after training.

    Attributes:
        per_character: held-out perplexity per character.
        initial: the same before training.
        tokens: of the held-out text.
    """

    per_character: float
    initial: float
    tokens: int


def measure(folder: Path, size: Size) -> Row:
    """Ours: new words whose rows start as the mean of their pieces'. The peer: the vocabulary as it is.

    All learn for the same steps of the same number of tokens. Whole words are masked, so that the same words
    are hidden whatever the vocabulary.
    """
    sides = {side: ("benchmarks.new_words:train", side, folder, size) for side in ("mean", "none", "random")}
    mean, none, random = (of_side[0] for of_side in alternate_alone(sides, num_repeats=1).values())
    return Row(
        unit="ppl/char",
        ours=[mean.per_character],
        peer=[none.per_character],
        higher_is_better=False,
        notes=[
            f"{size.num_new_words} new words, {size.new_word_steps} steps each; the peer is without them",
            f"resize_token_embeddings, random rows: {show(random.per_character)}",
            f"before training {show(mean.initial)}, without new words {show(none.initial)}",
            f"and with random rows {show(random.initial)}",
            f"{mean.tokens:,} tokens of held-out text, without new words {none.tokens:,}",
        ],
    )


def train(side: str, folder: Path, size: Size) -> Side:
    """Trains with new words whose rows are a `mean` or `random`, or with `none`."""
    quieten_libraries()
    tf.keras.utils.set_random_seed(size.seed)
    material = open_material(folder, size)
    texts = list(material.texts[TEXT])
    training, held_out = _HELD_OUT.choose_training(texts), _HELD_OUT.choose_held_out(texts)
    original = material.tokenizer
    tokenizer = original if side == "none" else extend_tokenizer(original, [], size.num_new_words, [training])
    config = replace(
        material.config,
        model=ModelConfig(material.config.model.name_or_path, {"num_hidden_layers": size.new_word_layers}),
        tokenizer=TokenizerConfig(extend_from_text=size.num_new_words if side == "mean" else None),
        masking=MaskingConfig(whole_word=True),
        optimizer=_OPTIMIZER,
    )
    with precision_policy("float32"):
        pretrained, _ = make_model(config, original if side == "random" else tokenizer)
        if side == "random":
            pretrained.resize_token_embeddings(count_ids(tokenizer))
        model = _compile(pretrained, config, size)
    validation = _Validation.of(held_out, tokenizer, config, size, folder / f"held_out_{side}.arrow")
    initial = validation.measure(model)
    num_blocks = size.new_word_steps * size.blocks_per_step
    blocks = _pack(training, tokenizer, size, folder / f"training_{side}.arrow")
    batches = make_training_batches(
        PackedBlocks(blocks.table.select(range(min(num_blocks, len(blocks.table))))),
        MaskingCollator(MaskableVocabulary.from_tokenizer(tokenizer), config.masking, size.seed),
        seed=size.seed,
        first_step=0,
        last_step=size.new_word_steps,
        global_batch_size=size.blocks_per_step,
    )
    model.fit(batches, verbose=0)
    return Side(validation.measure(model), initial, validation.num_tokens)


def _compile(pretrained: TFPreTrainedModel, config: Config, size: Size) -> MaskedLanguageModel:
    model = MaskedLanguageModel(pretrained, config)
    model.compile(make_optimizer(config.optimizer, size.new_word_steps, pretrained.trainable_variables))
    return model


def _pack(texts: list[str], tokenizer: PreTrainedTokenizerFast, size: Size, path: Path) -> PackedBlocks:
    block_format = BlockFormat(size.block_size, tokenizer.pad_token_id, with_words=True)
    write_blocks(pack_texts([texts], tokenizer, block_format), path)
    return open_blocks(path)


class _Validation(NamedTuple):
    """Held-out text under one vocabulary.

    Attributes:
        batches: masked.
        num_tokens: all of them.
        characters_a_token: mean of the masked ones.
    """

    batches: tf.data.Dataset
    num_tokens: int
    characters_a_token: float

    @classmethod
    def of(
        cls, texts: list[str], tokenizer: PreTrainedTokenizerFast, config: Config, size: Size, path: Path
    ) -> _Validation:
        blocks = _pack(texts, tokenizer, size, path)
        collator = MaskingCollator(MaskableVocabulary.from_tokenizer(tokenizer), config.masking, 0)
        batches = make_evaluation_batches(blocks, collator, size.blocks_per_step)
        labels = np.concatenate([batch["labels"].reshape(-1) for batch in batches.as_numpy_iterator()])
        characters = count_characters(tokenizer)
        assert characters is not None
        masked = labels[labels != IGNORE_LABEL]
        return cls(batches, blocks.count_texts().num_text_tokens, characters[masked].mean())

    def measure(self, model: MaskedLanguageModel) -> float:
        """Perplexity per character."""
        return math.exp(evaluate(model, self.batches).loss / self.characters_a_token)
