"""Streams of tokens, blocks of them, and masking in plain NumPy."""

from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from tfmlm.config import MaskingConfig
from tfmlm.data.blocks import PackedBlocks, open_blocks, write_blocks
from tfmlm.data.masking import IGNORE_LABEL, MaskableVocabulary, MaskingCollator
from tfmlm.data.packing import BlockFormat, TokenStream, pack_texts


def pack(
    texts: list[str],
    tokenizer: PreTrainedTokenizerFast,
    block_size: int,
    path: Path,
    with_words: bool = False,
) -> PackedBlocks:
    block_format = BlockFormat(
        block_size, tokenizer.pad_token_id, with_words, unk_token_id=tokenizer.unk_token_id
    )
    write_blocks(pack_texts([texts], tokenizer, block_format), path)
    return open_blocks(path)


DOCSTRINGS = sorted({doc for value in vars(np).values() if isinstance(doc := value.__doc__, str)})
"""Several hundred real texts, with tables, code, odd white space and a few letters that are not ASCII."""

ODD = ["", " ", "  a  b\n\n\tc ", "\u00e9\u0301\u200b", "\N{GRINNING FACE}\ufe0f", "\x00", "\u4e2d\u6587 a"]


def encode_one_by_one(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> TokenStream:
    """What transformers itself says about each text of which tokens are left, end to end."""
    encodings = [tokenizer(text, return_special_tokens_mask=True) for text in texts]
    encodings = [encoding for encoding in encodings if 0 in encoding["special_tokens_mask"]]
    return TokenStream(
        np.array([token for encoding in encodings for token in encoding["input_ids"]], np.int32),
        np.array([token for encoding in encodings for token in encoding["special_tokens_mask"]], np.bool_),
    )


PAD, UNK, CLS, SEP, MASK = range(5)
VOCABULARY = MaskableVocabulary(
    mask_token_id=MASK,
    protected_ids=np.array([PAD, CLS, SEP, MASK], np.int32),
    random_ids=np.arange(5, 37, dtype=np.int32),
)

Arrays = dict[str, NDArray]


def make_collator(
    rate: float = 0.15, mask_fraction: float = 0.8, random_fraction: float = 0.1, seed: int = 0
) -> MaskingCollator:
    return MaskingCollator(VOCABULARY, MaskingConfig(rate, mask_fraction, random_fraction), seed)


def make_blocks(token_ids: NDArray, example_ids: NDArray | None = None) -> Arrays:
    """Full blocks without special tokens."""
    num_rows, length = token_ids.shape
    return {
        "input_ids": token_ids.astype(np.int32),
        "special_tokens_mask": np.zeros((num_rows, length), np.bool_),
        "num_tokens": np.full(num_rows, length, np.int32),
        "example_id": np.arange(num_rows) if example_ids is None else np.asarray(example_ids, np.int64),
    }


def apply_collator(collator: MaskingCollator, blocks: Arrays, epoch: int | list[int] = 0) -> Arrays:
    tensors = {name: tf.constant(column) for name, column in blocks.items()}
    masked = collator(tensors, tf.constant(epoch, tf.int64))
    return {name: column.numpy() for name, column in masked.items()}


def mix(value: np.uint64) -> np.uint64:
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def unit(bits: np.uint64) -> np.float32:
    return np.float32(int(bits) >> 40) / np.float32(2**24)


@np.errstate(over="ignore")
def mask_slowly(collator: MaskingCollator, blocks: Arrays, epochs: list[int]) -> Arrays:
    """What `MaskingCollator` promises, one token at a time."""
    masking, vocabulary = collator.masking, collator.vocabulary
    masked = {
        "input_ids": blocks["input_ids"].copy(),
        "attention_mask": np.zeros_like(blocks["input_ids"]),
        "labels": np.full_like(blocks["input_ids"], IGNORE_LABEL),
    }
    for row, token_ids in enumerate(blocks["input_ids"]):
        epoch_key = mix(mix(np.uint64(collator.seed % 2**64)) + np.uint64(epochs[row]))
        row_key = mix(epoch_key + np.uint64(blocks["example_id"][row]))
        for position, token_id in enumerate(token_ids):
            if position >= blocks["num_tokens"][row]:
                continue
            masked["attention_mask"][row, position] = 1
            if blocks["special_tokens_mask"][row, position] or token_id in vocabulary.protected_ids:
                continue
            choice = mix(row_key + np.uint64(position) * np.uint64(0x9E3779B97F4A7C15))
            if not unit(choice) < np.float32(masking.rate):
                continue
            masked["labels"][row, position] = token_id
            action = mix(choice ^ np.uint64(0x5851F42D4C957F2D))
            if unit(action) < np.float32(masking.mask_fraction):
                masked["input_ids"][row, position] = vocabulary.mask_token_id
            elif unit(action) < np.float32(masking.mask_fraction + masking.random_fraction):
                draw = (int(action) & 0xFFFFFFFF) * len(vocabulary.random_ids) >> 32
                masked["input_ids"][row, position] = vocabulary.random_ids[draw]
    return masked
