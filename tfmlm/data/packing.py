"""Tokenizes texts and packs the token stream into blocks of one length, losing no token.

The stream is concatenated over all texts, cut every `block_size` tokens, and carried from batch to batch, so
only the very last block can be short; it is padded. Everything moves as NumPy and Arrow buffers.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from datasets import Dataset
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer
from transformers import PreTrainedTokenizerFast

from tfmlm.data.columns import TEXT

_TEXTS_A_BATCH = 1000
"""As many as the Hugging Face guide gives `map`: enough to keep the tokenizer's threads busy."""


class TokenStream(NamedTuple):
    """Tokens of consecutive texts, end to end.

    Attributes:
        token_ids: int32 [T].
        is_special: bool [T], true for the tokens that the tokenizer added at a text's borders.
        starts_word: bool [T], false for a token that continues the word before it; only for whole words.
    """

    token_ids: NDArray[np.int32]
    is_special: NDArray[np.bool_]
    starts_word: NDArray[np.bool_] | None = None


class StreamTokenizer:
    """Tokenizes batches of texts into one flat stream, special tokens included.

    A text that happens to spell a special token, such as `[SEP]`, is text: only what the tokenizer itself
    adds is marked special.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, with_words: bool = False) -> None:
        self._with_words = with_words
        # A copy, because truncation and padding that came with the tokenizer would cut long texts.
        self._backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self._backend.no_truncation()
        self._backend.no_padding()
        added = self._backend.encode("a").special_tokens_mask
        # The fast way to encode leaves out the words' numbers.
        self._encode = self._backend.encode_batch if with_words else self._backend.encode_batch_fast
        self._num_leading = added.index(0)
        self._num_trailing = added[::-1].index(0)

    def __call__(self, texts: list[str]) -> TokenStream:
        """Tokenizes `texts` in order."""
        encodings = self._encode(texts)
        lengths = np.fromiter(map(len, encodings), np.int64, count=len(encodings))
        token_ids = np.fromiter(
            chain.from_iterable(encoding.ids for encoding in encodings),
            np.int32,
            count=lengths.sum(),
        )
        ends = lengths.cumsum()
        is_special = np.zeros(len(token_ids), np.bool_)
        for offset in range(self._num_leading):
            is_special[ends - lengths + offset] = True
        for offset in range(self._num_trailing):
            is_special[ends - 1 - offset] = True
        if not self._with_words:
            return TokenStream(token_ids, is_special)
        return TokenStream(token_ids, is_special, _find_word_starts(encodings, lengths))


def _find_word_starts(encodings: list[Encoding], lengths: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Where the tokenizer's own word number changes; special tokens, which have none, stand alone."""
    word_ids = np.fromiter(
        (-1 if word is None else word for encoding in encodings for word in encoding.word_ids),
        np.int32,
        count=lengths.sum(),
    )
    starts_word = np.ones(len(word_ids), np.bool_)
    starts_word[1:] = (word_ids[1:] != word_ids[:-1]) | (word_ids[1:] == -1)
    starts_word[(lengths.cumsum() - lengths)[lengths > 0]] = True  # each text begins at word 0 again
    return starts_word


def pack_texts(
    texts: Dataset,
    tokenizer: PreTrainedTokenizerFast,
    block_size: int,
    path: Path,
    with_words: bool = False,
) -> None:
    """Packs a dataset of texts into an Arrow file of blocks, which `Dataset.from_file` maps into memory.

    Args:
        texts: one string column, `text`.
        tokenizer: a fast tokenizer.
        block_size: L, tokens in a block.
        path: where the file is written. Its columns: `input_ids` int32 [L], `special_tokens_mask` bool
            [L], `num_tokens` int32 (tokens before the padding), `example_id` int64 (the block's index).
        with_words: add the column `starts_word` bool [L], which whole-word masking needs.
    """
    schema = _make_schema(block_size, with_words)
    batches = (batch[TEXT] for batch in texts.iter(_TEXTS_A_BATCH))
    streams = map(StreamTokenizer(tokenizer, with_words), batches)
    num_blocks = 0
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for blocks, num_tokens in cut_blocks(streams, block_size, tokenizer.pad_token_id):
            lists = [
                pa.FixedSizeListArray.from_arrays(column, block_size)
                for column in blocks
                if column is not None
            ]
            example_ids = np.arange(num_blocks, num_blocks + len(num_tokens))
            writer.write_batch(pa.record_batch([*lists, num_tokens, example_ids], schema=schema))
            num_blocks += len(num_tokens)


def _make_schema(block_size: int, with_words: bool) -> pa.Schema:
    lists = {"input_ids": pa.int32(), "special_tokens_mask": pa.bool_()}
    if with_words:
        lists["starts_word"] = pa.bool_()
    columns = {name: pa.list_(dtype, block_size) for name, dtype in lists.items()}
    return pa.schema(columns | {"num_tokens": pa.int32(), "example_id": pa.int64()})


def cut_blocks(
    streams: Iterator[TokenStream], block_size: int, pad_token_id: int
) -> Iterator[tuple[TokenStream, NDArray[np.int32]]]:
    """Cuts a stream that arrives in pieces into whole blocks, and pads the last one.

    Yields:
        A stream of n * block_size tokens, and int32 [n], how many of each block's tokens are not padding.
    """
    carried: TokenStream | None = None
    for stream in streams:
        joined = _concatenate(carried, stream) if carried else stream
        whole = len(joined.token_ids) // block_size * block_size
        if whole:
            yield (
                _slice(joined, slice(None, whole)),
                np.full(whole // block_size, block_size, np.int32),
            )
        carried = _slice(joined, slice(whole, None))
    if carried and len(carried.token_ids):
        num_left = len(carried.token_ids)
        alone = np.ones(block_size - num_left, np.bool_)
        padding = TokenStream(np.full(len(alone), pad_token_id, np.int32), alone, alone)
        yield _concatenate(carried, padding), np.array([num_left], np.int32)


def _concatenate(first: TokenStream, second: TokenStream) -> TokenStream:
    has_words = first.starts_word is not None and second.starts_word is not None
    return TokenStream(
        np.concatenate([first.token_ids, second.token_ids]),
        np.concatenate([first.is_special, second.is_special]),
        np.concatenate([first.starts_word, second.starts_word]) if has_words else None,
    )


def _slice(stream: TokenStream, part: slice) -> TokenStream:
    starts_word = None if stream.starts_word is None else stream.starts_word[part]
    return TokenStream(stream.token_ids[part], stream.is_special[part], starts_word)
