"""The stream is what the tokenizer says of any text."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Replace
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tests.data.blocks import DOCSTRINGS, ODD, encode_one_by_one
from tests.tiny import SENTENCES
from tfmlm.data.packing import StreamTokenizer, TokenStream

SPELLED = ["[SEP]", "a [MASK] b", "[CLS][PAD]", "[UNK]", "</s>", "<s> a", "the <mask>", "  <mask>  a"]

texts_of_all_kinds = st.lists(
    st.one_of(st.text(max_size=40), st.sampled_from(SPELLED + ODD + SENTENCES)), max_size=8
)


def assert_same_stream(left: TokenStream, right: TokenStream) -> None:
    np.testing.assert_array_equal(left.token_ids, right.token_ids)
    np.testing.assert_array_equal(left.is_special, right.is_special)
    assert left.token_ids.dtype == right.token_ids.dtype == np.int32
    assert left.is_special.dtype == right.is_special.dtype == np.bool_


@settings(deadline=None, max_examples=150)
@given(texts=texts_of_all_kinds)
def test_stream_is_what_the_tokenizer_says_of_any_text(
    any_tokenizer: PreTrainedTokenizerFast, texts: list[str]
) -> None:
    assert_same_stream(StreamTokenizer(any_tokenizer)(texts), encode_one_by_one(any_tokenizer, texts))


def test_stream_is_what_the_tokenizer_says_of_real_docstrings(any_tokenizer: PreTrainedTokenizerFast) -> None:
    assert len(DOCSTRINGS) > 300
    assert max(map(len, DOCSTRINGS)) > 5_000  # more than any model's maximum
    assert_same_stream(
        StreamTokenizer(any_tokenizer)(DOCSTRINGS), encode_one_by_one(any_tokenizer, DOCSTRINGS)
    )


@pytest.mark.parametrize("with_words", [False, True])
def test_a_text_that_makes_no_token_adds_no_special_ones(
    with_words: bool, word_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Zero-width characters, which BERT's normalizer takes away, and none at all."""
    tokenize = StreamTokenizer(word_tokenizer, with_words)
    nothing = ["", "\u200b\u200d", "\ufeff", " "]
    assert len(tokenize(nothing).token_ids) == 0
    among = tokenize([*nothing, SENTENCES[0], *nothing])
    for part, alone in zip(among, tokenize(SENTENCES[:1]), strict=True):
        np.testing.assert_array_equal(part, alone)


def plain_tokenizer(template: str = "$A") -> PreTrainedTokenizerFast:
    """Words, and around them the special tokens of the template."""
    words = {"<pad>": 0, "<unk>": 1, "<mask>": 2, "list": 3, "<s>": 4, "</s>": 5}
    backend = Tokenizer(WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = Whitespace()
    backend.post_processor = TemplateProcessing(single=template, special_tokens=[("<s>", 4), ("</s>", 5)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", pad_token="<pad>", mask_token="<mask>"
    )


def test_a_tokenizer_that_adds_no_special_tokens_marks_none() -> None:
    stream = StreamTokenizer(plain_tokenizer())(["a list", "", "list"])
    assert stream.token_ids.tolist() == [1, 3, 3]
    assert not stream.is_special.any()
    assert stream.starts_word is None


@pytest.mark.parametrize("template", ["<s> $A", "$A </s>", "<s> <s> $A </s> </s> </s>"])
def test_special_tokens_are_marked_on_either_side_however_many(template: str) -> None:
    tokenizer = plain_tokenizer(template)
    texts = ["a list", "", "list", "list list list"]
    assert_same_stream(StreamTokenizer(tokenizer)(texts), encode_one_by_one(tokenizer, texts))


@pytest.mark.parametrize("template", ["$A", "<s> $A", "$A </s>", "<s> <s> $A </s> </s> </s>"])
def test_words_start_where_the_tokenizer_s_own_numbers_change(template: str) -> None:
    """Special tokens have none, and stand alone also beside each other and after a word of any number."""
    tokenizer = plain_tokenizer(template)
    texts = ["list", "a list", "", "list list list", "a"]
    expected = []
    for text in texts:
        numbers = tokenizer(text).word_ids() if text else []
        before = [object(), *numbers]
        expected += [number is None or number != last for number, last in zip(numbers, before, strict=False)]
    stream = StreamTokenizer(tokenizer, with_words=True)(texts)
    assert stream.starts_word is not None
    assert stream.starts_word.tolist() == expected


def test_every_text_starts_a_word_even_without_special_tokens_between() -> None:
    stream = StreamTokenizer(plain_tokenizer(), with_words=True)(["list", "list", "", "a list", "list", ""])
    assert stream.starts_word is not None
    assert stream.starts_word.tolist() == [True] * 5


def make_without_letter_a(vocabulary: list[str]) -> PreTrainedTokenizerFast:
    """A tokenizer of these words that leaves out every `a`."""
    tokens = ["<pad>", "<mask>", "<s>", "</s>", "<unk>", *vocabulary]
    backend = Tokenizer(WordLevel({token: number for number, token in enumerate(tokens)}, unk_token="<unk>"))
    backend.normalizer = Replace(Regex("a"), "")
    backend.pre_tokenizer = Whitespace()
    backend.post_processor = TemplateProcessing("<s> <s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 3)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", mask_token="<mask>")


def test_a_tokenizer_that_does_not_know_the_letter_a() -> None:
    stream = StreamTokenizer(make_without_letter_a(["list", "of"]))(["list of", "of"])
    assert stream.token_ids.tolist() == [2, 2, 5, 6, 3, 2, 2, 6, 3]
    assert stream.is_special.tolist() == [True, True, False, False, True, True, True, False, True]


def test_truncation_and_padding_that_came_with_a_tokenizer_do_not_cut_or_fill(
    any_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    any_tokenizer.save_pretrained(tmp_path)
    backend = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    backend.enable_truncation(4)
    backend.enable_padding(length=64)
    backend.save(str(tmp_path / "tokenizer.json"))
    cutting = AutoTokenizer.from_pretrained(tmp_path)
    assert sum(cutting.backend_tokenizer.encode(SENTENCES[0]).attention_mask) == 4

    texts = [SENTENCES[0] * 20, "a"]
    assert_same_stream(StreamTokenizer(cutting)(texts), encode_one_by_one(any_tokenizer, texts))
    # The tokenizer that was given keeps its own settings.
    assert cutting.backend_tokenizer.truncation["max_length"] == 4
    assert cutting.backend_tokenizer.padding["length"] == 64
