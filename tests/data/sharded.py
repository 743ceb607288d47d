"""Texts to be written as shards of small blocks, and blocks read back."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import tensorflow as tf
from transformers import PreTrainedTokenizerFast

from tests.tiny import SENTENCES
from tfmlm.config import Config, DataConfig, TokenizerConfig
from tfmlm.data.packing import Columns

BLOCK_SIZE = 8


def write_source(folder: Path, tokenizer: PreTrainedTokenizerFast) -> Config:
    """A small source of texts."""
    tokenizer.save_pretrained(folder / "tokenizer")
    (folder / "texts.txt").write_text("\n".join(SENTENCES))
    return Config(
        data=DataConfig(
            source="text",
            train_files=[str(folder / "texts.txt")],
            block_size=BLOCK_SIZE,
            validation_fraction=0.2,
        ),
        tokenizer=TokenizerConfig(name_or_path=str(folder / "tokenizer")),
    )


def of_shards(config: Config, folder: Path | str) -> Config:
    return replace(config, data=replace(config.data, source=str(folder)))


def join(chunks: list[Columns]) -> Columns:
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


def read(dataset: tf.data.Dataset, num_blocks: int | None = None) -> Columns:
    return {name: column[:num_blocks] for name, column in join(list(dataset.as_numpy_iterator())).items()}
