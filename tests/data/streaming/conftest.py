"""Streams of a few texts, with caches and a window of their own."""

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from tests.data.streaming.streamed import BLOCK_SIZE, WINDOW, change
from tests.tiny import SENTENCES, write_hub_folder
from tfmlm.config import Config, DataConfig, ModelConfig, TrainConfig
from tfmlm.data import blocks as blocks_module


@pytest.fixture(autouse=True)
def caches_of_its_own(own_caches: None) -> None:
    """For every test here."""


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A window of the real size would hold a hundred epochs of these texts."""
    monkeypatch.setattr(blocks_module, "WINDOW_BLOCKS", WINDOW)


@pytest.fixture
def model_folder(tmp_path: Path, byte_tokenizer: PreTrainedTokenizerFast) -> str:
    write_hub_folder(tmp_path / "model", byte_tokenizer)
    return str(tmp_path / "model")


@pytest.fixture
def config(text_file: Path, model_folder: str) -> Config:
    return Config(
        data=DataConfig(source="text", train_files=[str(text_file)], block_size=BLOCK_SIZE, streaming=True),
        model=ModelConfig(name_or_path=model_folder),
        train=TrainConfig(max_steps=3),
    )


@pytest.fixture
def bad_in_the_middle(config: Config, text_file: Path, tmp_path: Path) -> Config:
    """Good files around one whose third row is bad."""
    bad = tmp_path / "bad.txt"
    bad.write_bytes(b"good\nas well\nbad \xff\nlast\n")
    good, held_out = tmp_path / "good.txt", tmp_path / "held_out.txt"
    good.write_text("\n".join(SENTENCES[:60]))
    held_out.write_text("\n".join(SENTENCES[60:]))
    return change(config, train_files=[str(good), str(bad), str(text_file)], validation_files=[str(held_out)])


@pytest.fixture
def config_file(text_file: Path, model_folder: str, tmp_path: Path) -> str:
    path = tmp_path / "config.yaml"
    path.write_text(f"""
run: {{name: streamed, output_dir: {tmp_path}/run}}
data: {{source: text, train_files: [{text_file}], block_size: {BLOCK_SIZE}, streaming: true}}
model: {{name_or_path: {model_folder}, config: {{hidden_dropout_prob: 0, attention_probs_dropout_prob: 0}}}}
train: {{max_steps: 4, per_replica_batch_size: 2, checkpoint_every_steps: 2}}
export: {{enabled: false}}
""")
    return str(path)
