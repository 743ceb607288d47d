"""A cached file is written once, whole or not at all, and is found only by what it was made from."""

import json
import logging
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
from datasets import Dataset
from transformers import PreTrainedTokenizerFast

from tests.tiny import SENTENCES
from tests.waiting import WAIT_SECONDS, wait_until
from tfmlm.config import Config, DataConfig, RunConfig, TokenizerConfig
from tfmlm.data import cache, prepare
from tfmlm.data.blocks import write_blocks
from tfmlm.data.cache import cache_dir, hash_once, make_once
from tfmlm.data.packing import Columns
from tfmlm.data.prepare import prepare_data
from tfmlm.data.sources import open_training_texts
from tfmlm.errors import UserError


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "not" / "there" / "yet"
    monkeypatch.setenv("TFMLM_CACHE", str(folder))
    return folder


def write(folder: Path) -> None:
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "text").write_text("whole")


def read(folder: Path) -> str:
    return (folder / "inner" / "text").read_text()


def list_folders(folder: Path) -> list[Path]:
    """What lies in a cache besides the locks."""
    return [path for path in folder.iterdir() if path.suffix != ".lock"]


# === Where ===


def test_the_cache_is_where_the_environment_says(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cache_dir() == own_cache
    monkeypatch.delenv("TFMLM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "tfmlm"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir() == Path.home() / ".cache" / "tfmlm"


# === Once, and whole ===


def test_writes_once(own_cache: Path) -> None:
    written = []

    def write_and_count(path: Path) -> None:
        written.append(path)
        write(path)

    first, second = (make_once("name", write_and_count) for _ in range(2))
    assert first == second == own_cache / "name"
    assert read(first) == "whole"
    assert len(written) == 1
    assert list_folders(own_cache) == [first]


def test_two_names_are_two_folders() -> None:
    first, second = make_once("one", write), make_once("two", write)
    assert first != second


def test_a_writer_that_fails_leaves_nothing_and_may_try_again(own_cache: Path) -> None:
    def write_and_fail(path: Path) -> None:
        write(path)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        make_once("name", write_and_fail)
    assert list_folders(own_cache) == []
    assert read(make_once("name", write)) == "whole"


def test_the_name_is_not_there_before_the_file_is_whole(own_cache: Path) -> None:
    def write_and_look(path: Path) -> None:
        write(path)
        assert not (own_cache / "name").exists()

    make_once("name", write_and_look)
    assert (own_cache / "name").exists()


# === Damaged, and in a place that cannot be written ===


def cut(folder: Path) -> None:
    (folder / "inner" / "text").write_text("who")


def alter(folder: Path) -> None:
    (folder / "inner" / "text").write_text("Whole")


def remove(folder: Path) -> None:
    (folder / "inner" / "text").unlink()


def add(folder: Path) -> None:
    (folder / "more").write_text("")


def forget_sums(folder: Path) -> None:
    (folder / ".sums.json").unlink()


def break_sums(folder: Path) -> None:
    (folder / ".sums.json").write_text("{")


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (cut, "inner/text"),
        (alter, "inner/text"),
        (remove, "inner/text"),
        (add, "more"),
        (forget_sums, ".sums.json"),
        (break_sums, ".sums.json"),
    ],
)
def test_a_damaged_folder_is_made_again(
    damage: Callable[[Path], None], named: str, own_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_once("name", write)
    damage(folder)
    assert read(make_once("name", write)) == "whole"
    assert caplog.messages == [f"cached file {folder / named} is damaged, and is made again"]
    assert {path.name for path in folder.iterdir()} == {"inner", ".sums.json"}
    make_once("name", lambda path: pytest.fail("it is whole"))


def test_a_cache_that_is_a_file_is_named(own_cache: Path) -> None:
    own_cache.parent.mkdir(parents=True)
    own_cache.write_text("")
    with pytest.raises(UserError, match=r"yet. cannot be written: .*; make room, or set TFMLM_CACHE"):
        make_once("name", write)


def test_an_error_of_what_the_writer_reads_is_not_the_caches(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="source"):
        make_once("name", lambda path: (tmp_path / "source").read_text())


# === Two at once ===


def make_beside_another(is_writing: Event, may_end: Event, results: Queue) -> None:
    def write_slowly(path: Path) -> None:
        is_writing.set()
        assert may_end.wait(WAIT_SECONDS)
        write(path)

    results.put(read(make_once("name", write_slowly)))


def test_one_process_writes_and_the_other_waits_for_it(
    own_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="tfmlm")
    spawn = multiprocessing.get_context("spawn")
    is_writing, may_end, results = spawn.Event(), spawn.Event(), spawn.Queue()
    process = spawn.Process(target=make_beside_another, args=(is_writing, may_end, results))
    process.start()
    assert is_writing.wait(WAIT_SECONDS)
    with ThreadPoolExecutor(1) as pool:
        mine = pool.submit(make_once, "name", lambda path: pytest.fail("the other one writes it"))
        wait_until(
            lambda: f"waiting for another process, which makes {own_cache / 'name'}" in caplog.messages
        )
        assert not mine.done()
        may_end.set()
        assert read(mine.result(WAIT_SECONDS)) == "whole"
    assert results.get(timeout=WAIT_SECONDS) == "whole"
    process.join()
    assert list_folders(own_cache) == [own_cache / "name"]


def test_a_process_that_is_killed_while_it_writes_keeps_nobody_waiting(own_cache: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    is_writing, may_end, results = spawn.Event(), spawn.Event(), spawn.Queue()
    process = spawn.Process(target=make_beside_another, args=(is_writing, may_end, results))
    process.start()
    assert is_writing.wait(WAIT_SECONDS)
    process.kill()
    assert read(make_once("name", write)) == "whole"
    process.join()


# === Cheap to find again ===


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are read whole."""
    hashed: list[Path] = []
    hash_file = cache._hash

    def note(path: Path) -> str:
        hashed.append(path)
        return hash_file(path)

    monkeypatch.setattr(cache, "_hash", note)
    return hashed


def test_a_folder_that_nobody_touched_is_not_read_again(hashed: list[Path]) -> None:
    make_once("name", write)
    hashed.clear()
    make_once("name", write)
    assert not hashed


def test_a_copy_with_other_times_is_read_and_found_whole(hashed: list[Path]) -> None:
    folder = make_once("name", write)
    os.utime(folder / "inner" / "text", (0, 0))
    hashed.clear()
    make_once("name", lambda path: pytest.fail("it is whole"))
    assert hashed == [folder / "inner" / "text"]


def age(path: Path) -> None:
    """As if it had been written long ago."""
    os.utime(path, (1_000_000, 1_000_000))


def test_a_text_is_hashed_once_and_again_when_anything_tells_of_a_change(
    hashed: list[Path], tmp_path: Path
) -> None:
    path = tmp_path / "text"
    path.write_text("some text")
    age(path)
    first = hash_once(path)
    assert hash_once(path) == first
    assert hashed == [path]

    path.write_text("more text")  # of the same size
    age(path)
    assert hash_once(path) != first
    path.write_text("some text")
    age(path)
    assert hash_once(path) == first
    os.utime(path, (2_000_000, 2_000_000))
    assert hash_once(path) == first
    assert len(hashed) == 4


def test_a_text_that_was_just_written_is_read_each_time(hashed: list[Path], tmp_path: Path) -> None:
    """Another change may have the same time."""
    path = tmp_path / "text"
    path.write_text("some text")
    hash_once(path)
    hash_once(path)
    assert len(hashed) == 2


# === Blocks by their fingerprint ===


@pytest.fixture
def packed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were packed, not found."""
    paths: list[Path] = []

    def write_and_note(blocks: Iterable[Columns], path: Path) -> None:
        paths.append(path)
        write_blocks(blocks, path)

    monkeypatch.setattr(prepare, "write_blocks", write_and_note)
    return paths


def configure(block_size: int) -> Config:
    return Config(data=DataConfig(block_size=block_size))


def pack_json(texts: list[str], tokenizer: PreTrainedTokenizerFast, block_size: int = 32) -> Dataset:
    """Blocks of a JSON file of these texts; each call writes the file anew, at a place of its own."""
    with tempfile.TemporaryDirectory() as elsewhere:
        path = Path(elsewhere, "texts.jsonl")
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        stream = open_training_texts(DataConfig(source="json", train_files=[str(path)]))
        return prepare._pack_once(stream, tokenizer, configure(block_size)).table


def count_tokens(
    texts: list[str], tokenizer: PreTrainedTokenizerFast, block_size: int = 32
) -> tuple[int, int]:
    """Blocks and tokens."""
    blocks = pack_json(texts, tokenizer, block_size)
    return len(blocks), sum(blocks["num_tokens"])


def test_the_same_texts_tokenizer_and_block_size_are_packed_once(
    word_tokenizer: PreTrainedTokenizerFast, packed: list[Path]
) -> None:
    assert count_tokens(SENTENCES, word_tokenizer) == count_tokens(list(SENTENCES), word_tokenizer)
    assert len(packed) == 1


def test_a_change_of_texts_tokenizer_or_block_size_is_packed_again(
    word_tokenizer: PreTrainedTokenizerFast,
    byte_tokenizer: PreTrainedTokenizerFast,
    packed: list[Path],
) -> None:
    changed = [
        count_tokens(SENTENCES, word_tokenizer),
        count_tokens(SENTENCES, byte_tokenizer),
        count_tokens(SENTENCES, word_tokenizer, block_size=64),
        count_tokens(SENTENCES[1:], word_tokenizer),
        count_tokens([*SENTENCES[1:], SENTENCES[0]], word_tokenizer),
    ]
    assert len(packed) == len(changed)


def test_another_padding_token_is_packed_again(
    word_tokenizer: PreTrainedTokenizerFast, packed: list[Path]
) -> None:
    """Which token pads is not written in the tokenizer's backend."""
    other = type(word_tokenizer)(tokenizer_object=word_tokenizer.backend_tokenizer, pad_token="[UNK]")
    paddings = [pack_json(["Return"], tokenizer)[0]["input_ids"][-1] for tokenizer in (word_tokenizer, other)]
    assert paddings == [word_tokenizer.pad_token_id, other.pad_token_id] == [0, 1]


@pytest.mark.parametrize(
    ("texts", "cut_elsewhere"),
    [
        (["the name", "the value"], ["the name\0the value"]),
        # Texts are read 1,000 at a time.
        (["the"] * 999 + ["name", "value"], ["the"] * 999 + ["namev", "alue"]),
        (["the"] * 999 + ["name", "value"], ["the"] * 999 + ["namevalue"]),
    ],
    ids=["null character", "border moved between batches", "border lost between batches"],
)
def test_the_same_characters_in_other_texts_are_packed_again(
    texts: list[str], cut_elsewhere: list[str], word_tokenizer: PreTrainedTokenizerFast, packed: list[Path]
) -> None:
    count_tokens(texts, word_tokenizer)
    count_tokens(cut_elsewhere, word_tokenizer)
    assert len(packed) == 2


def test_a_second_preparation_packs_nothing_and_gives_the_same(text_file: Path, packed: list[Path]) -> None:
    config = Config(
        run=RunConfig(seed=3),
        data=DataConfig(source="text", train_files=[str(text_file)], block_size=32, validation_fraction=0.25),
        tokenizer=TokenizerConfig(train_vocab_size=300),
    )
    first = prepare_data(config)
    assert len(packed) == 2
    second = prepare_data(config)
    assert len(packed) == 2
    assert first.train.table.to_dict() == second.train.table.to_dict()
    assert first.validation.table.to_dict() == second.validation.table.to_dict()
    tokens = [sum(part.table["num_tokens"]) for part in (first.train, first.validation)]
    assert 2 < tokens[0] / tokens[1] < 4
