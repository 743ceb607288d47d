"""`tfmlm prepare` writes the blocks that training would pack, always the same bytes."""

import hashlib
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from tests.data.sharded import SPLITS, assert_one_line, fill_folder, open_data, prepare, read
from tests.folders import read_folder
from tests.tiny import SENTENCES
from tfmlm.cli.main import main
from tfmlm.data.shards import read_manifest


@pytest.fixture
def folder(tmp_path: Path, byte_tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration, its texts and its model, and a cache of its own."""
    monkeypatch.setenv("TFMLM_CACHE", str(tmp_path / "cache"))
    return fill_folder(tmp_path, byte_tokenizer)


# === The blocks ===


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["data.drop_remainder=true"],
        ["masking.whole_word=true"],
        ["data.max_rows=100", "run.seed=7"],
        ["data.validation_files=[{folder}/held_out.txt]"],
        ["tokenizer.train_vocab_size=300"],
        ["tokenizer.train_vocab_size=300", "data.streaming=true"],
        ["tokenizer.train_vocab_size=320", "tokenizer.algorithm=byte_bpe", "data.streaming=true"],
        ["tokenizer.train_vocab_size=320", "tokenizer.algorithm=unigram", "data.streaming=true"],
    ],
    ids=lambda overrides: " ".join(overrides) or "defaults",
)
def test_shards_hold_the_blocks_that_training_packs(overrides: list[str], folder: Path) -> None:
    (folder / "held_out.txt").write_text("\n".join(SENTENCES[::7]))
    overrides = [override.format(folder=folder) for override in overrides]
    assert prepare(folder, *overrides) == 0
    of_shards = open_data(folder, *overrides, source=str(folder / "shards"))
    packed = open_data(folder, *overrides, "data.streaming=false")
    for split in SPLITS:
        expected = read(getattr(packed, split))
        assert read(getattr(of_shards, split)) == expected
        assert expected["example_id"] == list(range(len(expected["example_id"])))
        assert ("starts_word" in expected) == ("masking.whole_word=true" in overrides)


def test_the_short_block_at_the_end_is_kept_or_dropped(folder: Path) -> None:
    lengths = []
    for index, override in enumerate(["data.drop_remainder=false", "data.drop_remainder=true"]):
        assert (
            main(["prepare", str(folder / "config.yaml"), override, f"--output={folder / str(index)}"]) == 0
        )
        manifest = read_manifest(str(folder / str(index)))
        blocks = read(open_data(folder, source=str(folder / str(index))).train)
        lengths.append(blocks["num_tokens"])
        assert manifest.splits["train"][-1].num_tokens == sum(lengths[-1])
    assert lengths[0][-1] < 16
    assert lengths[0][:-1] == lengths[1]
    assert set(lengths[1]) == {16}


# === The manifest ===


@pytest.mark.parametrize("blocks_per_shard", [1, 50, 10_000])
def test_the_manifest_says_what_the_shards_hold(blocks_per_shard: int, folder: Path) -> None:
    assert prepare(folder, blocks_per_shard=blocks_per_shard) == 0
    manifest = read_manifest(str(folder / "shards"))
    data = open_data(folder, source=str(folder / "shards"))
    for split in SPLITS:
        shards, blocks = manifest.splits[split], getattr(data, split)
        assert [shard.name for shard in shards] == [f"{split}-{n:05d}.tfrecord" for n in range(len(shards))]
        sizes = [shard.num_blocks for shard in shards]
        assert sizes[:-1] == [blocks_per_shard] * (len(shards) - 1)
        assert 1 <= sizes[-1] <= blocks_per_shard
        for shard in shards:
            content = (folder / "shards" / shard.name).read_bytes()
            assert shard.num_bytes == len(content)
            assert shard.sha256 == hashlib.sha256(content).hexdigest()
            inside = read(replace(blocks, shards=(shard,)))
            assert shard.num_blocks == len(inside["example_id"])
            assert shard.num_tokens == sum(inside["num_tokens"])
        assert blocks.num_blocks == len(read(blocks)["example_id"])
    names = {shard.name for shards in manifest.splits.values() for shard in shards}
    assert {path.name for path in (folder / "shards").iterdir()} == names | {"manifest.json", "tokenizer"}


def test_the_summary_counts_and_says_what_to_type_next(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert prepare(folder) == 0
    shards = read_manifest(str(folder / "shards")).splits["train"]
    output = capfd.readouterr().out
    assert f"{sum(shard.num_blocks for shard in shards):,} blocks of 16 tokens" in output
    assert f"{len(shards)} shards" in output
    assert f"tfmlm train CONFIG data.source={folder / 'shards'}" in output


# === Again, and after an interruption ===


def test_again_gives_the_same_bytes(folder: Path) -> None:
    assert prepare(folder, "masking.whole_word=true") == 0
    first = read_folder(folder / "shards")
    (folder / "shards" / f".train-00000.tfrecord.{'0a' * 16}").write_bytes(b"left behind")
    (folder / "shards" / "train-00000.tfrecord").write_bytes(b"damaged")
    assert prepare(folder, "masking.whole_word=true") == 0
    assert read_folder(folder / "shards") == first


@pytest.mark.long
def test_a_killed_run_is_unfinished_and_a_rerun_ends_with_the_bytes_of_an_unbroken_one(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / "texts.txt").write_text("\n".join(f"{text} {n}" for n in range(8) for text in SENTENCES))
    shards = folder / "shards"
    flags = ["--output", str(shards), "--blocks-per-shard", "2"]
    command = [sys.executable, "-m", "tfmlm", "prepare", str(folder / "config.yaml"), *flags]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not (shards / "train-00000.tfrecord").exists():
            time.sleep(0.002)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    num_written = len(list(shards.glob("train-*.tfrecord")))
    assert num_written
    assert not (shards / "manifest.json").exists()

    train = ["train", str(folder / "config.yaml"), f"data.source={shards}"]
    assert_one_line(main(train), rf"'{shards}' holds no manifest\.json: .* has not finished", capfd)
    assert not (folder / "run" / "model").exists()

    assert prepare(folder, blocks_per_shard=2) == 0
    rerun = read_folder(shards)
    assert len(list(shards.glob("train-*.tfrecord"))) > num_written
    shards.rename(folder / "rerun")
    subprocess.run(command, check=True, capture_output=True)
    assert read_folder(shards) == rerun
