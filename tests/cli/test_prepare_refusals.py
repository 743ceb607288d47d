"""`tfmlm prepare` writes only where it may, and refuses what makes no blocks."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from tests.data.sharded import assert_one_line, fill_folder, prepare
from tests.folders import read_folder
from tfmlm.cli.main import main
from tfmlm.data.shards import read_manifest


@pytest.fixture
def folder(tmp_path: Path, byte_tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration, its texts and its model, and a cache of its own."""
    monkeypatch.setenv("TFMLM_CACHE", str(tmp_path / "cache"))
    return fill_folder(tmp_path, byte_tokenizer)


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
    before = read_folder(folder / "shards")
    assert_one_line(prepare(folder), rf"'{folder}/shards' holds other files \({name[:8]}", capfd)
    assert read_folder(folder / "shards") == before


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
    before = read_folder(folder / "shards")
    exit_code = prepare(folder, override, blocks_per_shard=blocks_per_shard)
    assert_one_line(exit_code, "holds shards of other settings", capfd)
    assert read_folder(folder / "shards") == before


def test_the_first_texts_of_a_stream_are_other_settings(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert prepare(folder, "data.max_rows=100") == 0
    capfd.readouterr()
    before = read_folder(folder / "shards")
    exit_code = prepare(folder, "data.max_rows=100", "data.streaming=true")
    assert_one_line(exit_code, "holds shards of other settings", capfd)
    assert read_folder(folder / "shards") == before


def test_settings_that_change_no_block_are_the_same_settings(folder: Path) -> None:
    assert prepare(folder) == 0
    first = read_folder(folder / "shards")
    others = ["train.max_steps=3", "data.num_proc=2", "data.streaming=true", "masking.rate=0.3"]
    assert prepare(folder, *others) == 0
    assert read_folder(folder / "shards") == first


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
    before = read_folder(folder)
    capfd.readouterr()
    filled = [argument.format(folder=folder) for argument in arguments]
    assert_one_line(
        main(["prepare", str(folder / "config.yaml"), *filled]), message.format(folder=folder), capfd
    )
    assert read_folder(folder) == before


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
