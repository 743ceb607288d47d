"""The split is a choice by what a text says: near its share, complete, and the same in any order."""

import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import datasets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfmlm.config import DataConfig
from tfmlm.data.splitting import TextSplit, choose_split, load_texts
from tfmlm.data.text_stream import TextStream
from tfmlm.errors import UserError

TEXTS = [f"text number {number}" for number in range(5000)]
HALF = 2**63

few_texts = st.lists(st.text(max_size=3), max_size=30)
seeds = st.integers(-(2**70), 2**70)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")


def stream(texts: list[str], texts_a_batch: int = 7) -> TextStream:
    def read(part: int) -> Iterator[list[str]]:
        return (texts[start : start + texts_a_batch] for start in range(0, len(texts), texts_a_batch))

    return TextStream(1, read, lambda: "of a test")


def flatten(texts: TextStream) -> list[str]:
    return [text for batch in texts for text in batch]


def write_lines(path: Path, lines: list[str]) -> str:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(path)


def load(path: Path, texts: list[str], seed: int = 0, **options: object) -> tuple[list[str], list[str]]:
    """The training and the held-out texts of a file."""
    data = DataConfig(source="text", train_files=[write_lines(path, texts)], **options)
    loaded = load_texts(data, seed)
    return flatten(loaded.train), flatten(loaded.validation)


def split_texts(split: TextSplit, texts: list[str]) -> tuple[list[str], list[str]]:
    return split.choose_training(texts), split.choose_held_out(texts)


# === Shares ===


@pytest.mark.parametrize("seed", [0, 1, 2, -1, 2**64])
@pytest.mark.parametrize("fraction", [0.01, 0.05, 0.5, 0.9])
def test_the_held_out_share_is_near_the_fraction(fraction: float, seed: int) -> None:
    split = choose_split(stream(TEXTS), DataConfig(validation_fraction=fraction), seed, holds_out=True)
    train, held_out = split_texts(split, TEXTS)
    deviation = (len(TEXTS) * fraction * (1 - fraction)) ** 0.5
    assert abs(len(held_out) - len(TEXTS) * fraction) < 4 * deviation
    assert len(train) + len(held_out) == len(TEXTS)


def test_a_file_is_split_as_its_texts_are(tmp_path: Path) -> None:
    train, held_out = load(tmp_path / "a.txt", TEXTS, seed=3, validation_fraction=0.2)
    split = choose_split(stream(TEXTS), DataConfig(validation_fraction=0.2), 3, holds_out=True)
    assert (train, held_out) == split_texts(split, TEXTS)
    assert 800 < len(held_out) < 1200


def test_the_sample_and_the_split_are_independent() -> None:
    """With one hash for both, the sampled texts would be the held-out ones."""
    data = DataConfig(max_rows=1000, validation_fraction=0.2)
    split = choose_split(stream(TEXTS), data, 0, holds_out=True)
    assert 150 < len(split.choose_held_out(TEXTS)) < 250


# === What a choice depends on ===


@given(texts=few_texts, seed=seeds, used=st.integers(0, 2**64), held_out=st.integers(0, 2**64))
def test_nothing_is_lost_and_nothing_comes_twice(
    texts: list[str], seed: int, used: int, held_out: int
) -> None:
    split = TextSplit(seed, used, held_out)
    train, validation = split_texts(split, texts)
    assert Counter(train) + Counter(validation) == Counter(split.choose_used(texts))
    assert not set(train) & set(validation)
    assert TextSplit(seed, 2**64, held_out).choose_used(texts) == texts


@given(texts=few_texts, others=few_texts, seed=seeds, order=st.randoms(use_true_random=False))
def test_the_choice_depends_on_the_text_alone(
    texts: list[str], others: list[str], seed: int, order: random.Random
) -> None:
    split = TextSplit(seed, 3 * 2**62, HALF)
    mixed = [*texts, *others]
    order.shuffle(mixed)
    for choose in (split.choose_used, split.choose_training, split.choose_held_out):
        chosen = set(choose(texts))
        assert {text for text in choose(mixed) if text in texts} == chosen
        assert [text for text in texts if text in chosen] == choose(texts)


@settings(max_examples=50)
@given(texts=few_texts.filter(lambda texts: len(set(texts)) > 1), seed=seeds, size=st.integers(1, 9))
def test_both_sides_are_never_empty(texts: list[str], seed: int, size: int) -> None:
    data = DataConfig(validation_fraction=0.05)
    try:
        split = choose_split(stream(texts, size), data, seed, holds_out=True)
    except UserError as error:
        assert "leaves none to train on" in str(error)  # noqa: PT017
        split = TextSplit(seed, held_out_below=int(0.05 * 2**64))
        assert not split.choose_training(texts)
    else:
        assert all(split_texts(split, texts))
        assert choose_split(stream(texts[::-1], size), data, seed, holds_out=True) == split


def test_equal_texts_lie_on_one_side(tmp_path: Path) -> None:
    train, held_out = load(tmp_path / "a.txt", TEXTS[:200] * 3, validation_fraction=0.3)
    assert not set(train) & set(held_out)
    assert set(Counter(train).values()) == set(Counter(held_out).values()) == {3}


@pytest.mark.parametrize("fraction", [1e-9, 0.05])
def test_one_text_of_few_is_held_out(fraction: float, tmp_path: Path) -> None:
    for seed in range(20):
        train, held_out = load(tmp_path / "a.txt", ["one", "two", "one"], seed, validation_fraction=fraction)
        assert len(set(held_out)) == 1
        assert sorted(train + held_out) == ["one", "one", "two"]


def test_another_seed_holds_out_others() -> None:
    chosen = {tuple(TextSplit(seed, held_out_below=HALF).choose_held_out(TEXTS[:50])) for seed in range(10)}
    assert len(chosen) == 10


def test_a_choice_made_before_is_taken(tmp_path: Path) -> None:
    data = DataConfig(source="text", train_files=[write_lines(tmp_path / "a.txt", TEXTS[:9])])
    before = TextSplit(0, held_out_below=2**64)
    texts = load_texts(data, 0, before)
    assert texts.split == before
    assert (flatten(texts.train), flatten(texts.validation)) == ([], TEXTS[:9])


# === max_rows ===


@pytest.mark.parametrize("max_rows", [2, 100, 4999, 5000, 6000])
def test_max_rows_is_exact(max_rows: int, tmp_path: Path) -> None:
    train, held_out = load(tmp_path / "a.txt", TEXTS, max_rows=max_rows)
    assert len(train) + len(held_out) == min(max_rows, 5000)
    assert set(train + held_out) <= set(TEXTS)
    assert train != TEXTS[: len(train)] or max_rows >= 5000


def test_another_seed_samples_others(tmp_path: Path) -> None:
    first, again, other = (load(tmp_path / "a.txt", TEXTS, seed, max_rows=50) for seed in (1, 1, 2))
    assert first == again
    assert len({text for part in first for text in part} & {text for part in other for text in part}) < 10


def test_max_rows_of_a_stream_takes_the_first(tmp_path: Path) -> None:
    train, held_out = load(tmp_path / "a.txt", TEXTS, max_rows=1500, streaming=True, validation_fraction=0.2)
    assert sorted(train + held_out) == sorted(TEXTS[:1500])
    assert 230 < len(held_out) < 370


def test_max_rows_does_not_cut_validation_files(tmp_path: Path) -> None:
    held_out_file = write_lines(tmp_path / "v.txt", TEXTS[:30])
    for streaming in (False, True):
        train, held_out = load(
            tmp_path / "a.txt", TEXTS, max_rows=5, validation_files=[held_out_file], streaming=streaming
        )
        assert (len(train), held_out) == (5, TEXTS[:30])


# === Errors ===


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        (["one", " "], {}, "holds 1 text; at least 2 are needed to hold one out; give more text or name"),
        (["one"] * 3, {}, "holds 3 texts, all the same; at least 2 are needed"),
        (TEXTS, {"max_rows": 1}, "holds 1 text; at least 2 are needed"),
        (["one", "two"], {"validation_fraction": 1 - 1e-9}, "of 2 texts leaves none to train on"),
        (["", "\t"], {}, "'text' holds no text in column 'text'"),
    ],
)
@pytest.mark.parametrize("on_bad_rows", ["error", "skip"])
def test_too_little_text(
    texts: list[str], options: dict[str, object], message: str, on_bad_rows: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        load(tmp_path / "a.txt", texts, on_bad_rows=on_bad_rows, **options)


def test_no_training_text_beside_validation_files(tmp_path: Path) -> None:
    held_out = write_lines(tmp_path / "v.txt", ["held out"])
    with pytest.raises(UserError, match="holds no text in column 'text'"):
        load(tmp_path / "a.txt", [" "], validation_files=[held_out])
    assert load(tmp_path / "a.txt", ["one"], validation_files=[held_out]) == (["one"], ["held out"])


# === Bad rows ===


def write_bad_json(path: Path, num_rows: int) -> str:
    """Every tenth row is bad, the second the first of them."""
    rows = [{"text": number if number % 10 == 1 else TEXTS[number]} for number in range(num_rows)]
    return write_lines(path, [json.dumps(row) for row in rows])


def test_bad_rows_are_counted_once_over_all_passes(tmp_path: Path) -> None:
    files = [write_bad_json(tmp_path / f"{name}.jsonl", 3000) for name in "ab"]
    data = DataConfig(source="json", train_files=files, on_bad_rows="skip", max_rows=2000)
    texts = load_texts(data, 0)
    for part in (texts.train, texts.validation, texts.train):
        assert flatten(part)
        assert {row.file: row.num_rows for row in texts.train.bad_rows.values()} == dict.fromkeys(files, 300)
    assert {row.row for row in texts.train.bad_rows.values()} == {2}
    assert texts.validation.bad_rows == texts.train.bad_rows


def test_a_pass_that_stops_early_forgets_no_bad_row(tmp_path: Path) -> None:
    """As the last epoch of a streamed run does."""
    path = write_bad_json(tmp_path / "a.jsonl", 3000)
    texts = load_texts(DataConfig(source="json", train_files=[path], on_bad_rows="skip"), 0)
    flatten(texts.train)
    next(iter(texts.train))
    assert texts.train.bad_rows[path].num_rows == 300


def test_bad_rows_of_validation_files_are_counted_apart(tmp_path: Path) -> None:
    train, held_out = write_bad_json(tmp_path / "t.jsonl", 50), write_bad_json(tmp_path / "v.jsonl", 20)
    texts = load_texts(
        DataConfig(source="json", train_files=[train], validation_files=[held_out], on_bad_rows="skip"), 0
    )
    assert len(flatten(texts.train)) == 45
    assert len(flatten(texts.validation)) == 18
    assert {row.file: row.num_rows for row in texts.train.bad_rows.values()} == {train: 5}
    assert {row.file: row.num_rows for row in texts.validation.bad_rows.values()} == {held_out: 2}


def test_data_of_bad_rows_alone_names_the_first(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", ["", '{"text": 1}', '{"text": 2}'])
    data = DataConfig(source="json", train_files=[path], on_bad_rows="skip")
    with pytest.raises(UserError, match="holds no text") as refusal:
        load_texts(data, 0)
    assert str(refusal.value).endswith(f"{path}, row 2: column 'text' holds 1, not text")
