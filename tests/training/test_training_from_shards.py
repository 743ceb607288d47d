"""`tfmlm train` takes the shards that `tfmlm prepare` wrote, and refuses those that do not fit."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from tests.data.sharded import assert_one_line, fill_folder, prepare
from tests.tiny import write_hub_folder
from tfmlm.cli.main import main
from tfmlm.config.load import load_config
from tfmlm.data.packing import Columns
from tfmlm.training.setup import set_up
from tfmlm.training.train import make_batches

BAD_ROW = "data.on_bad_rows=skip"


@pytest.fixture
def folder(tmp_path: Path, byte_tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration, its texts and its model, and a cache of its own."""
    monkeypatch.setenv("TFMLM_CACHE", str(tmp_path / "cache"))
    return fill_folder(tmp_path, byte_tokenizer)


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


def test_replicas_take_their_parts_of_one_batch(folder: Path) -> None:
    """Two replicas of one input pipeline."""
    assert prepare(folder) == 0
    overrides = [f"data.source={folder / 'shards'}", "train.max_steps=5"]

    def read_steps(*more: str) -> list[Columns]:
        config = load_config(folder / "config.yaml", [*overrides, *more])
        setup = set_up(config)
        strategy = setup.model.distribute_strategy
        return [
            {
                name: np.concatenate([part.numpy() for part in strategy.experimental_local_results(values)])
                for name, values in batch.items()
            }
            for batch in make_batches(config, setup, first_step=2)
        ]

    alone = read_steps("distribute.strategy=one_device", "train.per_replica_batch_size=4")
    mirrored = read_steps("distribute.strategy=mirrored")
    assert len(alone) == 3
    for one, other in zip(alone, mirrored, strict=True):
        for name, rows in one.items():
            np.testing.assert_array_equal(rows, other[name], err_msg=name)


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
