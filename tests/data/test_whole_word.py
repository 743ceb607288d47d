"""Whole words are masked whole, by the tokenizer's own word boundaries."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from transformers import DataCollatorForWholeWordMask, PreTrainedTokenizerFast

from tests.data.blocks import (
    UNK,
    VOCABULARY,
    Arrays,
    apply_collator,
    make_blocks,
    mask_slowly,
    mix,
    pack,
    unit,
)
from tests.tiny import SENTENCES
from tfmlm.config import MaskingConfig, TokenizerConfig
from tfmlm.data.masking import IGNORE_LABEL, MaskingCollator
from tfmlm.data.packing import LONGEST_WORD, StreamTokenizer
from tfmlm.data.pipeline import make_evaluation_batches
from tfmlm.data.tokenizer_training import train_tokenizer
from tfmlm.training.loss import count_slots

TEXTS = [
    "Return the unsafe tokenizer's pathologically long name: default_index.",
    "Zürich, naïve café! 日本語 🤗🤗 e\u0301 \t two  spaces\nand a line",
    "",
    "a",
]


@pytest.fixture(scope="module", params=["wordpiece", "byte_bpe", "unigram"])
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    size = 300 if request.param == "wordpiece" else 320
    return train_tokenizer([SENTENCES], TokenizerConfig(train_vocab_size=size, algorithm=request.param))


def make_collator(rate: float, seed: int = 0, **fields: float) -> MaskingCollator:
    return MaskingCollator(VOCABULARY, MaskingConfig(rate=rate, whole_word=True, **fields), seed)


Number = tuple[int, int | str | None]


def word_numbers(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> list[Number]:
    """For each token of the stream, its text and its word, by the tokenizer's own answer, one text at a time.

    Each token of a word that is too long to be one has a name of its own.
    """
    numbers: list[Number] = []
    for number, text in enumerate(texts):
        words = tokenizer(text).word_ids()
        if set(words) == {None}:
            continue
        lengths = Counter(words)
        numbers += [
            (number, f"{word}.{place}" if word is not None and lengths[word] > LONGEST_WORD else word)
            for place, word in enumerate(words)
        ]
    return numbers


def test_words_start_where_the_tokenizers_word_changes(tokenizer: PreTrainedTokenizerFast) -> None:
    starts = StreamTokenizer(tokenizer, with_words=True)(TEXTS).starts_word
    numbers = word_numbers(tokenizer, TEXTS)
    expected = [
        word is None or index == 0 or numbers[index - 1] != (text, word)
        for index, (text, word) in enumerate(numbers)
    ]
    assert starts is not None
    assert starts.tolist() == expected
    assert not all(expected)


def test_all_tokens_of_a_word_are_chosen_or_none(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    texts = SENTENCES + TEXTS * 20
    blocks = pack(texts, tokenizer, 64, tmp_path / "blocks", with_words=True)
    from tfmlm.data.masking import MaskableVocabulary

    collator = MaskingCollator(
        MaskableVocabulary.from_tokenizer(tokenizer), MaskingConfig(rate=0.3, whole_word=True), seed=5
    )
    labels = np.concatenate(
        [batch["labels"].numpy() for batch in make_evaluation_batches(blocks, collator, 8)]
    )[: blocks.num_blocks]
    numbers = word_numbers(tokenizer, texts)
    chosen = (labels != IGNORE_LABEL).reshape(-1)[: len(numbers)]
    words: dict[tuple[int, *Number], set[bool]] = {}
    for index, (text, word) in enumerate(numbers):
        if word is None:
            assert not chosen[index]
        else:
            words.setdefault((index // 64, text, word), set()).add(bool(chosen[index]))
    # A word that a block's border cuts is two words, one in each block.
    assert all(len(choices) == 1 for choices in words.values())
    share = np.mean([choices == {True} for choices in words.values()])
    assert 0.25 < share < 0.35


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_equals_a_slow_reference(data: st.DataObject) -> None:
    shape = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 12))
    blocks = make_blocks(data.draw(arrays(np.int32, shape, elements=st.integers(0, 36))))
    blocks["special_tokens_mask"] = data.draw(arrays(np.bool_, shape))
    blocks["starts_word"] = data.draw(arrays(np.bool_, shape))
    collator = make_collator(data.draw(st.floats(0, 1)), seed=data.draw(st.integers(0, 2**40)))
    masked = apply_collator(collator, blocks, 3)
    np.testing.assert_array_equal(masked["labels"], choose_words_slowly(collator, blocks, epoch=3))
    # What a chosen token becomes is drawn token by token, as without whole words.
    everything = mask_slowly(make_collator(1.0, seed=collator.seed), blocks, [3] * shape[0])
    chosen = masked["labels"] != IGNORE_LABEL
    np.testing.assert_array_equal(masked["input_ids"][chosen], everything["input_ids"][chosen])
    np.testing.assert_array_equal(masked["input_ids"][~chosen], blocks["input_ids"][~chosen])


@np.errstate(over="ignore")
def choose_words_slowly(collator: MaskingCollator, blocks: Arrays, epoch: int) -> np.ndarray:
    labels = np.full_like(blocks["input_ids"], IGNORE_LABEL)
    for row, token_ids in enumerate(blocks["input_ids"]):
        key = mix(
            mix(mix(np.uint64(collator.seed)) + np.uint64(epoch)) + np.uint64(blocks["example_id"][row])
        )
        word = 0
        for position, token_id in enumerate(token_ids):
            word += int(blocks["starts_word"][row, position])
            draw = mix(key + np.uint64(word) * np.uint64(0x9E3779B97F4A7C15))
            is_protected = token_id in VOCABULARY.protected_ids
            if blocks["special_tokens_mask"][row, position] or is_protected:
                continue
            if unit(draw) < np.float32(collator.masking.rate):
                labels[row, position] = token_id
    return labels


def test_the_share_of_chosen_words_is_the_rate() -> None:
    blocks = make_blocks(np.full((4096, 256), UNK))
    starts = np.random.default_rng(0).random((4096, 256)) < 0.6
    starts[:, 0] = True
    blocks["starts_word"] = starts
    chosen = apply_collator(make_collator(0.15), blocks)["labels"] != IGNORE_LABEL
    observed = [chosen[starts].sum(), (~chosen[starts]).sum()]
    assert stats.chisquare(observed, np.array([0.15, 0.85]) * starts.sum()).pvalue > 1e-3
    assert abs(chosen.mean() - 0.15) < 0.002


def test_the_slots_hold_whole_words_of_real_text(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    import tokenizers

    texts = [
        path.read_text() for path in Path(tokenizers.__file__).parent.rglob("*.py*") if path.suffix == ".pyi"
    ]
    blocks = pack(texts, tokenizer, 64, tmp_path / "blocks", with_words=True)
    for batch in make_evaluation_batches(blocks, make_collator(0.15), 16):
        chosen = tf.reduce_sum(tf.cast(batch["labels"] != IGNORE_LABEL, tf.int32))
        assert int(chosen) <= count_slots(16 * 64, 0.15, whole_word=True)


def test_an_evaluation_rate_of_its_own() -> None:
    blocks = make_blocks(np.full((64, 64), UNK))
    collator = MaskingCollator(VOCABULARY, MaskingConfig(rate=0.0, evaluation_rate=1.0), 0)
    assert (apply_collator(collator, blocks)["labels"] == IGNORE_LABEL).all()
    assert (apply_collator(collator.for_evaluation(), blocks)["labels"] == UNK).all()


def test_the_stock_collator_ignores_whole_words_and_its_sibling_loses_the_attention_mask(
    word_tokenizer: PreTrainedTokenizerFast,
) -> None:
    stock = DataCollatorForWholeWordMask(word_tokenizer, return_tensors="tf")
    row = dict(word_tokenizer("Return the pathological name."))
    assert "attention_mask" in row
    assert "attention_mask" not in stock([row])

    blocks = make_blocks(np.full((1, 8), UNK)) | {"starts_word": np.ones((1, 8), np.bool_)}
    assert apply_collator(make_collator(0.5), blocks)["attention_mask"].tolist() == [[1] * 8]
