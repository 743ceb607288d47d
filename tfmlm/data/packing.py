"""Tokenizes texts and packs the token stream into blocks of one length, losing no token.

The stream is concatenated over all texts, cut every `block_size` tokens, and carried from batch to batch, so
only the very last block can be short; it is padded. Everything moves as NumPy buffers. On the way it is
counted what the tokenizer does not know.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer
from transformers import PreTrainedTokenizerFast

from tfmlm.errors import UserError

Columns = dict[str, NDArray[Any]]
"""Blocks by column, see `pack_texts`."""

NO_TOKENS = "the tokenizer makes no token of these texts; check the text and the tokenizer"
"""The message where there is not one block."""


LONGEST_WORD = 8
"""Tokens of the longest word that is masked whole. What is longer is no word but text without spaces, such as
Chinese under a tokenizer that splits at spaces, or a hash: each of its tokens stands for itself."""


class TokenStream(NamedTuple):
    """Tokens of consecutive texts, end to end.

    Attributes:
        token_ids: int32 [T].
        is_special: bool [T], true for the tokens that the tokenizer added at a text's borders.
        starts_word: bool [T], false for a token that continues the word before it; only for whole words.
            See `LONGEST_WORD`.
    """

    token_ids: NDArray[np.int32]
    is_special: NDArray[np.bool_]
    starts_word: NDArray[np.bool_] | None = None


class StreamTokenizer:
    """Tokenizes batches of texts into one flat stream, special tokens included.

    A text that happens to spell a special token, such as `[SEP]`, is text: only what the tokenizer itself
    adds is marked special. A text that makes no token, such as one of zero-width characters, is left out.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        with_words: bool = False,
        longest_word: int | None = LONGEST_WORD,
    ) -> None:
        self._with_words = with_words
        self._longest_word = longest_word
        # A copy, because truncation and padding that came with the tokenizer would cut long texts.
        self._backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self._backend.no_truncation()
        self._backend.no_padding()
        # The fast way to encode leaves out the words' numbers.
        self._encode = self._backend.encode_batch if with_words else self._backend.encode_batch_fast
        self._num_leading, self._num_trailing = _count_added(self._backend)

    def __call__(self, texts: list[str]) -> TokenStream:
        """Tokenizes `texts` in order."""
        num_added = self._num_leading + self._num_trailing
        encodings = [encoding for encoding in self._encode(texts) if len(encoding) > num_added]
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
        starts_word = _find_word_starts(encodings, lengths)
        if self._longest_word is not None:
            starts_word = _split_long_words(starts_word, self._longest_word)
        return TokenStream(token_ids, is_special, starts_word)


def _count_added(backend: Tokenizer) -> tuple[int, int]:
    """How many special tokens the tokenizer adds before and after a text.

    Any text with a token tells; a small vocabulary may have no letter `a`, so its own words come after it.

    Raises:
        UserError: no text makes a token.
    """
    for text in chain("a", backend.get_vocab()):
        added = backend.encode(text).special_tokens_mask
        if 0 in added:
            return added.index(0), added[::-1].index(0)
    raise UserError(NO_TOKENS)


def _find_word_starts(encodings: list[Encoding], lengths: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Where the tokenizer's own word number changes; special tokens, which have none, stand alone."""
    word_ids = np.fromiter(
        (-1 if word is None else word for encoding in encodings for word in encoding.word_ids),
        np.int32,
        count=lengths.sum(),
    )
    starts_word = np.ones(len(word_ids), np.bool_)
    starts_word[1:] = (word_ids[1:] != word_ids[:-1]) | (word_ids[1:] == -1)
    starts_word[lengths.cumsum() - lengths] = True  # each text begins at word 0 again
    return starts_word


def _split_long_words(starts_word: NDArray[np.bool_], longest: int) -> NDArray[np.bool_]:
    """Every token of a word of more than `longest` tokens becomes one of its own."""
    starts = np.flatnonzero(starts_word)
    lengths = np.diff(starts, append=len(starts_word))
    return starts_word | np.repeat(lengths > longest, lengths)


class BlockFormat(NamedTuple):
    """The form of blocks.

    Attributes:
        block_size: L, tokens in a block.
        pad_token_id: fills up the last block.
        with_words: add the column `starts_word`, which whole-word masking needs.
        drop_remainder: leave out the last block if it is short and not the only one.
        unk_token_id: stands for what the tokenizer does not know; None if it knows everything.
    """

    block_size: int
    pad_token_id: int
    with_words: bool = False
    drop_remainder: bool = False
    unk_token_id: int | None = None


def pack_texts(
    texts: Iterable[list[str]], tokenizer: PreTrainedTokenizerFast, block_format: BlockFormat
) -> Iterator[Columns]:
    """Tokenizes batches of texts and packs them into blocks.

    Yields:
        Columns of n blocks, n differing: `input_ids` int32 [n, L], `special_tokens_mask` bool [n, L],
        `num_tokens` int32 [n] (tokens before the padding), `example_id` int64 [n] (the block's index),
        `num_text_tokens` int32 [n] (those that are not special) and `num_unknown` int32 [n] (those of them
        that the tokenizer does not know); with words also `starts_word` bool [n, L].
    """
    return make_blocks(map(StreamTokenizer(tokenizer, block_format.with_words), texts), block_format)


def make_blocks(
    streams: Iterable[TokenStream], block_format: BlockFormat, first_id: int = 0
) -> Iterator[Columns]:
    """`pack_texts` after the tokenizer; `first_id` is the first block's index."""
    for stream, num_tokens in cut_blocks(streams, block_format.block_size, block_format.pad_token_id):
        example_ids = np.arange(first_id, first_id + len(num_tokens))
        first_id += len(num_tokens)
        token_ids = stream.token_ids.reshape(-1, block_format.block_size)
        is_special = stream.is_special.reshape(-1, block_format.block_size)
        is_unknown = ~is_special & (token_ids == block_format.unk_token_id)
        columns: Columns = {
            "input_ids": token_ids,
            "special_tokens_mask": is_special,
            "num_tokens": num_tokens,
            "example_id": example_ids,
            "num_text_tokens": (~is_special).sum(axis=1, dtype=np.int32),
            "num_unknown": is_unknown.sum(axis=1, dtype=np.int32),
        }
        if stream.starts_word is not None:
            columns["starts_word"] = stream.starts_word.reshape(-1, block_format.block_size)
        is_dropped = num_tokens[-1] < block_format.block_size and example_ids[-1] > 0
        if not (block_format.drop_remainder and is_dropped):  # a short block comes alone
            yield columns


def cut_blocks(
    streams: Iterable[TokenStream], block_size: int, pad_token_id: int
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
                slice_stream(joined, slice(None, whole)),
                np.full(whole // block_size, block_size, np.int32),
            )
        carried = slice_stream(joined, slice(whole, None))
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


def slice_stream(stream: TokenStream, part: slice) -> TokenStream:
    """A part of a stream."""
    starts_word = None if stream.starts_word is None else stream.starts_word[part]
    return TokenStream(stream.token_ids[part], stream.is_special[part], starts_word)
