"""The peer: the TensorFlow half of the Hugging Face masked-language-modelling guide, written as it tells.

https://huggingface.co/docs/transformers/v4.52.3/en/tasks/masked_language_modeling. What is slow here is the
guide's: nothing was made slower, and nothing faster.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow as tf
from datasets import Dataset, Features, Sequence, Value
from transformers import (
    AdamWeightDecay,
    DataCollatorForLanguageModeling,
    PreTrainedTokenizerFast,
    TFAutoModelForMaskedLM,
    TFPreTrainedModel,
)

Columns = dict[str, list[Any]]


def map_and_group(texts: Dataset, tokenizer: PreTrainedTokenizerFast, block_size: int) -> Dataset:
    """Tokenizes lists of strings and groups the tokens into blocks: two batched `map` calls.

    Args:
        texts: one column, `answers.text`, of lists of strings.
        tokenizer: a fast tokenizer.
        block_size: tokens in a block.

    Returns:
        The tokenizer's columns, a block a row.
    """

    def preprocess(examples: Columns) -> Columns:
        return tokenizer([" ".join(parts) for parts in examples["answers.text"]])

    def group_texts(examples: Columns) -> Columns:
        # Adding lists up copies them again and again; the guide does it so.
        joined = {name: sum(rows, []) for name, rows in examples.items()}  # noqa: RUF017
        length = len(joined["input_ids"])
        if length >= block_size:
            length = length // block_size * block_size
        return {
            name: [tokens[start : start + block_size] for start in range(0, length, block_size)]
            for name, tokens in joined.items()
        }

    tokenized = texts.map(preprocess, batched=True, remove_columns=texts.column_names)
    return tokenized.map(group_texts, batched=True)


def to_recipe_blocks(blocks: Dataset) -> Dataset:
    """The project's blocks with the columns and types that `map_and_group` gives a BERT tokenizer's."""
    token_ids = blocks.with_format("numpy")[:]["input_ids"]
    features = Features(
        {
            "input_ids": Sequence(Value("int32")),
            "token_type_ids": Sequence(Value("int8")),
            "attention_mask": Sequence(Value("int8")),
        }
    )
    columns = {"input_ids": token_ids, "token_type_ids": token_ids * 0, "attention_mask": token_ids * 0 + 1}
    return Dataset.from_dict(
        {name: list(column.astype(features[name].feature.dtype)) for name, column in columns.items()},
        features=features,
    )


def make_batches(
    model: TFPreTrainedModel, blocks: Dataset, tokenizer: PreTrainedTokenizerFast, blocks_per_step: int
) -> tf.data.Dataset:
    """Shuffled batches, masked by the stock collator."""
    collator = DataCollatorForLanguageModeling(tokenizer=tokenizer, mlm_probability=0.15, return_tensors="tf")
    return model.prepare_tf_dataset(blocks, shuffle=True, batch_size=blocks_per_step, collate_fn=collator)


def fit(
    model_dir: str | Path,
    blocks: Dataset,
    tokenizer: PreTrainedTokenizerFast,
    blocks_per_step: int,
    callbacks: list[tf.keras.callbacks.Callback],
) -> TFPreTrainedModel:
    """Trains for one epoch and returns the model."""
    model = TFAutoModelForMaskedLM.from_pretrained(model_dir)
    batches = make_batches(model, blocks, tokenizer, blocks_per_step)
    model.compile(optimizer=AdamWeightDecay(learning_rate=2e-5, weight_decay_rate=0.01))
    model.fit(batches, epochs=1, callbacks=callbacks, verbose=0)
    return model
