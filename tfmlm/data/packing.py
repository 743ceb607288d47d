"""Tokenizes texts and packs the token stream into blocks of one length, losing no token.

The stream is concatenated over all texts, cut every `block_size` tokens, and carried from batch to batch, so
only the very last block can be short; it is padded. Without packing, each text is padded first, so that the
same cuts give a block to each. Everything moves as NumPy buffers. On the way it is counted what the tokenizer
does not know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from enum import IntEnum
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer
from transformers import PreTrainedTokenizerFast

from tfmlm.errors import UserError, first_line

Columns = dict[str, NDArray[Any]]
"""Blocks by column, see `pack_texts`."""

NO_TOKENS = "the tokenizer makes no token of these texts; check the text and the tokenizer"
"""The message where there is not one block."""


LONGEST_WORD = 8
"""Tokens of the longest word that is masked whole. What is longer is no word but text without spaces, such as
Chinese under a tokenizer that splits at spaces, or a hash: each of its tokens stands for itself."""


class Mark(IntEnum):
    """What a token is in its text."""

    INSIDE = 0
    """It follows another one of the same text."""
    FIRST = 1
    """A text begins with it."""
    FIRST_OF_LONG = 2
    """A text begins with it that is longer than a block; only where texts are not packed."""
    PADDING = 3


class TokenStream(NamedTuple):
    """Tokens of consecutive texts, end to end.

    Attributes:
        token_ids: int32 [T].
        is_special: bool [T], true for the tokens that the tokenizer added at a text's borders.
        starts_word: bool [T], false for a token that continues the word before it; only for whole words.
            See `LONGEST_WORD`.
        marks: uint8 [T], a `Mark` each; only where the borders of texts matter.
    """

    token_ids: NDArray[np.int32]
    is_special: NDArray[np.bool_]
    starts_word: NDArray[np.bool_] | None = None
    marks: NDArray[np.uint8] | None = None


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
        try:
            encodings = [encoding for encoding in self._encode(texts) if len(encoding) > num_added]
        except Exception as error:  # the library in Rust has no other class
            raise UserError(f"the tokenizer cannot take a text: {first_line(error)}") from error
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
        marks = np.full(len(token_ids), Mark.INSIDE, np.uint8)
        marks[ends - lengths] = Mark.FIRST
        starts_word = _find_word_starts(encodings, lengths) if self._with_words else None
        if starts_word is not None and self._longest_word is not None:
            starts_word = _split_long_words(starts_word, self._longest_word)
        return TokenStream(token_ids, is_special, starts_word, marks)


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
        pack: fill the blocks with texts end to end; else each text has blocks of its own.
        splits_long: without packing, a text that is longer than a block has several; else it is cut.
        stride: tokens of a text that its next block repeats.
        with_texts: add the column `starts_text`, which attention within texts needs.
    """

    block_size: int
    pad_token_id: int
    with_words: bool = False
    drop_remainder: bool = False
    unk_token_id: int | None = None
    pack: bool = True
    splits_long: bool = True
    stride: int = 0
    with_texts: bool = False


def pack_texts(
    texts: Iterable[list[str]], tokenizer: PreTrainedTokenizerFast, block_format: BlockFormat
) -> Iterator[Columns]:
    """Tokenizes batches of texts and packs them into blocks.

    Yields:
        Columns of n blocks, n differing: `input_ids` int32 [n, L], `special_tokens_mask` bool [n, L],
        `num_tokens` int32 [n] (tokens before the padding), `example_id` int64 [n] (the block's index),
        `num_text_tokens` int32 [n] (those that are not special) and `num_unknown` int32 [n] (those of them
        that the tokenizer does not know); with words also `starts_word` bool [n, L]; with texts also
        `starts_text` bool [n, L], true for the first token of each, and for padding; of texts that are not
        packed also `num_texts` and `num_long_texts` int32 [n], how many texts, and how many that are longer
        than a block, begin in the block.
    """
    return make_blocks(map(make_stream_tokenizer(tokenizer, block_format), texts), block_format)


def make_stream_tokenizer(
    tokenizer: PreTrainedTokenizerFast, block_format: BlockFormat
) -> Callable[[list[str]], TokenStream]:
    """Tokenizes batches of texts, and pads each text where they are not packed."""
    tokenize = StreamTokenizer(tokenizer, block_format.with_words)
    if block_format.pack:
        return tokenize
    return lambda texts: pad_texts(tokenize(texts), block_format)


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
        marks = None if stream.marks is None else stream.marks.reshape(-1, block_format.block_size)
        if block_format.with_texts and marks is not None:
            columns["starts_text"] = marks != Mark.INSIDE
        if not block_format.pack and marks is not None:
            columns["num_tokens"] = (marks != Mark.PADDING).sum(axis=1, dtype=np.int32)
            columns["num_texts"] = np.isin(marks[:, 0], [Mark.FIRST, Mark.FIRST_OF_LONG]).astype(np.int32)
            columns["num_long_texts"] = (marks[:, 0] == Mark.FIRST_OF_LONG).astype(np.int32)
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
        marks = np.full(len(alone), Mark.PADDING, np.uint8)
        padding = TokenStream(np.full(len(alone), pad_token_id, np.int32), alone, alone, marks)
        yield _concatenate(carried, padding), np.array([num_left], np.int32)


def _concatenate(first: TokenStream, second: TokenStream) -> TokenStream:
    return TokenStream._make(
        None if one is None or other is None else np.concatenate([one, other])
        for one, other in zip(first, second, strict=True)
    )


def slice_stream(stream: TokenStream, part: slice) -> TokenStream:
    """A part of a stream."""
    return TokenStream._make(None if values is None else values[part] for values in stream)


# === Texts that are not packed ===


def pad_texts(stream: TokenStream, block_format: BlockFormat) -> TokenStream:
    """Gives each text as many blocks as it needs, or one.

    Each block has the special tokens that the tokenizer adds to a text. What a block repeats of the one
    before counts as special too, so that a token of a text is guessed in one block only, and counted once.

    Returns:
        A stream of n * block_size tokens.
    """
    marks = stream.marks
    assert marks is not None
    starts = np.flatnonzero(marks)
    if not len(starts):
        return stream
    lengths = np.diff(starts, append=len(marks))
    num_leading, num_trailing = _count_special(stream.is_special[: lengths[0]])
    room = block_format.block_size - num_leading - num_trailing
    advance = room - block_format.stride
    num_words = lengths - num_leading - num_trailing
    num_blocks = np.ones_like(lengths)
    if block_format.splits_long:
        num_blocks += np.maximum(0, -(-(num_words - room) // advance))

    # All that follows is of blocks, [n], or of their tokens, [n, L].
    text = np.repeat(np.arange(len(starts)), num_blocks)
    part = np.arange(len(text)) - np.repeat(num_blocks.cumsum() - num_blocks, num_blocks)
    first = (part * advance)[:, np.newaxis]
    end = num_leading + np.minimum(num_words[text] - part * advance, room)[:, np.newaxis]
    column = np.arange(block_format.block_size)[np.newaxis, :]
    place = np.where(column < num_leading, column, first + column)
    place = np.where(column < end, place, (lengths[text] - num_trailing)[:, np.newaxis] + column - end)
    is_padding = column >= end + num_trailing
    source = np.where(is_padding, 0, starts[text][:, np.newaxis] + place)
    is_repeated = (part > 0)[:, np.newaxis] & (column < num_leading + block_format.stride)

    new_marks = np.full(source.shape, Mark.INSIDE, np.uint8)
    new_marks[is_padding] = Mark.PADDING
    new_marks[part == 0, 0] = np.where(num_words > room, Mark.FIRST_OF_LONG, Mark.FIRST)
    words = None if stream.starts_word is None else (is_padding | stream.starts_word[source]).reshape(-1)
    return TokenStream(
        np.where(is_padding, np.int32(block_format.pad_token_id), stream.token_ids[source]).reshape(-1),
        (is_padding | is_repeated | stream.is_special[source]).reshape(-1),
        words,
        new_marks.reshape(-1),
    )


def _count_special(is_special: NDArray[np.bool_]) -> tuple[int, int]:
    """How many special tokens stand before and after a text, of which at least one token is not special."""
    return int(is_special.argmin()), int(is_special[::-1].argmin())
