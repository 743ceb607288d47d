"""The tokenizers that the tests train know the tests' own text; unknown tokens would show little."""

import pytest
from transformers import PreTrainedTokenizerFast

from tests.tiny import SENTENCES
from tfmlm.config import TokenizerConfig
from tfmlm.data.tokenizer_training import train_tokenizer


def known_share(tokenizer: PreTrainedTokenizerFast) -> float:
    """Of the tokens of all sentences, those that are not the unknown one."""
    rows = tokenizer(SENTENCES, add_special_tokens=False)["input_ids"]
    ids = [token_id for row in rows for token_id in row]
    return 1 - ids.count(tokenizer.unk_token_id) / len(ids)


def test_the_fixtures_know_the_sentences(
    word_tokenizer: PreTrainedTokenizerFast,
    byte_tokenizer: PreTrainedTokenizerFast,
    piece_tokenizer: PreTrainedTokenizerFast,
) -> None:
    shares = [known_share(each) for each in (word_tokenizer, byte_tokenizer, piece_tokenizer)]
    assert min(shares) >= 0.99, shares


@pytest.mark.parametrize(
    ("algorithm", "size"),
    [("wordpiece", 200), ("wordpiece", 300), ("byte_bpe", 320), ("unigram", 300), ("unigram", 320)],
)
def test_those_that_runs_train_know_the_sentences(algorithm: str, size: int) -> None:
    config = TokenizerConfig(train_vocab_size=size, algorithm=algorithm)
    assert known_share(train_tokenizer([SENTENCES], config)) >= 0.99
