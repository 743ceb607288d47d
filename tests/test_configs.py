"""The shipped YAML files: each loads, and each runs in small."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from transformers import PreTrainedTokenizerFast

from tests.folders import CHECKOUT
from tests.tiny import SENTENCES, write_eli5_rows, write_hub_folder
from tfmlm.cli.main import main
from tfmlm.config.load import differing_keys, dump_config, load_config
from tfmlm.config.schema import list_keys
from tfmlm.data import installed_docs

CONFIGS = sorted((CHECKOUT / "configs").glob("*.yaml"))
SMALL = ["train.max_steps=3", "data.block_size=32", "data.max_rows=200", "train.precision=float32"]


def own_overrides(name: str, folder: Path, tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """What stands in for the Hub, which a test has not."""
    write_hub_folder(folder / "model", tokenizer)
    write_eli5_rows(folder / "rows.jsonl", SENTENCES)
    return [
        "data.source=json",
        f"data.train_files=[{folder}/rows.jsonl]",
        f"model.name_or_path={folder}/model",
        "data.text_column=answers.text",
        "data.config_name=null",
        "hub.push=false",
        # Two logical CPUs stand in for GPUs, and one for a TPU.
        f"distribute.strategy={'mirrored' if name == 'multi_gpu' else 'one_device'}",
        "train.xla=false",
        "train.per_replica_batch_size=4",
        "train.steps_per_execution=1",
    ]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_loads_and_loads_back(path: Path, tmp_path: Path) -> None:
    config = load_config(path)
    assert config.run.name == path.stem
    (tmp_path / "again.yaml").write_text(dump_config(config))
    again = load_config(tmp_path / "again.yaml")
    assert again == config
    assert differing_keys(again, config) == []


TRAIN_ON_TWO_DEVICES = """
import sys, tfmlm
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from tfmlm.cli.main import main
sys.exit(main(["train", *sys.argv[1:]]))
"""


def train_on_two_devices(arguments: list[str]) -> str:
    """In a process of its own: TensorFlow mixes up the collectives of two strategies in one process."""
    done = subprocess.run(
        [sys.executable, "-c", TRAIN_ON_TWO_DEVICES, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "on 2 CPU" in done.stderr
    return done.stdout


RUN_ELSEWHERE = {
    "eli5_distilroberta": "tests/test_end_to_end.py",
    "quickstart": "tests/test_readme.py",
    "scratch": "tests/test_readme.py",
}
"""Shipped configurations that another test runs, and which."""


def test_those_run_elsewhere_are_named_there() -> None:
    for name, file in RUN_ELSEWHERE.items():
        commands = file if file.endswith("end_to_end.py") else "README.md"
        assert f"configs/{name}.yaml" in (CHECKOUT / commands).read_text(encoding="utf-8")


@pytest.mark.long
@pytest.mark.parametrize(
    "path", [path for path in CONFIGS if path.stem not in RUN_ELSEWHERE], ids=lambda path: path.stem
)
def test_runs_in_small(
    path: Path,
    tmp_path: Path,
    byte_tokenizer: PreTrainedTokenizerFast,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import tqdm

    few = [file for package in (tqdm, yaml) for file in sorted(Path(package.__file__).parent.rglob("*.py"))]
    monkeypatch.setattr(installed_docs, "list_source_files", lambda: few)
    overrides = [
        *SMALL,
        *own_overrides(path.stem, tmp_path, byte_tokenizer),
        f"run.output_dir={tmp_path}/run",
        f"export.dir={tmp_path}/exports",
    ]
    if path.stem == "multi_gpu":
        output = train_on_two_devices([str(path), *overrides])
    else:
        assert main(["train", str(path), *overrides]) == 0
        output = capsys.readouterr().out
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["steps"] == 3
    assert Path(result["saved_model_dir"], "saved_model.pb").exists()
    for text in load_config(path).run.sample_texts:
        assert text in output


def test_the_recipe_is_the_guides() -> None:
    recipe = yaml.safe_load((CHECKOUT / "configs/eli5_distilroberta.yaml").read_text())
    assert recipe["data"]["text_column"] == "answers.text"
    assert recipe["data"]["validation_fraction"] == 0.2
    assert recipe["data"]["block_size"] == 128
    assert recipe["masking"]["rate"] == 0.15
    assert recipe["model"]["name_or_path"] == "distilbert/distilroberta-base"
    assert float(recipe["optimizer"]["learning_rate"]) == 2e-5
    assert recipe["optimizer"]["weight_decay"] == 0.01
    assert recipe["train"]["epochs"] == 3
    assert recipe["train"]["per_replica_batch_size"] == 16
    assert recipe["hub"]["push"] is True


def test_every_key_is_described() -> None:
    keys = list(list_keys())
    assert len(keys) > 40
    assert all(len(key.meaning) > 10 for key in keys)


def test_config_without_a_file_lists_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config"]) == 0
    output = capsys.readouterr().out
    for key in list_keys():
        assert f"{key} = {key.default!r}" in output


def test_config_shows_what_a_file_comes_to(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["config", str(CONFIGS[0]), "optimizer.learning_rate=0.125"]) == 0
    shown = tmp_path / "shown.yaml"
    shown.write_text(capsys.readouterr().out)
    assert load_config(shown) == load_config(CONFIGS[0], ["optimizer.learning_rate=0.125"])
