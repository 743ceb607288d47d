"""Cutting the stream into blocks loses and adds nothing."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from tests.data.blocks import DOCSTRINGS, ODD, encode_one_by_one, pack
from tests.tiny import SENTENCES
from tfmlm.data.packing import BlockFormat, StreamTokenizer, TokenStream, cut_blocks, make_blocks, pack_texts

PAD = 0


# === Cutting ===


@st.composite
def streams(draw: st.DrawFn, max_tokens: int = 40) -> TokenStream:
    length = draw(st.integers(0, max_tokens))
    token_ids = draw(arrays(np.int32, length, elements=st.integers(0, 2**31 - 1)))
    return TokenStream(token_ids, draw(arrays(np.bool_, length)))


def collect_blocks(
    pieces: list[TokenStream], block_size: int, pad_token_id: int = PAD
) -> tuple[NDArray, NDArray, NDArray]:
    """All blocks: token ids [N, L], special tokens [N, L], number of tokens [N]."""
    parts = list(cut_blocks(iter(pieces), block_size, pad_token_id))
    for blocks, num_tokens in parts:
        assert blocks.token_ids.dtype == num_tokens.dtype == np.int32
        assert blocks.is_special.dtype == np.bool_
        assert len(blocks.token_ids) == len(blocks.is_special) == len(num_tokens) * block_size
    return (
        np.concatenate([np.empty(0, np.int32), *(part.token_ids for part, _ in parts)]).reshape(
            -1, block_size
        ),
        np.concatenate([np.empty(0, np.bool_), *(part.is_special for part, _ in parts)]).reshape(
            -1, block_size
        ),
        np.concatenate([np.empty(0, np.int32), *(num_tokens for _, num_tokens in parts)]),
    )


@settings(deadline=None)
@given(st.lists(streams(), max_size=6), st.integers(1, 20), st.integers(0, 9))
def test_cutting_loses_nothing_adds_nothing_and_pads_only_the_end(
    pieces: list[TokenStream], block_size: int, pad_token_id: int
) -> None:
    token_ids, is_special, num_tokens = collect_blocks(pieces, block_size, pad_token_id)
    given_ids = np.concatenate([np.empty(0, np.int32), *(piece.token_ids for piece in pieces)])
    given_special = np.concatenate([np.empty(0, np.bool_), *(piece.is_special for piece in pieces)])

    is_text = np.arange(block_size) < num_tokens[:, np.newaxis]
    np.testing.assert_array_equal(token_ids[is_text], given_ids)
    np.testing.assert_array_equal(is_special[is_text], given_special)
    assert num_tokens.sum() == len(given_ids)
    assert (num_tokens[:-1] == block_size).all()
    assert (num_tokens > 0).all()
    assert (token_ids[~is_text] == pad_token_id).all()
    assert is_special[~is_text].all()


@settings(deadline=None)
@given(streams(), st.lists(st.integers(0, 40), max_size=8), st.integers(1, 20))
def test_where_the_stream_was_cut_before_does_not_matter(
    stream: TokenStream, cuts: list[int], block_size: int
) -> None:
    pieces = list(
        map(
            TokenStream,
            np.split(stream.token_ids, sorted(cuts)),
            np.split(stream.is_special, sorted(cuts)),
        )
    )
    for whole, in_pieces in zip(
        collect_blocks([stream], block_size), collect_blocks(pieces, block_size), strict=True
    ):
        np.testing.assert_array_equal(in_pieces, whole)


def test_cutting_by_hand() -> None:
    first = TokenStream(np.array([7, 8], np.int32), np.array([True, False]))
    second = TokenStream(np.array([9, 10, 11], np.int32), np.array([False, True, False]))
    token_ids, is_special, num_tokens = collect_blocks([first, second], block_size=4, pad_token_id=3)
    assert token_ids.tolist() == [[7, 8, 9, 10], [11, 3, 3, 3]]
    assert is_special.tolist() == [[True, False, False, True], [False, True, True, True]]
    assert num_tokens.tolist() == [4, 1]


# === The file ===


def test_packed_file_holds_the_texts_in_the_promised_columns(
    any_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    path = tmp_path / "blocks.arrow"
    texts = SENTENCES + DOCSTRINGS[:50] + ODD
    table = pack(texts, any_tokenizer, 32, path).table
    expected = encode_one_by_one(any_tokenizer, texts)

    with pa.ipc.open_stream(path) as reader:
        assert dict(zip(reader.schema.names, reader.schema.types, strict=True)) == {
            "input_ids": pa.list_(pa.int32(), 32),
            "special_tokens_mask": pa.list_(pa.bool_(), 32),
            "num_tokens": pa.int32(),
            "example_id": pa.int64(),
            "num_text_tokens": pa.int32(),
            "num_unknown": pa.int32(),
        }
    blocks = table.with_format("numpy")[:]
    num_blocks = -(-len(expected.token_ids) // 32)
    assert blocks["example_id"].tolist() == list(range(num_blocks))
    assert blocks["num_tokens"].tolist()[:-1] == [32] * (num_blocks - 1)
    assert blocks["num_tokens"].sum() == len(expected.token_ids)
    assert blocks["num_text_tokens"].sum() == (~expected.is_special).sum()
    assert blocks["num_unknown"].sum() == (expected.token_ids == any_tokenizer.unk_token_id).sum()
    np.testing.assert_array_equal(blocks["input_ids"].ravel()[: len(expected.token_ids)], expected.token_ids)
    np.testing.assert_array_equal(
        blocks["special_tokens_mask"].ravel()[: len(expected.is_special)], expected.is_special
    )
    assert (blocks["input_ids"].ravel()[len(expected.token_ids) :] == any_tokenizer.pad_token_id).all()
    assert blocks["special_tokens_mask"].ravel()[len(expected.token_ids) :].all()


def test_blocks_do_not_depend_on_how_many_texts_are_tokenized_at_once(
    word_tokenizer: PreTrainedTokenizerFast,
) -> None:
    def pack_batches(batches: list[list[str]]) -> dict[str, list[object]]:
        pieces = list(pack_texts(batches, word_tokenizer, BlockFormat(48, PAD)))
        assert "starts_word" not in pieces[0]  # unless it is asked for
        return {name: np.concatenate([piece[name] for piece in pieces]).tolist() for name in pieces[0]}

    assert pack_batches([SENTENCES]) == pack_batches([[text] for text in SENTENCES])


def test_the_index_of_blocks_goes_on_from_piece_to_piece_and_from_where_it_was_told(
    word_tokenizer: PreTrainedTokenizerFast,
) -> None:
    tokenize = StreamTokenizer(word_tokenizer)
    pieces = list(make_blocks([tokenize([text]) for text in SENTENCES[:9]], BlockFormat(4, PAD), first_id=5))
    assert len(pieces) > 5
    assert all("starts_word" not in piece for piece in pieces)
    ids = np.concatenate([piece["example_id"] for piece in pieces])
    assert ids.tolist() == list(range(5, 5 + sum(len(piece["num_tokens"]) for piece in pieces)))


@pytest.mark.parametrize("num_whole", [0, 1, 2, 3])
@pytest.mark.parametrize("num_left", [0, 1, 3])
def test_a_short_last_block_is_dropped_if_asked_for_and_not_alone(num_whole: int, num_left: int) -> None:
    length = 4 * num_whole + num_left
    stream = TokenStream(np.arange(length, dtype=np.int32), np.zeros(length, np.bool_))

    def count_tokens(block_format: BlockFormat) -> list[int]:
        return [int(count) for piece in make_blocks([stream], block_format) for count in piece["num_tokens"]]

    kept = [4] * num_whole + [num_left] * (num_left > 0)
    assert count_tokens(BlockFormat(4, PAD)) == kept
    dropped = kept[:-1] if num_whole and num_left else kept
    assert count_tokens(BlockFormat(4, PAD, drop_remainder=True)) == dropped


def test_a_text_shorter_than_a_block_makes_one_padded_block(
    word_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    (block,) = pack(["Return"], word_tokenizer, 16, tmp_path / "blocks.arrow").table
    token_ids = word_tokenizer("Return")["input_ids"]
    assert block["num_tokens"] == len(token_ids)
    assert block["input_ids"] == token_ids + [PAD] * (16 - len(token_ids))
