"""Trained tokenizers: usual classes, whole texts back, and the same file for the same text."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    AutoTokenizer,
    BertTokenizerFast,
    PreTrainedTokenizerFast,
    RobertaTokenizerFast,
    XLMRobertaTokenizerFast,
)

from tests.tiny import SENTENCES
from tfmlm.config import TokenizerConfig
from tfmlm.data.tokenizer_training import train_tokenizer
from tfmlm.errors import UserError

CLASSES = {
    "wordpiece": BertTokenizerFast,
    "byte_bpe": RobertaTokenizerFast,
    "unigram": XLMRobertaTokenizerFast,
}
TEXTS = [[*SENTENCES, "Zürich 日本語 🤗", "naïve café"]]
TRAIN_AND_SAVE = """
import sys, tfmlm
from tfmlm.config import TokenizerConfig
from tfmlm.data.installed_docs import list_source_files, read_docstrings
from tfmlm.data.tokenizer_training import train_tokenizer
files = [path for path in list_source_files() if path.parts[-2] in ("tqdm", "yaml")]
if __name__ == "__main__":
    texts = [read_docstrings(files)]
    for algorithm in sys.argv[2:]:
        config = TokenizerConfig(train_vocab_size=2000, algorithm=algorithm)
        train_tokenizer(texts, config).save_pretrained(f"{sys.argv[1]}/{algorithm}")
"""


@pytest.mark.parametrize("algorithm", CLASSES)
def test_loads_as_the_usual_class_and_encodes_the_same(algorithm: str, tmp_path: Path) -> None:
    trained = train_tokenizer(TEXTS, TokenizerConfig(train_vocab_size=350, algorithm=algorithm))
    trained.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert type(loaded) is CLASSES[algorithm]
    assert len(loaded) == len(trained) <= 350
    for text in [*TEXTS[0], "", f"a {trained.mask_token} b", "two  spaces\n"]:
        assert loaded(text)["input_ids"] == trained(text)["input_ids"]


@pytest.mark.parametrize("algorithm", CLASSES)
def test_special_tokens_stand_where_the_architecture_wants_them(algorithm: str) -> None:
    tokenizer = train_tokenizer(TEXTS, TokenizerConfig(train_vocab_size=350, algorithm=algorithm))
    ids = tokenizer(f"Return the {tokenizer.mask_token}.")["input_ids"]
    assert ids[0] == tokenizer.cls_token_id
    assert ids[-1] == tokenizer.sep_token_id
    assert ids.count(tokenizer.mask_token_id) == 1
    assert tokenizer.pad_token_id == (0 if algorithm == "wordpiece" else 1)
    assert len(tokenizer.all_special_ids) == 5
    assert sorted(tokenizer.all_special_ids) == [0, 1, 2, 3, 4]


# === What a vocabulary knows ===


def share_of_unknown(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> float:
    ids = [token for row in tokenizer(texts, add_special_tokens=False)["input_ids"] for token in row]
    return ids.count(tokenizer.unk_token_id) / len(ids)


@settings(max_examples=40, deadline=None)
@given(
    words=st.lists(
        st.text("abcxyzABC019.,;(éüñßабвд中文字", min_size=1, max_size=8), min_size=1, max_size=60
    ),
    vocab_size=st.integers(10, 400),
)
def test_wordpiece_keeps_its_texts_letters_in_half_the_vocabulary(words: list[str], vocab_size: int) -> None:
    """Nothing is unknown where the characters, and those that can continue a word, fit into half of it."""
    texts = [" ".join(words)]
    tokenizer = train_tokenizer([texts], TokenizerConfig(train_vocab_size=vocab_size))
    assert len(tokenizer) <= vocab_size
    characters = {token.removeprefix("##") for token in tokenizer.get_vocab()}
    single = [token for token in tokenizer.get_vocab() if len(token.removeprefix("##")) == 1]
    assert len(single) <= vocab_size // 2
    pieces = tokenizer.backend_tokenizer.normalizer.normalize_str(texts[0])
    if 2 * len(set(pieces.replace(" ", ""))) <= vocab_size // 2:
        assert share_of_unknown(tokenizer, texts) == 0
        assert set(pieces.replace(" ", "")) <= characters


def test_wordpiece_keeps_ascii_and_leaves_out_the_rarest_of_the_others() -> None:
    texts = ["die " * 4000 + "Q ~ é é é é é é é é é é é é ж"]
    vocabulary = train_tokenizer([texts], TokenizerConfig(train_vocab_size=300)).get_vocab()
    assert "q" in vocabulary
    assert "~" in vocabulary
    assert "##~" not in vocabulary
    assert "ж" not in vocabulary


def test_three_hundred_entries_are_enough_for_a_small_english_text() -> None:
    tokenizer = train_tokenizer([SENTENCES], TokenizerConfig(train_vocab_size=300))
    assert share_of_unknown(tokenizer, SENTENCES) == 0


def test_a_unigram_vocabulary_below_the_number_of_characters_is_refused() -> None:
    with pytest.raises(UserError, match="train_vocab_size is 20, and the text has more characters than that"):
        train_tokenizer(TEXTS, TokenizerConfig(train_vocab_size=20, algorithm="unigram"))


@pytest.mark.parametrize("algorithm", ["byte_bpe", "unigram"])
def test_text_comes_back(algorithm: str) -> None:
    tokenizer = train_tokenizer(TEXTS, TokenizerConfig(train_vocab_size=350, algorithm=algorithm))
    for text in SENTENCES[:50]:
        assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text


def test_bytes_need_no_unknown_token() -> None:
    tokenizer = train_tokenizer(TEXTS, TokenizerConfig(train_vocab_size=350, algorithm="byte_bpe"))
    assert tokenizer.unk_token_id not in tokenizer("\x00 日本 ﷽")["input_ids"]


def test_the_same_texts_give_the_same_file(tmp_path: Path) -> None:
    """In processes of their own, because hash seeds change from process to process."""
    script = tmp_path / "train.py"
    script.write_text(TRAIN_AND_SAVE)
    folders = [tmp_path / str(number) for number in range(3)]
    for folder in folders:
        subprocess.run([sys.executable, script, folder, *CLASSES], check=True)
    for algorithm in CLASSES:
        files = {(folder / algorithm / "tokenizer.json").read_bytes() for folder in folders}
        assert len(files) == 1, algorithm
