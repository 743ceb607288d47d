"""Tiny runs: their configuration, in a process or in this one, and the last line that a command says."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray
from safetensors.numpy import load_file

from tests.tiny import TINY_CONFIGS, without_dropout
from tfmlm.cli.main import main
from tfmlm.config import (
    Config,
    DataConfig,
    ExportConfig,
    ModelConfig,
    RunConfig,
    TokenizerConfig,
    TrainConfig,
)
from tfmlm.config.load import dump_config
from tfmlm.training import train as fit_module
from tfmlm.training.callbacks import make_callbacks


def make_config(
    folder: Path, text_file: Path, dropout: bool = False, num_layers: int = 1, **train: object
) -> Config:
    """A run of a tiny BERT in `folder`/run."""
    fields = TINY_CONFIGS["bert"] if dropout else without_dropout("bert")
    defaults = {"max_steps": 8, "per_replica_batch_size": 4, "checkpoint_every_steps": 3}
    return Config(
        run=RunConfig(output_dir=str(folder / "run")),
        data=DataConfig(source="text", train_files=[str(text_file)], block_size=32),
        tokenizer=TokenizerConfig(train_vocab_size=200),
        model=ModelConfig(config={"model_type": "bert"} | fields | {"num_hidden_layers": num_layers}),
        train=TrainConfig(**defaults | train),
        export=ExportConfig(enabled=False),
    )


def in_folder(config: Config, folder: Path) -> Config:
    return replace(config, run=replace(config.run, output_dir=str(folder)))


def start(config: Config, path: Path, **environment: str) -> subprocess.Popen[str]:
    """`tfmlm train` as a process; the configuration is written to `path`."""
    path.write_text(dump_config(config))
    return subprocess.Popen(
        [sys.executable, "-m", "tfmlm", "train", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )


def wait_for_checkpoints(folder: Path, process: subprocess.Popen[str], num_new: int) -> None:
    """Returns when the process has written so many checkpoints, or has ended."""
    seen = {path.name for path in folder.glob("step-*")}
    first = len(seen)
    while len(seen) < first + num_new and process.poll() is None:
        seen |= {path.name for path in folder.glob("step-*")}
        time.sleep(0.002)


def name_workers(num_workers: int) -> list[dict[str, str]]:
    """`TF_CONFIG` of each worker, on free ports of this machine."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(num_workers)]
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    return [
        {
            "TF_CONFIG": json.dumps(
                {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": number}}
            )
        }
        for number in range(num_workers)
    ]


def read_weights(run_dir: Path) -> dict[str, NDArray[np.float32]]:
    return load_file(run_dir / "model" / "model.safetensors")


def assert_same_weights(first: Path, second: Path) -> None:
    mine, other = read_weights(first), read_weights(second)
    assert mine.keys() == other.keys()
    for name, values in mine.items():
        np.testing.assert_array_equal(values, other[name], err_msg=name)


class PowerCutError(Exception):
    """Stands for the end of the process."""


def cut_after(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(batch: int, logs: object) -> None:
        if batch + 1 == step:
            raise PowerCutError

    def make(*arguments: object) -> list[tf.keras.callbacks.Callback]:
        return [*make_callbacks(*arguments), tf.keras.callbacks.LambdaCallback(on_train_batch_end=stop)]

    monkeypatch.setattr(fit_module, "make_callbacks", make)


Command = Callable[..., tuple[int, str]]


def make_command(config: Config, path: Path, capfd: pytest.CaptureFixture[str]) -> Command:
    """Runs a command on the configuration; its exit code and its last line of errors."""
    path.write_text(dump_config(config))

    def run_command(name: str, *arguments: str, on: Path = path) -> tuple[int, str]:
        capfd.readouterr()
        exit_code = main([name, str(on), *arguments])
        errors = capfd.readouterr().err
        assert "Traceback" not in errors, errors
        return exit_code, (errors.splitlines() or [""])[-1]

    return run_command
