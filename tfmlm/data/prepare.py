"""The data stage as a whole: from the configuration to a tokenizer and two sets of blocks."""

from __future__ import annotations

from typing import NamedTuple

import xxhash
from datasets import Dataset
from transformers import PreTrainedTokenizerFast

from tfmlm.config import Config
from tfmlm.data.cache import make_once
from tfmlm.data.columns import TEXT
from tfmlm.data.packing import pack_texts
from tfmlm.data.sources import load_texts
from tfmlm.data.tokenizer_training import train_tokenizer
from tfmlm.data.tokenizers import load_tokenizer
from tfmlm.locations import resolve_name_or_path

_CACHE_FORMAT = 3
"""Counted up when training a tokenizer or packing changes, so that no older file is read."""


class PreparedData(NamedTuple):
    """What training and evaluation need of the data.

    Attributes:
        tokenizer: a fast tokenizer with a mask token.
        train: blocks to train on, see `pack_texts`.
        validation: held-out blocks.
    """

    tokenizer: PreTrainedTokenizerFast
    train: Dataset
    validation: Dataset


def prepare_data(config: Config) -> PreparedData:
    """Loads the texts, loads or trains the tokenizer, and packs blocks, cached by their fingerprint.

    Raises:
        UserError: the source or the tokenizer is wrong.
    """
    texts = load_texts(config.data, config.run.seed)
    tokenizer = make_tokenizer(config, texts.train)
    train, validation = (_pack_once(part, tokenizer, config) for part in (texts.train, texts.validation))
    return PreparedData(tokenizer, train, validation)


def make_tokenizer(config: Config, texts: Dataset) -> PreTrainedTokenizerFast:
    """Trains the tokenizer once, or loads the configured one, or else the model's own."""
    if config.tokenizer.train_vocab_size:
        fingerprint = _fingerprint(texts, str(config.tokenizer))
        folder = make_once(
            f"tokenizer-{fingerprint}",
            lambda unfinished: train_tokenizer(texts, config.tokenizer).save_pretrained(unfinished),
        )
        return load_tokenizer(folder)
    if config.tokenizer.name_or_path:
        return load_tokenizer(resolve_name_or_path(config.tokenizer.name_or_path, "tokenizer.name_or_path"))
    return load_tokenizer(resolve_name_or_path(config.model.name_or_path or "", "model.name_or_path"))


def _pack_once(texts: Dataset, tokenizer: PreTrainedTokenizerFast, config: Config) -> Dataset:
    block_size, with_words = config.data.block_size, config.masking.whole_word
    settings = f"{block_size} {with_words} {tokenizer.pad_token_id}"
    fingerprint = _fingerprint(texts, settings, tokenizer.backend_tokenizer.to_str())
    path = make_once(
        f"blocks-{fingerprint}.arrow",
        lambda unfinished: pack_texts(texts, tokenizer, block_size, unfinished, with_words),
    )
    blocks = Dataset.from_file(str(path))
    return _drop_short_block(blocks, block_size) if config.data.drop_remainder else blocks


def _drop_short_block(blocks: Dataset, block_size: int) -> Dataset:
    """Only the last block can be short. The only block stays, short as it is."""
    is_short = len(blocks) > 1 and blocks[-1]["num_tokens"] < block_size
    return blocks.select(range(len(blocks) - 1)) if is_short else blocks


def _fingerprint(texts: Dataset, *settings: str) -> str:
    """A hash of every text and of the settings."""
    fingerprint = xxhash.xxh3_128("\0".join((str(_CACHE_FORMAT), *settings)).encode())
    for batch in texts.iter(1000):
        # The lengths say where each text ends, which the characters alone do not.
        fingerprint.update(f"{[len(text) for text in batch[TEXT]]}".encode())
        fingerprint.update("".join(batch[TEXT]).encode())
    return fingerprint.hexdigest()
