"""A small vocabulary, blocks of it, and what a collator makes of them."""

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tfmlm.config import MaskingConfig
from tfmlm.data.masking import MaskableVocabulary, MaskingCollator

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
