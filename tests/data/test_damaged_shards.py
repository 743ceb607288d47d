"""Shards, or a manifest, that are damaged are refused in one line that says what to do."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from tests.data.sharded import of_shards, read_columns, write_source
from tfmlm.cli.prepare import describe_shards
from tfmlm.config import Config
from tfmlm.data.blocks import ShardedBlocks
from tfmlm.data.prepare import explained_errors, prepare_data
from tfmlm.data.shard_writing import prepare_shards
from tfmlm.data.shards import is_shard_folder, read_manifest
from tfmlm.errors import UserError


@pytest.fixture(scope="module")
def config(word_tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Config:
    return write_source(tmp_path_factory.mktemp("source"), word_tokenizer)


@pytest.fixture
def folder(config: Config, tmp_path: Path) -> Path:
    """Fresh shards, to be damaged."""
    prepare_shards(config, str(tmp_path / "shards"), 100, None, [])
    return tmp_path / "shards"


def assert_refused(config: Config, folder: Path, *named: str) -> None:
    with pytest.raises(UserError) as refusal:
        prepare_data(of_shards(config, folder))
    message = str(refusal.value)
    assert "\n" not in message
    assert "prepare" in message
    for name in named:
        assert name in message


# === Shards and tokenizer ===


def test_a_missing_shard(config: Config, folder: Path) -> None:
    (folder / "train-00001.tfrecord").unlink()
    assert_refused(config, folder, f"shard '{folder}/train-00001.tfrecord' is missing")


def test_a_shorter_shard(config: Config, folder: Path) -> None:
    path = folder / "validation-00000.tfrecord"
    path.write_bytes(path.read_bytes()[:-1])
    assert_refused(config, folder, f"shard '{path}' is corrupt", f"{path.stat().st_size:,} bytes")


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_flipped_byte_names_the_shard(split: str, config: Config, folder: Path) -> None:
    path = folder / f"{split}-00000.tfrecord"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    data = prepare_data(of_shards(config, folder))
    with pytest.raises(UserError, match=f"shard '{path}' is corrupt") as refusal, explained_errors(data):
        read_columns(getattr(data, split).read_in_order())
    assert isinstance(refusal.value.__cause__, tf.errors.DataLossError)
    assert "\n" not in str(refusal.value)


def test_an_error_that_is_not_the_shards_stays_as_it_is(config: Config, folder: Path) -> None:
    with (
        pytest.raises(tf.errors.InvalidArgumentError),
        explained_errors(prepare_data(of_shards(config, folder))),
    ):
        tf.reshape(tf.zeros([3]), [2])


def test_another_tokenizer_in_the_folder(
    byte_tokenizer: PreTrainedTokenizerFast, config: Config, folder: Path
) -> None:
    for path in (folder / "tokenizer").iterdir():
        path.unlink()
    byte_tokenizer.save_pretrained(folder / "tokenizer")
    assert_refused(config, folder, f"'{folder}/tokenizer' is not the tokenizer that made the shards")


def test_no_tokenizer_in_the_folder(config: Config, folder: Path) -> None:
    (folder / "tokenizer").rename(folder / "elsewhere")
    assert_refused(config, folder, f"'{folder}/tokenizer' cannot be read")


# === The manifest ===


def change(**fields: object) -> Callable[[str], str]:
    return lambda text: json.dumps(json.loads(text) | fields)


def change_offsets(offsets: list[object]) -> Callable[[str], str]:
    def damage(text: str) -> str:
        fields = json.loads(text)
        fields["splits"]["train"][0]["offsets"] = offsets
        return json.dumps(fields)

    return damage


def rename_a_shard(name: str) -> Callable[[str], str]:
    return lambda text: text.replace("train-00001.tfrecord", name)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[:-5], "cannot be read"),
        (lambda text: "", "cannot be read"),
        (lambda text: "[" * 100_000, "cannot be read"),
        (lambda text: "[]", "is of format None, not 1"),
        (lambda text: "{}", "is of format None, not 1"),
        (change(format=2), "is of format 2, not 1"),
        (change(splits={"train": []}), "is damaged ('validation')"),
        (change(block_size="8"), "is damaged"),
        (change(more=1), "is damaged"),
        *(
            (change_offsets(offsets), "is damaged (a shard's offsets are no places of blocks)")
            for offsets in ([], [1], [0, 0], [0, 5, 3], [0, "1"], [0, 0.5], [*range(1000)])
        ),
        *((rename_a_shard(name), "is damaged") for name in ("../x", "/etc/passwd", "..", "", "a\\u0000")),
    ],
)
def test_a_damaged_manifest(damage: Callable[[str], str], message: str, config: Config, folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(damage(path.read_text()))
    with pytest.raises(UserError) as refusal:
        prepare_data(of_shards(config, folder))
    assert f"'{path}' {message}" in str(refusal.value)


@pytest.mark.parametrize("key", ["block_size", "with_words", "tokenizer_fingerprint", "splits", "bad_rows"])
def test_a_manifest_without_a_key(key: str, config: Config, folder: Path) -> None:
    path = folder / "manifest.json"
    fields = json.loads(path.read_text())
    del fields[key]
    path.write_text(json.dumps(fields))
    assert_refused(config, folder, str(path), "is damaged", key)


def test_a_folder_without_a_manifest_has_not_been_finished(config: Config, folder: Path) -> None:
    (folder / "manifest.json").unlink()
    assert is_shard_folder(str(folder))
    assert_refused(config, folder, f"'{folder}' holds no manifest.json", "has not finished")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=5), values, max_size=3),
    max_leaves=5,
)


def list_places(fields: object, place: tuple = ()) -> list[tuple]:
    items = (
        fields.items() if isinstance(fields, dict) else enumerate(fields if isinstance(fields, list) else [])
    )
    return [place, *(inner for key, value in items for inner in list_places(value, (*place, key)))]


def put(fields: object, place: tuple, value: object) -> object:
    if not place:
        return value
    copy = dict(fields) if isinstance(fields, dict) else list(fields)
    copy[place[0]] = put(copy[place[0]], place[1:], value)
    return copy


@pytest.fixture(scope="module")
def intact(config: Config, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = str(tmp_path_factory.mktemp("intact"))
    bad = [{"file": "a", "row": 1, "reason": "b", "num_rows": 2}]
    prepare_shards(config, folder, 100, None, [])
    return folder, json.dumps(json.loads(Path(folder, "manifest.json").read_text()) | {"bad_rows": bad})


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_no_manifest_brings_another_error_than_one_line(data: st.DataObject, intact: tuple[str, str]) -> None:
    folder, text = intact
    fields = json.loads(text)
    place = data.draw(st.sampled_from(list_places(fields)))
    damaged = data.draw(
        st.one_of(
            json_values.map(lambda value: json.dumps(put(fields, place, value))),
            st.integers(0, len(text) - 1).map(lambda end: text[:end]),
            st.text(),
        )
    )
    Path(folder, "manifest.json").write_text(damaged, encoding="utf-8")
    try:
        manifest = read_manifest(folder)
        describe_shards(folder, manifest, [])
        for split in manifest.splits:
            assert ShardedBlocks.of_split(folder, manifest, split, with_words=False).num_blocks >= 0
    except UserError as error:
        assert "\n" not in str(error)  # noqa: PT017
