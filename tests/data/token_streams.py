"""Texts of all kinds, and the stream that transformers itself makes of them."""

import numpy as np
from transformers import PreTrainedTokenizerFast

from tfmlm.data.packing import TokenStream

DOCSTRINGS = sorted({doc for value in vars(np).values() if isinstance(doc := value.__doc__, str)})
"""Several hundred real texts, with tables, code, odd white space and a few letters that are not ASCII."""

ODD = ["", " ", "  a  b\n\n\tc ", "\u00e9\u0301\u200b", "\N{GRINNING FACE}\ufe0f", "\x00", "\u4e2d\u6587 a"]


def encode_one_by_one(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> TokenStream:
    """What transformers itself says about each text, end to end."""
    encodings = [tokenizer(text, return_special_tokens_mask=True) for text in texts]
    return TokenStream(
        np.array([token for encoding in encodings for token in encoding["input_ids"]], np.int32),
        np.array([token for encoding in encodings for token in encoding["special_tokens_mask"]], np.bool_),
    )
