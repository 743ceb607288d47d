"""What may be masked, and what a random word may be, comes from the tokenizer."""

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from tests.data.blocks import apply_collator, make_blocks
from tfmlm.config import MaskingConfig
from tfmlm.data.masking import IGNORE_LABEL, MaskableVocabulary, MaskingCollator
from tfmlm.data.packing import StreamTokenizer


@pytest.mark.parametrize("fixture", ["word_tokenizer", "byte_tokenizer"])
def test_vocabulary_from_a_tokenizer(fixture: str, request: pytest.FixtureRequest) -> None:
    tokenizer = request.getfixturevalue(fixture)
    vocabulary = MaskableVocabulary.from_tokenizer(tokenizer)
    special = set(tokenizer.all_special_ids)
    assert vocabulary.mask_token_id == tokenizer.mask_token_id
    assert set(vocabulary.protected_ids) == special - {tokenizer.unk_token_id}
    assert sorted([*vocabulary.random_ids, *special]) == list(range(len(tokenizer)))


def test_a_tokenizer_whose_unknown_word_is_its_end_of_text_can_still_mask_unknown_words(
    byte_tokenizer: PreTrainedTokenizerFast,
) -> None:
    # As in GPT-2's family; the borders are protected by `special_tokens_mask` alone.
    shared = PreTrainedTokenizerFast(
        tokenizer_object=byte_tokenizer.backend_tokenizer,
        unk_token="</s>",
        eos_token="</s>",
        pad_token="<pad>",
        mask_token="<mask>",
    )
    vocabulary = MaskableVocabulary.from_tokenizer(shared)
    assert set(vocabulary.protected_ids) == {shared.pad_token_id, shared.mask_token_id}


def test_a_text_that_spells_a_special_token_is_text_but_is_never_masked(
    word_tokenizer: PreTrainedTokenizerFast,
) -> None:
    stream = StreamTokenizer(word_tokenizer)(["the [SEP] list"])
    sep = word_tokenizer.sep_token_id
    spelled = np.flatnonzero(stream.token_ids == sep)[0]
    assert 0 < spelled < len(stream.token_ids) - 1
    assert stream.is_special.nonzero()[0].tolist() == [0, len(stream.token_ids) - 1]

    blocks = make_blocks(stream.token_ids[np.newaxis]) | {
        "special_tokens_mask": stream.is_special[np.newaxis]
    }
    vocabulary = MaskableVocabulary.from_tokenizer(word_tokenizer)
    masked = apply_collator(MaskingCollator(vocabulary, MaskingConfig(rate=1.0), seed=0), blocks)
    not_chosen = np.flatnonzero(masked["labels"][0] == IGNORE_LABEL)
    assert not_chosen.tolist() == [0, spelled, len(stream.token_ids) - 1]
