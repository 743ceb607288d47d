"""Whatever bytes stand in a shard: the blocks are read, or one line names the shard."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from tests.fuzzing import fuzzed
from tests.tiny import SENTENCES
from tfmlm.config import Config, DataConfig, TokenizerConfig
from tfmlm.data.prepare import PreparedData, explained_errors, prepare_data
from tfmlm.data.shard_writing import prepare_shards
from tfmlm.data.shards import hash_file, read_manifest, write_manifest
from tfmlm.errors import UserError


@pytest.fixture(scope="module")
def config(word_tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Of real shards."""
    folder = tmp_path_factory.mktemp("shard_fuzz")
    word_tokenizer.save_pretrained(folder / "tokenizer")
    (folder / "texts.txt").write_text("\n".join(SENTENCES[:60]))
    data = DataConfig(
        source="text", train_files=[str(folder / "texts.txt")], block_size=16, validation_fraction=0.2
    )
    config = Config(data=data, tokenizer=TokenizerConfig(name_or_path=str(folder / "tokenizer")))
    prepare_shards(config, str(folder / "shards"), 10, None, [])
    return replace(config, data=replace(data, source=str(folder / "shards")))


@pytest.fixture(scope="module")
def contents(config: Config) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(Path(config.data.source).glob("train-*"))}


@st.composite
def damaged(draw: st.DrawFn, content: bytes, other: bytes) -> bytes:
    """The content after bytes were flipped, put in, taken out, or exchanged for those of the other."""
    changed = bytearray(content)
    for kind in draw(
        st.lists(st.sampled_from(["flip", "insert", "cut", "splice", "end"]), min_size=1, max_size=3)
    ):
        start = draw(st.integers(0, max(0, len(changed) - 1)))
        stop = start + draw(st.integers(1, 64))
        if kind == "flip":
            changed[start:stop] = bytes(
                byte ^ draw(st.integers(1, 255)) for byte in changed[start : start + 2]
            )
        elif kind == "insert":
            changed[start:start] = draw(st.binary(max_size=32))
        elif kind == "cut":
            del changed[start:stop]
        elif kind == "splice":
            changed[start:stop] = other[start:stop]
        else:
            del changed[start:]
    return bytes(changed)


@pytest.fixture(scope="module", autouse=True)
def quick_collection() -> Iterator[None]:
    """Only what the tests make is looked through for garbage."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def read_all(config: Config) -> None:
    """Reads the shards as training does, and as an evaluation does."""
    gc.collect()  # iterators that failed before: the older, the longer TensorFlow may take to end them
    data: PreparedData = prepare_data(config)
    with explained_errors(data):
        for chunk in data.train.read_in_order():
            assert chunk["input_ids"].shape[1] == 16
        for chunk in data.train.read_shuffled(0, 3, 2 * (data.train.num_blocks or 0)):
            assert chunk["input_ids"].shape[1] == 16


def damage(data: st.DataObject, contents: dict[Path, bytes]) -> Path:
    """One of the shards; the others are whole."""
    restore(contents)
    path, other = (data.draw(st.sampled_from(list(contents))) for _ in range(2))
    path.write_bytes(data.draw(damaged(contents[path], contents[other])))
    return path


@fuzzed(num_examples=20, deadline=60_000)
@given(data=st.data())
def test_a_damaged_shard_is_named(data: st.DataObject, config: Config, contents: dict[Path, bytes]) -> None:
    path = damage(data, contents)
    is_whole = path.read_bytes() == contents[path]
    try:
        read_all(config)
    except UserError as error:
        assert not is_whole
        assert f"shard '{path}' is corrupt" in str(error)  # noqa: PT017
    else:
        # Records keep their checksums when whole ones change places.
        assert is_whole or len(path.read_bytes()) == len(contents[path])


@fuzzed(num_examples=20, deadline=60_000)
@given(data=st.data())
def test_a_damaged_shard_that_the_manifest_calls_whole(
    data: st.DataObject, config: Config, contents: dict[Path, bytes]
) -> None:
    path = damage(data, contents)
    try:
        with called_whole(path, contents):
            read_all(config)
    except UserError as error:
        assert f"shard '{path}' is corrupt" in str(error)  # noqa: PT017
        assert "\n" not in str(error)  # noqa: PT017


@contextmanager
def called_whole(path: Path, contents: dict[Path, bytes]) -> Iterator[None]:
    """The manifest has the size and the checksum of the damaged shard."""
    damaged_bytes, manifest_file = path.read_bytes(), path.with_name("manifest.json")
    text = manifest_file.read_text()
    path.write_bytes(contents[path])
    manifest = read_manifest(str(path.parent))
    path.write_bytes(damaged_bytes)
    shards = [
        replace(shard, num_bytes=len(damaged_bytes), sha256=hash_file(str(path)))
        if shard.name == path.name
        else shard
        for shard in manifest.splits["train"]
    ]
    write_manifest(str(path.parent), replace(manifest, splits=manifest.splits | {"train": shards}))
    try:
        yield
    finally:
        manifest_file.write_text(text)


@fuzzed(num_examples=20, deadline=60_000)
@given(data=st.data())
def test_a_record_of_any_content_with_a_right_checksum(
    data: st.DataObject, config: Config, contents: dict[Path, bytes]
) -> None:
    path = restore(contents)
    records = [record.numpy() for record in tf.data.TFRecordDataset(str(path))]
    index = data.draw(st.integers(0, len(records) - 1))
    records[index] = data.draw(damaged(records[index], records[0]) | st.binary(max_size=64))
    write_records(path, records)
    try:
        with called_whole(path, contents):
            read_all(config)
    except UserError as error:
        assert f"shard '{path}' is corrupt" in str(error)  # noqa: PT017


def restore(contents: dict[Path, bytes]) -> Path:
    """All shards are whole; the first of them."""
    for path, content in contents.items():
        path.write_bytes(content)
    return next(iter(contents))


def write_records(path: Path, records: list[bytes]) -> None:
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)


def serialize(**feature: tf.train.Feature) -> bytes:
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


@pytest.mark.parametrize(
    "record",
    [
        serialize(input_ids=tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"a"]))),
        serialize(input_ids=tf.train.Feature(int64_list=tf.train.Int64List(value=[1]))),
        serialize(),
        b"\x80",
    ],
    ids=["another type", "another length", "nothing", "no message and no UTF-8"],
)
def test_records_that_are_no_blocks(record: bytes, config: Config, contents: dict[Path, bytes]) -> None:
    """Whole records with right checksums, and not what the manifest says."""
    path = restore(contents)
    write_records(path, [record])
    with called_whole(path, contents), pytest.raises(UserError, match=f"shard '{path}' is corrupt"):
        read_all(config)
