"""What the stock parts do wrong, and these do not."""

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from transformers import (
    BertConfig,
    DataCollatorForLanguageModeling,
    PreTrainedTokenizerFast,
    TFBertForMaskedLM,
)

from tests.data.blocks import CLS, SEP, UNK, apply_collator, make_blocks, make_collator
from tfmlm.config import MaskingConfig
from tfmlm.data.masking import MaskableVocabulary, MaskingCollator


def stock_collator(tokenizer: PreTrainedTokenizerFast, **settings: float) -> DataCollatorForLanguageModeling:
    return DataCollatorForLanguageModeling(tokenizer, return_tensors="tf", **settings)


def test_stock_prepare_tf_dataset_loses_the_special_tokens_mask_and_unknown_words_with_it(
    word_tokenizer: PreTrainedTokenizerFast,
) -> None:
    rows = {
        "input_ids": [[CLS, 10, UNK, 11, UNK, SEP]],
        "special_tokens_mask": [[1, 0, 0, 0, 0, 1]],
    }
    stock = stock_collator(word_tokenizer, mlm_probability=1.0)
    config = BertConfig(
        vocab_size=300, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
    )
    batches = TFBertForMaskedLM(config).prepare_tf_dataset(
        Dataset.from_dict(rows), batch_size=1, shuffle=False, collate_fn=stock
    )
    _, through_stock_pipeline = next(iter(batches))
    assert through_stock_pipeline.numpy().tolist() == [[-100, 10, -100, 11, -100, -100]]
    # The collator by itself would have chosen them: the mask was lost on the way.
    alone = stock([{name: column[0] for name, column in rows.items()}])
    assert alone["labels"].numpy().tolist() == [[-100, 10, UNK, 11, UNK, -100]]

    blocks = make_blocks(np.array(rows["input_ids"]))
    blocks["special_tokens_mask"] = np.array(rows["special_tokens_mask"], np.bool_)
    ours = apply_collator(make_collator(rate=1.0), blocks)
    assert ours["labels"].tolist() == [[-100, 10, UNK, 11, UNK, -100]]


def test_stock_collator_takes_seed_zero_for_no_seed(word_tokenizer: PreTrainedTokenizerFast) -> None:
    token_ids = np.random.default_rng(0).integers(5, 37, (8, 64))
    rows = [{"input_ids": row.tolist(), "special_tokens_mask": [0] * 64} for row in token_ids]

    def stock_masks(seed: int) -> NDArray:
        return stock_collator(word_tokenizer, mlm_probability=0.5, seed=seed)(rows)["labels"].numpy()

    assert (stock_masks(seed=1) == stock_masks(seed=1)).all()
    assert (stock_masks(seed=0) != stock_masks(seed=0)).any()

    ours = [
        apply_collator(make_collator(rate=0.5, seed=0), make_blocks(token_ids))["labels"] for _ in range(2)
    ]
    assert (ours[0] == ours[1]).all()


def test_stock_collator_draws_special_tokens_for_random_words(
    word_tokenizer: PreTrainedTokenizerFast,
) -> None:
    token_ids = np.full((64, 128), 20)
    stock = stock_collator(
        word_tokenizer, mlm_probability=1.0, mask_replace_prob=0.0, random_replace_prob=1.0, seed=1
    )
    rows = [{"input_ids": row.tolist(), "special_tokens_mask": [0] * 128} for row in token_ids]
    special = set(word_tokenizer.all_special_ids)
    assert special & set(stock(rows)["input_ids"].numpy().flat) == special

    vocabulary = MaskableVocabulary.from_tokenizer(word_tokenizer)
    every_word = MaskingConfig(rate=1.0, mask_fraction=0.0, random_fraction=1.0)
    ours = apply_collator(MaskingCollator(vocabulary, every_word, seed=1), make_blocks(token_ids))
    assert not special & set(ours["input_ids"].flat)
    assert len(set(ours["input_ids"].flat)) == len(vocabulary.random_ids)


def test_stock_collator_masks_an_example_by_its_place_in_the_run_not_by_what_it_is(
    word_tokenizer: PreTrainedTokenizerFast,
) -> None:
    token_ids = np.random.default_rng(0).integers(5, 37, (4, 64))
    rows = [{"input_ids": row.tolist(), "special_tokens_mask": [0] * 64} for row in token_ids]
    in_order, reversed_order = (
        stock_collator(word_tokenizer, mlm_probability=0.5, seed=1)(some)["labels"].numpy()
        for some in (rows, rows[::-1])
    )
    assert (in_order != reversed_order[::-1]).any()

    blocks = make_blocks(token_ids)
    backwards = {name: column[::-1].copy() for name, column in blocks.items()}
    ours, ours_backwards = (
        apply_collator(make_collator(rate=0.5, seed=1), some)["labels"] for some in (blocks, backwards)
    )
    assert (ours == ours_backwards[::-1]).all()
