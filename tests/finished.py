"""Finished runs, one for each kind of tokenizer, made once for all workers, and exports without a graph."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from filelock import FileLock
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from transformers import PreTrainedTokenizerFast

from tests.hub.server import TOKEN
from tests.tiny import SENTENCES, with_one_layer, write_hub_folder
from tests.tiny_run import make_config
from tfmlm.config import Config, ExportConfig, HubConfig, ModelConfig, TokenizerConfig
from tfmlm.config.load import load_config

Files = dict[str, list[int]]
"""Size in bytes and time of the last change, by path."""


def make_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder of this name, which `make` has filled, where it stays: runs hold their own path."""
    folder = _find_place(factory) / name
    record = folder.with_suffix(".json")
    with FileLock(folder.with_suffix(".lock")):
        if not record.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a worker that failed here
            folder.mkdir()
            make(folder)
            record.write_text(json.dumps(_list_files(folder)))
    return folder


def assert_only_read(factory: pytest.TempPathFactory) -> None:
    """No test has changed what others read."""
    for record in _find_place(factory).glob("*.json"):
        assert _list_files(record.with_suffix("")) == json.loads(record.read_text()), record.stem


def _find_place(factory: pytest.TempPathFactory) -> Path:
    """A folder that the workers of one test run have in common."""
    base = factory.getbasetemp()
    place = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "made-once"
    place.mkdir(exist_ok=True)
    return place


def _list_files(folder: Path) -> Files:
    # A command that reads a run holds the lock beside it.
    paths = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return {str(path.relative_to(folder)): [(s := path.stat()).st_size, s.st_mtime_ns] for path in paths}


@dataclass(frozen=True)
class Finished:
    """What one run has left in a folder."""

    folder: Path

    @property
    def run_dir(self) -> Path:
        return self.folder / "run"

    @property
    def model_dir(self) -> Path:
        return self.run_dir / "model"

    @property
    def version(self) -> Path:
        """The only version of its export."""
        return self.folder / "secret-place" / "exports" / "tiny-export" / "1"

    @property
    def config(self) -> Config:
        return load_config(self.run_dir / "config.yaml")


TEXTS = ["Return the {mask} size.", "Load the {mask} of the {mask}, if it exists."]
"""Samples of each run, with one mask and with several."""


def finish_run(folder: Path, tokenizer: PreTrainedTokenizerFast, model: ModelConfig) -> None:
    """Trains, exports and writes the card; the paths, the license and the token are what a card must heed."""
    from tfmlm.run import run

    place = folder / "secret-place"
    place.mkdir()
    (place / "docs.txt").write_text("\n".join(SENTENCES * 4), encoding="utf-8")
    tokenizer.save_pretrained(place / "tokenizer")
    tiny = make_config(folder, place / "docs.txt", evaluate_every_steps=4)
    config = replace(
        tiny,
        run=replace(
            tiny.run, name="tiny", sample_texts=[text.format(mask=tokenizer.mask_token) for text in TEXTS]
        ),
        tokenizer=TokenizerConfig(name_or_path=str(place / "tokenizer")),
        model=model,
        export=ExportConfig(dir=str(place / "exports"), name="tiny-export", text_signature="require"),
        hub=HubConfig(license="apache-2.0", language=["en"]),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_TOKEN", TOKEN)
        run(config)


def finish_from_scratch(folder: Path, tokenizer: PreTrainedTokenizerFast, model_type: str) -> None:
    """A new model of one layer."""
    finish_run(folder, tokenizer, ModelConfig(config={"model_type": model_type} | with_one_layer(model_type)))


def finish_from_hub(folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """A RoBERTa of two layers from a folder in the Hub's layout."""
    write_hub_folder(folder / "hub", tokenizer)
    finish_run(folder, tokenizer, ModelConfig(name_or_path=str(folder / "hub")))


Signatures = dict[str, Any]
"""The functions of an export, by signature."""


def save_untraced(module: tf.Module, folder: str, signatures: Signatures) -> None:
    """As `tf.saved_model.save`, but the graph has nothing in it."""
    empty = SavedModel(meta_graphs=[MetaGraphDef()])
    Path(folder, "saved_model.pb").write_bytes(empty.SerializeToString())
