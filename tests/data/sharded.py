"""Prepared data, and folders of shards."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from transformers import PreTrainedTokenizerFast

from tests.tiny import SENTENCES, write_hub_folder
from tfmlm.cli.main import main
from tfmlm.config import Config, DataConfig, TokenizerConfig
from tfmlm.config.load import load_config
from tfmlm.data.blocks import Blocks
from tfmlm.data.packing import Columns
from tfmlm.data.prepare import PreparedData, prepare_data

CONFIG = """
run: {{name: small, output_dir: {folder}/run}}
data: {{source: text, train_files: [{folder}/texts.txt], block_size: 16, validation_fraction: 0.2}}
model: {{name_or_path: {folder}/model}}
train: {{max_steps: 2, per_replica_batch_size: 2}}
export: {{enabled: false}}
"""
SPLITS = ("train", "validation")


def fill_folder(folder: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    """A configuration, its texts and its model."""
    (folder / "texts.txt").write_text("\n".join(SENTENCES))
    (folder / "config.yaml").write_text(CONFIG.format(folder=folder))
    write_hub_folder(folder / "model", tokenizer)
    return folder


def prepare(folder: Path, *arguments: str, blocks_per_shard: int = 64) -> int:
    flags = ["--output", str(folder / "shards"), "--blocks-per-shard", str(blocks_per_shard)]
    return main(["prepare", str(folder / "config.yaml"), *arguments, *flags])


def open_data(folder: Path, *overrides: str, source: str | None = None) -> PreparedData:
    config = load_config(folder / "config.yaml", list(overrides))
    return prepare_data(replace(config, data=replace(config.data, source=source or config.data.source)))


def read(blocks: Blocks) -> dict[str, list]:
    chunks = list(blocks.read_in_order().as_numpy_iterator())
    return {name: np.concatenate([chunk[name] for chunk in chunks]).tolist() for name in chunks[0]}


def assert_one_line(exit_code: int, message: str, capfd: pytest.CaptureFixture[str]) -> None:
    error = capfd.readouterr().err
    assert exit_code == 2
    assert re.search(message, error.splitlines()[-1]), error
    assert error.count("tfmlm: ") == 1
    assert "Traceback" not in error


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


def read_columns(dataset: tf.data.Dataset, num_blocks: int | None = None) -> Columns:
    return {name: column[:num_blocks] for name, column in join(list(dataset.as_numpy_iterator())).items()}
