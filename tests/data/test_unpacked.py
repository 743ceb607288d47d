"""Texts that are not packed: a block each, several for a long one, and steps of blocks of like length."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from tests.data.blocks import DOCSTRINGS, ODD
from tests.data.sharded import join, of_shards, read_columns, write_source
from tests.tiny import SENTENCES
from tfmlm.config import MaskingConfig
from tfmlm.data import pipeline
from tfmlm.data.blocks import Blocks, PackedBlocks, open_blocks, order_examples, write_blocks
from tfmlm.data.masking import EVALUATION_EPOCH, MaskableVocabulary, MaskingCollator
from tfmlm.data.packing import BlockFormat, Columns, StreamTokenizer, pack_texts
from tfmlm.data.pipeline import make_evaluation_batches, make_training_batches
from tfmlm.data.prepare import count_texts, prepare_data
from tfmlm.data.shard_writing import prepare_shards
from tfmlm.data.shards import read_manifest

TEXTS = [*SENTENCES[::8], *DOCSTRINGS[::40], *ODD, "", "one"]
SEED = 5


def cut_texts(
    texts: list[str], tokenizer: PreTrainedTokenizerFast, block_size: int, **fields: object
) -> Columns:
    block_format = BlockFormat(
        block_size, int(tokenizer.pad_token_id), pack=False, unk_token_id=tokenizer.unk_token_id, **fields
    )
    batches = [texts[start : start + 20] for start in range(0, len(texts), 20)]
    return join(list(pack_texts(batches, tokenizer, block_format)))


# === Blocks ===


@pytest.mark.parametrize(
    ("block_size", "stride", "splits_long"),
    [(16, 0, True), (16, 5, True), (5, 2, True), (64, 0, False), (12, 0, False), (300, 20, True)],
)
def test_blocks_are_those_of_transformers(
    block_size: int, stride: int, splits_long: bool, any_tokenizer: PreTrainedTokenizerFast
) -> None:
    expected, num_long = [], 0
    texts = [text for text in TEXTS if any_tokenizer.tokenize(text)]
    for text in texts:
        parts = any_tokenizer(
            text,
            max_length=block_size,
            truncation=True,
            stride=stride,
            return_overflowing_tokens=splits_long,
        )["input_ids"]
        expected += parts if splits_long else [parts]
        num_long += len(any_tokenizer(text)["input_ids"]) > block_size
    blocks = cut_texts(TEXTS, any_tokenizer, block_size, stride=stride, splits_long=splits_long)
    rows = zip(blocks["input_ids"], blocks["num_tokens"], strict=True)
    assert [row[:num_tokens].tolist() for row, num_tokens in rows] == expected
    is_padding = np.arange(block_size) >= blocks["num_tokens"][:, np.newaxis]
    assert (blocks["input_ids"][is_padding] == any_tokenizer.pad_token_id).all()
    assert blocks["example_id"].tolist() == list(range(len(expected)))
    assert blocks["num_texts"].sum() == len(texts)
    assert blocks["num_long_texts"].sum() == num_long > 0


@pytest.mark.parametrize("stride", [0, 7])
def test_each_token_of_a_text_can_be_guessed_once(
    stride: int, any_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Whatever is repeated, and with the words that it belongs to."""
    whole = StreamTokenizer(any_tokenizer, with_words=True)(TEXTS)
    assert whole.starts_word is not None
    blocks = cut_texts(TEXTS, any_tokenizer, 16, stride=stride, with_words=True)
    is_text = ~blocks["special_tokens_mask"]
    np.testing.assert_array_equal(blocks["input_ids"][is_text], whole.token_ids[~whole.is_special])
    np.testing.assert_array_equal(blocks["starts_word"][is_text], whole.starts_word[~whole.is_special])
    assert blocks["num_text_tokens"].sum() == (~whole.is_special).sum()
    is_unknown = whole.token_ids == any_tokenizer.unk_token_id
    assert blocks["num_unknown"].sum() == (is_unknown & ~whole.is_special).sum()


def test_borders_of_packed_texts_are_where_they_begin(any_tokenizer: PreTrainedTokenizerFast) -> None:
    """Also of a text that spells what the tokenizer puts between texts."""
    separator = any_tokenizer.sep_token
    texts = [f"{separator} the {separator}", *SENTENCES[:9], "", separator]
    block_format = BlockFormat(16, int(any_tokenizer.pad_token_id), with_texts=True)
    blocks = join(list(pack_texts([texts[:4], texts[4:]], any_tokenizer, block_format)))
    lengths = [len(any_tokenizer(text)["input_ids"]) for text in texts if any_tokenizer.tokenize(text)]
    starts = blocks["starts_text"].reshape(-1)
    assert np.flatnonzero(starts[: sum(lengths)]).tolist() == [0, *np.cumsum(lengths)[:-1]]
    assert starts[sum(lengths) :].all()


# === Wherever they lie ===


def read_all(blocks: Blocks) -> Columns:
    return read_columns(blocks.read_in_order())


@pytest.mark.parametrize(
    ("keys", "done"),
    [
        ({"pack": False}, "split"),
        ({"pack": False, "stride": 2}, "split, each part repeating 2 tokens"),
        ({"pack": False, "long_texts": "cut"}, "cut there"),
        ({"attend_within_texts": True}, None),
    ],
    ids=str,
)
def test_cache_shards_and_stream_hold_the_same(
    keys: dict[str, object], done: str | None, tmp_path: Path, word_tokenizer: PreTrainedTokenizerFast
) -> None:
    config = write_source(tmp_path, word_tokenizer)
    (tmp_path / "texts.txt").write_text("\n".join(SENTENCES[:60]))
    config = replace(config, data=replace(config.data, **keys))
    packed = prepare_data(config)
    counts = count_texts(packed)
    folder = str(tmp_path / "shards")
    _, notes = prepare_shards(config, folder, 7, runner=None, beam_flags=[])
    long = f"{counts.num_long_texts} of 60 texts are longer than a block of 8 tokens and were {done}"
    assert notes == [long] * (done is not None)
    sharded = prepare_data(of_shards(config, folder))
    streamed = prepare_data(replace(config, data=replace(config.data, streaming=True)))
    assert count_texts(sharded) == counts
    for other in (sharded, streamed):
        for mine, theirs in ((packed.train, other.train), (packed.validation, other.validation)):
            assert mine.is_packed is theirs.is_packed is keys.get("pack", True)
            expected, found = read_all(mine), read_all(theirs)
            assert expected.keys() == found.keys()
            assert ("starts_text" in expected) is ("attend_within_texts" in keys)
            for name, column in expected.items():
                np.testing.assert_array_equal(found[name], column, err_msg=name)
    assert len(read_manifest(folder).splits["train"]) > 1


# === Steps ===


@pytest.fixture(scope="module")
def unpacked(
    word_tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory
) -> PackedBlocks:
    """47 blocks of 1 to 6 sentences each."""
    path = tmp_path_factory.mktemp("unpacked") / "blocks.arrow"
    texts = [" ".join(SENTENCES[number : number + 1 + number % 6]) for number in range(47)]
    block_format = BlockFormat(96, int(word_tokenizer.pad_token_id), pack=False)
    write_blocks(pack_texts([texts], word_tokenizer, block_format), path)
    return open_blocks(path)


@pytest.fixture(scope="module")
def collator(word_tokenizer: PreTrainedTokenizerFast) -> MaskingCollator:
    return MaskingCollator(MaskableVocabulary.from_tokenizer(word_tokenizer), MaskingConfig(rate=0.5), SEED)


def read_steps(
    blocks: PackedBlocks, collator: MaskingCollator, first: int, last: int, size: int
) -> list[Columns]:
    batches = make_training_batches(blocks, collator, SEED, first, last, size)
    return list(batches.as_numpy_iterator())


def count_rows(steps: list[Columns]) -> Counter[tuple[bytes, ...]]:
    return Counter(
        tuple(row.tobytes() for row in rows)
        for step in steps
        for rows in zip(*(step[name] for name in sorted(step)), strict=True)
    )


@settings(deadline=None, max_examples=8)
@given(
    num_blocks=st.integers(1, 47),
    sizes=st.tuples(st.integers(1, 12), st.integers(1, 60)),
    num_epochs=st.integers(1, 3),
    where=st.floats(0, 1),
)
def test_steps_have_the_blocks_of_the_same_epochs_wherever_a_run_goes_on(
    num_blocks: int,
    sizes: tuple[int, int],
    num_epochs: int,
    where: float,
    unpacked: PackedBlocks,
    collator: MaskingCollator,
) -> None:
    size, window = sizes
    blocks = PackedBlocks(unpacked.table.select(range(num_blocks)))
    num_steps = max(1, num_epochs * num_blocks // size)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "SORTED_BLOCKS", window)
        whole = read_steps(blocks, collator, 0, num_steps, size)
        first = int(where * (num_steps - 1))
        rest = read_steps(blocks, collator, first, num_steps, size)
    assert len(whole) == num_steps
    for mine, expected in zip(rest, whole[first:], strict=True):
        for name, column in expected.items():
            np.testing.assert_array_equal(mine[name], column, err_msg=name)
    # Each block as often as without sorting, with the mask of its epoch.
    positions = np.arange(num_steps * size)
    columns = blocks.table.with_format("numpy")[order_examples(num_blocks, SEED, positions).tolist()]
    names = ("input_ids", "special_tokens_mask", "num_tokens")
    rows = {name: columns[name].astype(np.int32) for name in names} | {"example_id": columns["example_id"]}
    masked = collator(rows, positions // num_blocks)
    assert count_rows(whole) == count_rows([{name: column.numpy() for name, column in masked.items()}])


def count_padding(steps: list[Columns]) -> float:
    """Share of padding if each step is as long as its longest row."""
    lengths = [step["attention_mask"].sum(axis=1) for step in steps]
    return 1 - sum(map(np.sum, lengths)) / sum(rows.max() * len(rows) for rows in lengths)


def test_a_step_has_blocks_of_like_length_and_steps_are_in_no_order(
    unpacked: PackedBlocks, collator: MaskingCollator
) -> None:
    steps = read_steps(unpacked, collator, 0, 22, 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "SORTED_BLOCKS", 1)
        unsorted = read_steps(unpacked, collator, 0, 22, 4)
    assert count_padding(steps) < 0.1
    assert count_padding(unsorted) > 0.3
    longest = [int(step["attention_mask"].sum(axis=1).max()) for step in steps[:11]]
    assert longest not in (sorted(longest), sorted(longest, reverse=True))
    assert len(set(longest)) > 4


def test_an_evaluation_has_every_block_once_with_its_mask(
    unpacked: PackedBlocks, collator: MaskingCollator
) -> None:
    def read(size: int, most: int | None = None) -> list[Columns]:
        return list(make_evaluation_batches(unpacked, collator, size, most).as_numpy_iterator())

    chunk = next(iter(unpacked.read_in_order()))
    masked = collator.for_evaluation()(chunk, np.int64(EVALUATION_EPOCH))
    expected = [{name: column.numpy() for name, column in masked.items()}]
    assert count_rows(read(1)) == count_rows(expected)
    filled = read(5)
    assert [len(batch["labels"]) for batch in filled] == [5] * 10
    rows = count_rows(filled)
    assert sum((rows - count_rows(expected)).values()) == 3
    assert not count_rows(expected) - rows
    assert count_rows(read(1, 20)) == count_rows(
        [{name: column[:20] for name, column in expected[0].items()}]
    )
    assert count_padding(filled[:-1]) < 0.1
