"""Apache Beam, on its real runner for one machine, writes the same bytes as the local writer."""

import sys
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from tests.data.sharded import assert_one_line
from tests.folders import read_folder
from tests.tiny import SENTENCES
from tfmlm.cli.main import main
from tfmlm.data.shards import Manifest, read_manifest

CONFIG = """
data: {{source: text, train_files: ['{folder}/texts/*'], block_size: 16, validation_fraction: 0.2}}
tokenizer: {{name_or_path: {folder}/tokenizer}}
model: {{config: {{model_type: bert}}}}
"""

FILES = {
    "a.txt": SENTENCES[:100],
    "b.txt": ["one text alone, on one side"],
    "c.txt": ["", "  "],
    "d.txt": [f"{text} {number}" for number in range(5) for text in SENTENCES],  # more than one batch
    "e.txt": SENTENCES[100:],
}


@pytest.fixture
def folder(tmp_path: Path, word_tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration, its tokenizer, and texts in several files."""
    monkeypatch.setenv("TFMLM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "texts").mkdir()
    for name, texts in FILES.items():
        (tmp_path / "texts" / name).write_text("\n".join(texts))
    (tmp_path / "config.yaml").write_text(CONFIG.format(folder=tmp_path))
    word_tokenizer.save_pretrained(tmp_path / "tokenizer")
    return tmp_path


def prepare(folder: Path, output: str, *overrides: str, flags: tuple[str, ...] = ()) -> int:
    config = str(folder / "config.yaml")
    return main(["prepare", config, *overrides, "--output", str(folder / output), *flags])


def prepare_both(folder: Path, *overrides: str, blocks_per_shard: int = 300) -> Manifest:
    """Checks that both writers leave the same files."""
    size = f"--blocks-per-shard={blocks_per_shard}"
    assert prepare(folder, "local", *overrides, flags=(size,)) == 0
    assert prepare(folder, "beam", *overrides, flags=(size, "--runner", "direct")) == 0
    assert read_folder(folder / "beam") == read_folder(folder / "local")
    return read_manifest(str(folder / "beam"))


# === The same bytes ===


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["data.drop_remainder=true"],
        ["masking.whole_word=true"],
        ["data.pack=false", "data.stride=3"],
        ["data.attend_within_texts=true"],
        ["tokenizer.train_vocab_size=200"],
        ["data.max_rows=500", "run.seed=3"],
        ["data.max_rows=1150", "data.streaming=true", "train.max_steps=1"],
        ["data.validation_files=[{folder}/texts/a.txt]", "data.train_files=[{folder}/texts/d.txt]"],
    ],
    ids=lambda overrides: " ".join(overrides) or "defaults",
)
def test_the_same_folder_as_the_local_writer(overrides: list[str], folder: Path) -> None:
    manifest = prepare_both(folder, *(override.format(folder=folder) for override in overrides))
    assert len(manifest.splits["train"]) > 1
    assert manifest.with_words == ("masking.whole_word=true" in overrides)


def test_shards_that_are_smaller_than_a_batch(folder: Path) -> None:
    manifest = prepare_both(
        folder, f"data.train_files=[{folder}/texts/a.txt,{folder}/texts/e.txt]", blocks_per_shard=7
    )
    assert {shard.num_blocks for shard in manifest.splits["train"][:-1]} == {7}


@pytest.mark.parametrize("drop_remainder", [False, True])
def test_a_last_shard_of_the_short_block_alone(drop_remainder: bool, folder: Path) -> None:
    override = f"data.drop_remainder={str(drop_remainder).lower()}"
    assert prepare(folder, "whole") == 0
    (shard,) = read_manifest(str(folder / "whole")).splits["train"]
    assert shard.num_tokens < shard.num_blocks * 16
    manifest = prepare_both(folder, override, blocks_per_shard=shard.num_blocks - 1)
    sizes = [shard.num_blocks for shard in manifest.splits["train"]]
    assert sizes == [shard.num_blocks - 1] + [1] * (not drop_remainder)


@pytest.mark.parametrize("drop_remainder", ["false", "true"])
def test_texts_that_fill_no_block_are_one_short_block(drop_remainder: str, folder: Path) -> None:
    manifest = prepare_both(
        folder,
        f"data.train_files=[{folder}/texts/b.txt]",
        f"data.validation_files=[{folder}/texts/b.txt]",
        "data.block_size=64",
        f"data.drop_remainder={drop_remainder}",
    )
    for split in ("train", "validation"):
        assert [shard.num_blocks for shard in manifest.splits[split]] == [1]


# === Bad rows ===


def add_bad_rows(folder: Path) -> None:
    for name, rows in {"a.txt": b"\nbad \xff\nbad \xfe", "d.txt": b"\nbad \xff"}.items():
        with (folder / "texts" / name).open("ab") as file:
            file.write(rows)


def test_bad_rows_are_reported_once(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    add_bad_rows(folder)
    manifest = prepare_both(folder, "data.on_bad_rows=skip")
    texts = folder / "texts"
    assert [(row.file, row.row, row.num_rows) for row in manifest.bad_rows] == [
        (str(texts / "a.txt"), 101, 2),
        (str(texts / "d.txt"), 1201, 1),
    ]
    assert capfd.readouterr().out.count("left out") == 4


def test_a_bad_row_that_a_worker_meets_is_one_line(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    add_bad_rows(folder)
    (folder / "texts" / "a.txt").unlink()
    exit_code = prepare(folder, "beam", flags=("--runner=direct",))
    assert_one_line(exit_code, rf"{folder}/texts/d.txt, row 1201: not UTF-8", capfd)
    assert not (folder / "beam" / "manifest.json").exists()


# === Runners ===


@pytest.mark.parametrize("flags", [("--runner=nowhere",), ("--runner=direct", "--direct_num_workers=many")])
def test_what_beam_does_not_take_is_one_line(
    flags: tuple[str, ...], folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    exit_code = prepare(folder, "beam", flags=flags)
    assert_one_line(exit_code, f"Apache Beam does not take {' '.join(flags).replace('=', ' ', 1)}", capfd)
    assert not (folder / "beam" / "manifest.json").exists()


def test_a_runner_that_beam_does_not_know_leaves_finished_shards_alone(folder: Path) -> None:
    assert prepare(folder, "shards") == 0
    before = read_folder(folder / "shards")
    assert prepare(folder, "shards", flags=("--runner=nowhere",)) == 2
    assert read_folder(folder / "shards") == before


def test_without_beam_the_message_says_how_to_install_it(
    folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if f"{name}.".startswith(("apache_beam.", "tfmlm.data.beam."))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    exit_code = prepare(folder, "beam", flags=("--runner=direct",))
    assert_one_line(
        exit_code, r"^tfmlm: --runner direct needs Apache Beam.*pip install 'tfmlm\[beam\]'", capfd
    )
    assert not (folder / "beam").exists()
