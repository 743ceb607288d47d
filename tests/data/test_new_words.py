"""New words in a vocabulary: which are chosen, what they change, and what stays as it was."""

import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from tests.tiny import SENTENCES
from tfmlm.config import Config, DataConfig, TokenizerConfig
from tfmlm.data.characters import count_characters
from tfmlm.data.new_pieces import choose_runs
from tfmlm.data.new_words import (
    count_words,
    extend_tokenizer,
    find_origins,
    is_extended,
    measure_tokens_a_text,
)
from tfmlm.data.prepare import make_tokenizer
from tfmlm.data.splitting import load_texts
from tfmlm.data.tokenizers import count_ids, load_tokenizer, save_tokenizer_folder
from tfmlm.errors import UserError

KINDS = ("word_tokenizer", "byte_tokenizer", "piece_tokenizer")
FIELD = [
    f"{word} {sentence}" for word in ("Largest patella,", "A pilot's plot") for sentence in SENTENCES[::5]
]
"""Words of letters that all three tokenizers know, as they have not seen them."""

WORDS = ["pillar", "Attest", "self-test"]


@pytest.fixture(params=KINDS)
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    found: PreTrainedTokenizerFast = request.getfixturevalue(request.param)
    return found


def tokenize(tokenizer: PreTrainedTokenizerFast, text: str) -> list[str]:
    return tokenizer.convert_ids_to_tokens(tokenizer(text, add_special_tokens=False)["input_ids"])


# === The choice ===


def choose_slowly(words: Counter[tuple[str, ...]], most: int, longest: int) -> list[str]:
    """Counts everything anew for each choice."""
    chosen: list[str] = []
    while len(chosen) < most:
        saved: Counter[tuple[str, ...]] = Counter()
        for word, count in words.items():
            for start in range(len(word)):
                for end in range(start + 2, min(start + longest, len(word)) + 1):
                    saved[word[start:end]] += count * (end - start - 1)
        candidates = [
            (-saving, run)
            for run, saving in saved.items()
            if saving >= 2 * (len(run) - 1) and "".join(run) not in chosen
        ]
        if not candidates:
            break
        _, run = min(candidates)
        chosen.append("".join(run))
        joined: Counter[tuple[str, ...]] = Counter()
        for word, count in words.items():
            tokens: list[str] = []
            rest = list(word)
            while rest:
                size = len(run) if tuple(rest[: len(run)]) == run else 1
                tokens.append("".join(rest[:size]))
                rest = rest[size:]
            joined[tuple(tokens)] += count
        words = joined
    return chosen


@settings(max_examples=60, deadline=None)
@given(
    words=st.dictionaries(st.text("abc", min_size=2, max_size=7).map(tuple), st.integers(1, 5), max_size=8),
    longest=st.integers(2, 4),
)
def test_the_choice_is_that_of_counting_anew_each_time(
    words: dict[tuple[str, ...], int], longest: int
) -> None:
    runs = choose_runs(words, "".join, 5, longest, excluded=())
    assert [run.piece for run in runs] == choose_slowly(Counter(words), 5, longest)


def test_words_are_counted_as_the_tokenizer_cuts_them(tokenizer: PreTrainedTokenizerFast) -> None:
    counted = count_words(tokenizer, [FIELD[:7], FIELD[7:]])
    longest = max(counted, key=len)
    text = "".join(token.removeprefix("##") for token in longest).strip("▁Ġ")
    assert len(longest) > 8 or len(text) > 3  # not divided as whole-word masking divides them
    assert (
        counted[longest] == sum(text.lower() in row.lower().split(" ") for row in FIELD)
        or counted[longest] > 1
    )
    assert not any(len(word) < 2 or tokenizer.unk_token in word for word in counted)


# === The vocabulary ===


def test_the_old_ids_stay_and_texts_have_fewer_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    before = tokenizer.backend_tokenizer.to_str()
    extended = extend_tokenizer(tokenizer, WORDS, 12, [FIELD])
    assert tokenizer.backend_tokenizer.to_str() == before
    assert is_extended(tokenizer, extended)
    assert not is_extended(extended, tokenizer)
    num_new = count_ids(extended) - count_ids(tokenizer)
    assert len(WORDS) < num_new <= len(WORDS) + 12
    assert sorted(extended.get_vocab().values()) == list(range(count_ids(extended)))
    measured = measure_tokens_a_text(tokenizer, extended, [FIELD])
    assert measured.num_new == num_new
    assert measured.before == pytest.approx(
        sum(len(tokenize(tokenizer, text)) for text in FIELD) / len(FIELD)
    )
    assert measured.after == pytest.approx(sum(len(tokenize(extended, text)) for text in FIELD) / len(FIELD))
    assert measured.after < 0.9 * measured.before


@pytest.mark.parametrize("fixture", ["byte_tokenizer", "piece_tokenizer"])
def test_new_pieces_only_join_old_tokens(fixture: str, request: pytest.FixtureRequest) -> None:
    """Of BPE and unigram no text is cut in another way than before, and then joined."""
    tokenizer = request.getfixturevalue(fixture)
    extended = extend_tokenizer(tokenizer, [], 12, [FIELD])
    origins = find_origins(tokenizer, extended)
    rng = random.Random(0)
    letters = "".join({letter for text in FIELD for letter in text})
    strange = ["".join(rng.choices(letters, k=30)) for _ in range(300)]
    num_joined = 0
    for text in [*FIELD, *SENTENCES, *strange]:
        ids = extended(text, add_special_tokens=False)["input_ids"]
        old = [old_id for token_id in ids for old_id in origins.get(token_id, [token_id])]
        assert old == tokenizer(text, add_special_tokens=False)["input_ids"], text
        num_joined += len(old) - len(ids)
    assert num_joined > len(FIELD)


def test_no_wordpiece_costs_more_than_it_saves(word_tokenizer: PreTrainedTokenizerFast) -> None:
    words = count_words(word_tokenizer, [FIELD])
    extended = extend_tokenizer(word_tokenizer, [], 30, [FIELD])
    used = Counter(token for text in FIELD for token in tokenize(extended, text))
    new = set(extended.get_vocab()) - set(word_tokenizer.get_vocab())
    assert words
    assert new
    assert all(used[token] >= 2 for token in new)


def test_origins_are_the_old_tokens_of_the_same_text(tokenizer: PreTrainedTokenizerFast) -> None:
    extended = extend_tokenizer(tokenizer, WORDS, 12, [FIELD])
    origins = find_origins(tokenizer, extended)
    assert list(origins) == list(range(count_ids(tokenizer), count_ids(extended)))
    added = extended.get_added_vocab()
    for token_id, old in origins.items():
        token = extended.convert_ids_to_tokens(token_id)
        pieces = [piece.removeprefix("##") for piece in tokenizer.convert_ids_to_tokens(old)]
        if token in added:
            assert old == tokenizer(f" {token}", add_special_tokens=False)["input_ids"]
        else:
            assert len(old) > 1
            assert "".join(pieces) == token.removeprefix("##")


def test_given_words_match_inside_no_other_word(tokenizer: PreTrainedTokenizerFast) -> None:
    extended = extend_tokenizer(tokenizer, WORDS, 0, [])
    added = {token.lower() for token in extended.get_added_vocab()}
    for word in WORDS:
        assert word.lower() in added
        for text in (word, f"the {word}", f"the {word}, if", f"({word})", f"a-{word}."):
            assert [each.lower() for each in tokenize(extended, text)].count(word.lower()) == 1, text
        for text in (f"{word}s", f"the{word}", f"{word}_", f"{word}1", f"x{word}x"):
            assert word.lower() not in [each.lower() for each in tokenize(extended, text)], text
            assert tokenize(extended, text) == tokenize(tokenizer, text)


def test_the_same_texts_in_another_order_give_the_same_vocabulary(tokenizer: PreTrainedTokenizerFast) -> None:
    shuffled = random.Random(1).sample(FIELD, len(FIELD))
    first = extend_tokenizer(tokenizer, WORDS, 12, [FIELD])
    second = extend_tokenizer(tokenizer, WORDS, 12, [shuffled[:9], shuffled[9:]])
    assert first.backend_tokenizer.to_str() == second.backend_tokenizer.to_str()


def test_a_saved_one_is_the_same(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    """And may grow again."""
    extended = extend_tokenizer(tokenizer, WORDS, 5, [FIELD])
    save_tokenizer_folder(extended, tmp_path / "tokenizer")
    loaded = load_tokenizer(tmp_path / "tokenizer")
    assert loaded.backend_tokenizer.to_str() == extended.backend_tokenizer.to_str()
    assert type(loaded) is type(tokenizer)
    again = extend_tokenizer(loaded, [*WORDS, "lattice"], 3, [FIELD])
    assert is_extended(loaded, again)
    assert count_ids(again) <= count_ids(loaded) + 4
    save_tokenizer_folder(again, tmp_path / "again")
    reloaded = load_tokenizer(tmp_path / "again")
    assert reloaded.get_vocab() == again.get_vocab()
    assert tokenize(reloaded, "the lattice, pillar") == tokenize(again, "the lattice, pillar")


def test_a_text_that_repeats_nothing_adds_nothing(tokenizer: PreTrainedTokenizerFast) -> None:
    assert len(extend_tokenizer(tokenizer, [], 9, [["pillar"]])) == len(tokenizer)


def test_known_words_are_left_out_and_special_ones_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    known = next(
        word
        for word in ("the", "given")
        if len(tokenizer(f" {word}", add_special_tokens=False)["input_ids"]) == 1
    )
    assert len(extend_tokenizer(tokenizer, [known], 0, [])) == len(tokenizer)
    with pytest.raises(UserError, match="a special token; leave it out"):
        extend_tokenizer(tokenizer, [tokenizer.mask_token], 0, [])


def test_held_out_text_takes_no_part(word_tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    word_tokenizer.save_pretrained(tmp_path / "tokenizer")
    (tmp_path / "train.txt").write_text("\n".join(f"{text} pillar" for text in SENTENCES))
    (tmp_path / "held_out.txt").write_text("\n".join(f"{text} lattice" for text in SENTENCES))
    config = Config(
        data=DataConfig(
            source="text",
            train_files=[str(tmp_path / "train.txt")],
            validation_files=[str(tmp_path / "held_out.txt")],
        ),
        tokenizer=TokenizerConfig(name_or_path=str(tmp_path / "tokenizer"), extend_from_text=50),
    )
    tokenizer, measured = make_tokenizer(config, load_texts(config.data, 0))
    assert "pillar" in tokenizer.get_vocab()
    assert "lattice" not in tokenizer.get_vocab()
    held_out = (tmp_path / "held_out.txt").read_text().splitlines()
    assert measured is not None
    assert measured.after * len(held_out) == sum(len(tokenize(tokenizer, text)) for text in held_out)


# === Characters ===


def test_a_text_has_as_many_characters_under_every_vocabulary(tokenizer: PreTrainedTokenizerFast) -> None:
    extended = extend_tokenizer(tokenizer, WORDS, 12, [FIELD])
    for text in [*FIELD, "the pillar, the  Attest\n (self-test)"]:
        for each in (tokenizer, extended):
            counts = count_characters(each)
            assert counts is not None
            ids = each(text, add_special_tokens=False)["input_ids"]
            if each.unk_token_id not in ids:
                assert counts[ids].sum() == len("".join(text.split())), (text, tokenize(each, text))


def test_characters_of_more_than_one_byte_count_once(byte_tokenizer: PreTrainedTokenizerFast) -> None:
    counts = count_characters(byte_tokenizer)
    assert counts is not None
    assert counts[byte_tokenizer("naïve 日本 🤗")["input_ids"]].sum() == 8
