"""How many characters of a text each token stands for, so that vocabularies can be compared."""

from __future__ import annotations

import json

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast
from transformers.models.gpt2.tokenization_gpt2 import bytes_to_unicode

from tfmlm.data.tokenizers import count_ids

_SPACE = "▁"
_CONTINUES = "##"
_BYTES = {letter: byte for byte, letter in bytes_to_unicode().items()}


def count_characters(tokenizer: PreTrainedTokenizerFast) -> NDArray[np.int64] | None:
    """Characters of the normalized text, white space left out, that each token stands for.

    So a text has as many however a vocabulary cuts it. What is unknown counts as one character, because
    nothing tells how many it is; special tokens count none.

    Returns:
        int64 [V]; None for a tokenizer of another kind than WordPiece, byte-level BPE and unigram.
    """
    described = json.loads(tokenizer.backend_tokenizer.to_str())
    model = described["model"]
    is_bytes = "ByteLevel" in json.dumps(described["pre_tokenizer"])
    if model["type"] not in ("BPE", "Unigram", "WordPiece") or model.get("byte_fallback"):
        return None
    if (model["type"] == "BPE") != is_bytes:
        return None
    counts = np.zeros(count_ids(tokenizer), np.int64)
    added = tokenizer.get_added_vocab()
    for token, token_id in tokenizer.get_vocab().items():
        if token in added:
            counts[token_id] = len("".join(token.split()))
        elif is_bytes:
            counts[token_id] = sum(map(_begins_character, token))
        else:
            counts[token_id] = len(token.removeprefix(_CONTINUES).replace(_SPACE, ""))
    counts[tokenizer.all_special_ids] = 0
    if tokenizer.unk_token_id is not None:
        counts[tokenizer.unk_token_id] = 1
    return counts


def _begins_character(letter: str) -> bool:
    """True for the first byte of a character in UTF-8 that is not ASCII's white space."""
    byte = _BYTES.get(letter, 0x80)
    return byte & 0xC0 != 0x80 and not bytes([byte]).isspace()
