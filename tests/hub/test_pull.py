"""A model and a dataset from a server that speaks the Hub's interface, and without it."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from tests.hub.pushed_model import run_tfmlm
from tests.hub.server import HubServer, running_hub
from tests.tiny import SENTENCES, write_hub_folder
from tests.tiny_run import make_config
from tfmlm.config import Config, DataConfig, HubConfig, ModelConfig, TokenizerConfig
from tfmlm.config.load import dump_config
from tfmlm.hub import pull as pull_module
from tfmlm.hub.pull import pull_run
from tfmlm.run_folder import RunFolder

OFFLINE = {"HF_HUB_OFFLINE": "1"}


@pytest.fixture
def hub(tmp_path: Path, byte_tokenizer: PreTrainedTokenizerFast) -> Iterator[HubServer]:
    write_hub_folder(tmp_path / "encoder", byte_tokenizer)
    model = {path.name: path.read_bytes() for path in (tmp_path / "encoder").iterdir()}
    rows = {
        f"{split}.jsonl": "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
        for split, texts in (("train", SENTENCES * 3), ("validation", SENTENCES[:60]))
    }
    with running_hub() as server:
        server.make_repository("me/encoder", model)
        server.make_repository("datasets/me/sentences", {"README.md": b"# Sentences\n"} | rows, private=True)
        yield server


@pytest.fixture
def config(tmp_path: Path, text_file: Path) -> Config:
    return replace(
        make_config(tmp_path, text_file, max_steps=2),
        data=DataConfig(source="me/sentences", block_size=32),
        tokenizer=TokenizerConfig(),
        model=ModelConfig(name_or_path="me/encoder"),
    )


def write(config: Config, path: Path) -> Path:
    path.write_text(dump_config(config))
    return path


def test_model_and_dataset_load_and_stay_for_offline_runs(
    hub: HubServer, config: Config, tmp_path: Path
) -> None:
    home = {"HF_HOME": str(tmp_path / "home"), "TFMLM_CACHE": str(tmp_path / "cache")}
    done = run_tfmlm(hub, "train", write(config, tmp_path / "config.yaml"), **home)
    assert done.returncode == 0, done.stderr
    assert hub.count("GET /lfs/") == 1
    assert hub.count(r"/datasets/me/sentences/resolve/\w+/train.jsonl") > 0
    assert hub.count(r"/datasets/me/sentences/resolve/\w+/validation.jsonl") > 0
    first = json.loads((tmp_path / "run" / "result.json").read_text())

    asked = len(hub.requests)
    again = ["run.output_dir=" + str(tmp_path / "again")]
    done = run_tfmlm(hub, "train", tmp_path / "config.yaml", *again, **home, **OFFLINE)
    assert done.returncode == 0, done.stderr
    assert len(hub.requests) == asked
    second = json.loads((tmp_path / "again" / "result.json").read_text())
    assert second["perplexity"] == first["perplexity"]


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        (
            ["model.name_or_path=null", "model.config={model_type: bert}"],
            "data.source 'me/sentences' could not be loaded from the Hub",
        ),
        (["data.source=text"], "model.name_or_path 'me/encoder' cannot be loaded"),
    ],
)
def test_offline_without_a_copy_is_one_line(
    changes: list[str], key: str, hub: HubServer, config: Config, tmp_path: Path, text_file: Path
) -> None:
    local = [*changes, f"data.train_files=[{text_file}]", "tokenizer.train_vocab_size=200"]
    done = run_tfmlm(hub, "train", write(config, tmp_path / "config.yaml"), *local, **OFFLINE)
    assert done.returncode == 2
    assert key in done.stderr.splitlines()[-1]
    assert "HF_HUB_OFFLINE" in done.stderr.splitlines()[-1]
    assert hub.requests == []


def test_what_is_not_there_is_one_line(hub: HubServer, config: Config, tmp_path: Path) -> None:
    path = write(config, tmp_path / "config.yaml")
    done = run_tfmlm(hub, "train", path, "data.source=me/nothing")
    assert done.returncode == 2
    assert "data.source 'me/nothing' could not be loaded from the Hub" in done.stderr.splitlines()[-1]
    done = run_tfmlm(hub, "predict", "me/nothing", "text")
    assert done.returncode == 2
    assert "'me/nothing' cannot be loaded" in done.stderr.splitlines()[-1]
    assert len(done.stderr.splitlines()) == 1


def test_predict_takes_a_model_from_the_hub(hub: HubServer) -> None:
    done = run_tfmlm(hub, "predict", "me/encoder", "Load the <mask> name.", "--json", "--top-k=2")
    assert done.returncode == 0, done.stderr
    assert [len(mask) for mask in json.loads(done.stdout)] == [2]


def test_a_branch_without_logs_is_taken_and_no_older_log_stays(
    tmp_path: Path, text_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = HubConfig(push=True, repo_id="me/mine", checkpoints="training")
    config = replace(make_config(tmp_path, text_file), hub=hub)

    def download(hub: HubConfig, path: Path) -> bool:
        (path / "checkpoints" / "step-00000003").mkdir(parents=True)
        (path / "config.yaml").write_text(dump_config(config))
        return True

    monkeypatch.setattr(pull_module, "_download", download)
    (config.run_dir / "logs").mkdir(parents=True)
    write(config, config.run_dir / "config.yaml")
    (config.run_dir / "logs" / "metrics.csv").write_text("of a start that failed")
    pull_run(config, RunFolder(config.run_dir))
    assert [path.name for path in (config.run_dir / "checkpoints").iterdir()] == ["step-00000003"]
    assert not (config.run_dir / "logs").exists()
