"""`tfmlm prepare` writes the blocks that training would pack, always the same bytes, only where it may."""

import hashlib
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from tests.pytorch_folder import write_hub_folder
from tests.tiny import SENTENCES
from tfmlm.cli import main
from tfmlm.config_loading import load_config
from tfmlm.data.blocks import Blocks
from tfmlm.data.prepare import PreparedData, prepare_data
from tfmlm.data.shards import read_manifest

CONFIG = """
run: {{name: small, output_dir: {folder}/run}}
data: {{source: text, train_files: [{folder}/texts.txt], block_size: 16, validation_fraction: 0.2}}
model: {{name_or_path: {folder}/model}}
train: {{max_steps: 2, per_replica_batch_size: 2}}
export: {{enabled: false}}
"""
BAD_ROW = "data.on_bad_rows=skip"
SPLITS = ("train", "validation")


@pytest.fixture
def folder(tmp_path: Path, byte_tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration, its texts and its model, and a cache of its own."""
    monkeypatch.setenv("TFMLM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "texts.txt").write_text("\n".join(SENTENCES))
    (tmp_path / "config.yaml").write_text(CONFIG.format(folder=tmp_path))
    write_hub_folder(tmp_path / "model", byte_tokenizer)
    return tmp_path


def prepare(folder: Path, *arguments: str, blocks_per_shard: int = 64) -> int:
    flags = ["--output", str(folder / "shards"), "--blocks-per-shard", str(blocks_per_shard)]
    return main(["prepare", str(folder / "config.yaml"), *arguments, *flags])


def open_data(folder: Path, *overrides: str, source: str | None = None) -> PreparedData:
    config = load_config(folder / "config.yaml", list(overrides))
    return prepare_data(replace(config, data=replace(config.data, source=source or config.data.source)))


def read(blocks: Blocks) -> dict[str, list]:
    chunks = list(blocks.read_in_order().as_numpy_iterator())
    return {name: np.concatenate([chunk[name] for chunk in chunks]).tolist() for name in chunks[0]}


def read_files(folder: Path) -> dict[str, bytes]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def assert_one_line(exit_code: int, message: str, capfd: pytest.CaptureFixture[str]) -> None:
    error = capfd.readouterr().err
    assert exit_code == 2
    assert re.search(message, error.splitlines()[-1]), error
    assert error.count("tfmlm: ") == 1
    assert "Traceback" not in error


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
    first = read_files(folder / "shards")
    (folder / "shards" / f".train-00000.tfrecord.{'0a' * 16}").write_bytes(b"left behind")
    (folder / "shards" / "train-00000.tfrecord").write_bytes(b"damaged")
    assert prepare(folder, "masking.whole_word=true") == 0
    assert read_files(folder / "shards") == first


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
    rerun = read_files(shards)
    assert len(list(shards.glob("train-*.tfrecord"))) > num_written
    shards.rename(folder / "rerun")
    subprocess.run(command, check=True, capture_output=True)
    assert read_files(shards) == rerun


# === Where it may write ===


@pytest.mark.parametrize(
    "name", ["notes.txt", "tokenizer.json", "train-00000.tfrecords/x", "manifest.json.bak"]
)
def test_a_folder_with_other_files_is_left_alone(
    name: str, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert prepare(folder) == 0
    capfd.readouterr()
    path = folder / "shards" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    before = read_files(folder / "shards")
    assert_one_line(prepare(folder), rf"'{folder}/shards' holds other files \({name[:8]}", capfd)
    assert read_files(folder / "shards") == before


@pytest.mark.parametrize(
    ("override", "blocks_per_shard"),
    [
        ("data.block_size=32", 64),
        ("run.seed=1", 64),
        ("masking.whole_word=true", 64),
        ("tokenizer.train_vocab_size=300", 64),
        ("data.num_proc=2", 65),
    ],
)
def test_a_folder_of_other_settings_is_left_alone(
    override: str, blocks_per_shard: int, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert prepare(folder) == 0
    capfd.readouterr()
    before = read_files(folder / "shards")
    exit_code = prepare(folder, override, blocks_per_shard=blocks_per_shard)
    assert_one_line(exit_code, "holds shards of other settings", capfd)
    assert read_files(folder / "shards") == before


def test_the_first_texts_of_a_stream_are_other_settings(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert prepare(folder, "data.max_rows=100") == 0
    capfd.readouterr()
    before = read_files(folder / "shards")
    exit_code = prepare(folder, "data.max_rows=100", "data.streaming=true")
    assert_one_line(exit_code, "holds shards of other settings", capfd)
    assert read_files(folder / "shards") == before


def test_settings_that_change_no_block_are_the_same_settings(folder: Path) -> None:
    assert prepare(folder) == 0
    first = read_files(folder / "shards")
    others = ["train.max_steps=3", "data.num_proc=2", "data.streaming=true", "masking.rate=0.3"]
    assert prepare(folder, *others) == 0
    assert read_files(folder / "shards") == first


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--blocks-per-shard", "0"], "--blocks-per-shard is 0; it must be 1 or more"),
        (["--project=mine"], "--project=mine is unknown; flags of Apache Beam need --runner"),
        (["--output", "{folder}/texts.txt"], "'{folder}/texts.txt' cannot be written"),
        (["data.source={folder}/shards"], "'{folder}/shards' is a folder of shards already"),
        (["data.source=gs://bucket/shards"], "'gs://bucket/shards' is a folder of shards already"),
        (["data.train_files=[{folder}/none.txt]"], "no text file matches '{folder}/none.txt'"),
    ],
)
def test_prepare_refuses(
    arguments: list[str], message: str, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert prepare(folder) == 0
    before = read_files(folder)
    capfd.readouterr()
    filled = [argument.format(folder=folder) for argument in arguments]
    assert_one_line(
        main(["prepare", str(folder / "config.yaml"), *filled]), message.format(folder=folder), capfd
    )
    assert read_files(folder) == before


def test_an_override_after_the_flags_is_not_taken_for_one_of_beams(folder: Path) -> None:
    arguments = [f"--output={folder / 'shards'}", "--runner", "direct", "data.block_size=32"]
    assert main(["prepare", str(folder / "config.yaml"), *arguments]) == 0
    assert read_manifest(str(folder / "shards")).block_size == 32


@pytest.mark.parametrize("flags", [[], ["--runner=direct"]], ids=["local", "beam"])
def test_texts_without_a_token_are_refused(
    flags: list[str], folder: Path, byte_tokenizer: PreTrainedTokenizerFast, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / "texts.txt").write_text("\n".join(map(str, range(100))))
    settings = json.loads(byte_tokenizer.backend_tokenizer.to_str())
    digits = {"type": "Replace", "pattern": {"Regex": "[0-9]"}, "content": ""}
    settings |= {"post_processor": None, "normalizer": digits}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(settings)),
        pad_token="<pad>",
        mask_token="<mask>",
    )
    tokenizer.save_pretrained(folder / "mute")
    exit_code = prepare(folder, f"tokenizer.name_or_path={folder / 'mute'}", *flags)
    assert_one_line(exit_code, "the tokenizer makes no token of these texts", capfd)
    assert not (folder / "shards" / "manifest.json").exists()


# === Training ===


def test_train_and_evaluate_from_shards(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with (folder / "texts.txt").open("ab") as file:
        file.write(b"\nnot \xff UTF-8\nnor \xfe this")
    assert prepare(folder, BAD_ROW) == 0
    note = f"2 bad rows were left out of {folder}/texts.txt; the first is row 241: not UTF-8 at character 5"
    assert note in capfd.readouterr().out
    (bad_row,) = json.loads((folder / "shards" / "manifest.json").read_text())["bad_rows"]
    assert (bad_row["row"], bad_row["num_rows"]) == (241, 2)
    (folder / "texts.txt").unlink()

    assert main(["train", str(folder / "config.yaml"), f"data.source={folder / 'shards'}"]) == 0
    result = json.loads((folder / "run" / "result.json").read_text())
    assert result["steps"] == 2
    assert result["bad_rows"] == 2
    assert note in result["notes"]
    capfd.readouterr()
    assert main(["evaluate", str(folder / "run"), "--json"]) == 0
    assert f"{json.loads(capfd.readouterr().out)['perplexity']:.6g}" == f"{result['perplexity']:.6g}"


def write_other_model(folder: Path, tokenizer: PreTrainedTokenizerFast) -> list[str]:
    write_hub_folder(folder / "other", tokenizer)
    vocabulary = json.loads((folder / "other" / "vocab.json").read_text())
    last, before = sorted(vocabulary, key=vocabulary.get)[-1:-3:-1]
    vocabulary[last], vocabulary[before] = vocabulary[before], vocabulary[last]
    (folder / "other" / "vocab.json").write_text(json.dumps(vocabulary))
    return [f"model.name_or_path={folder / 'other'}"]


def write_other_tokenizer(folder: Path, tokenizer: PreTrainedTokenizerFast) -> list[str]:
    write_other_model(folder, tokenizer)
    return [f"tokenizer.name_or_path={folder / 'other'}"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            lambda *_: ["data.block_size=32"],
            "data.block_size is 32 and the blocks in '{folder}/shards' have 16 tokens; set data.block_size",
        ),
        (lambda *_: ["masking.whole_word=true"], "do not say where words start; .* masking.whole_word=true"),
        (write_other_model, "made by another tokenizer than model.name_or_path '{folder}/other'"),
        (write_other_tokenizer, "made by another tokenizer than tokenizer.name_or_path '{folder}/other'"),
        (lambda folder, _: [f"data.source={folder}/nowhere/at/all"], "data.source '{folder}/nowhere/at/all'"),
    ],
    ids=["block size", "no words", "other model", "other tokenizer", "nowhere"],
)
def test_train_refuses_shards_that_do_not_fit(
    override: Callable[[Path, PreTrainedTokenizerFast], list[str]],
    message: str,
    folder: Path,
    byte_tokenizer: PreTrainedTokenizerFast,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert prepare(folder) == 0
    overrides = [f"data.source={folder / 'shards'}", *override(folder, byte_tokenizer)]
    capfd.readouterr()
    exit_code = main(["train", str(folder / "config.yaml"), *overrides])
    assert_one_line(exit_code, message.format(folder=folder), capfd)
    assert not (folder / "run" / "result.json").exists()
