"""What `MaskingCollator` promises, one token at a time."""

import numpy as np

from tests.data.masking_blocks import Arrays
from tfmlm.data.masking import IGNORE_LABEL, MaskingCollator


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
