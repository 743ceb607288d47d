"""A run whose numbers are no longer numbers stops at once and says where."""

from dataclasses import replace
from pathlib import Path

import pytest
import tensorflow as tf

from tests.tiny_run import make_config
from tfmlm.cli.main import main
from tfmlm.config import Config
from tfmlm.config.load import dump_config
from tfmlm.errors import UserError
from tfmlm.run import run
from tfmlm.training import train as fit_module
from tfmlm.training.callbacks import make_callbacks
from tfmlm.training.masked_lm import MaskedLanguageModel

Callback = tf.keras.callbacks.Callback


def test_a_loss_that_is_not_finite_stops_the_run(
    tmp_path: Path, text_file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = make_config(tmp_path, text_file, max_steps=60, epochs=20, checkpoint_every_steps=2)
    # Adam moves each weight by about the rate, and products of two such weights overflow float32.
    wild = replace(
        config.optimizer, learning_rate=9e18, warmup_steps=0, schedule="constant", max_grad_norm=0.0
    )
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(replace(config, optimizer=wild)))
    assert main(["train", str(path)]) == 2
    message = capfd.readouterr().err.splitlines()[-1]
    assert message.startswith(("tfmlm: loss is ", "tfmlm: gradient norm is "))
    assert "with learning rate 9e+18" in message
    assert "the last good checkpoint is not there yet" in message
    assert not (tmp_path / "run" / "result.json").exists()
    assert not list((tmp_path / "run" / "checkpoints").glob("step-*"))


def test_the_last_good_checkpoint_is_named(
    tmp_path: Path, text_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(tmp_path, text_file, checkpoint_every_steps=2)

    def make(config: Config, model: MaskedLanguageModel, *others: object) -> list[Callback]:
        def poison(batch: int, logs: object) -> None:
            if batch + 1 == 5:
                weight = model.trained_variables[0]
                weight.assign(tf.fill(weight.shape, float("nan")))

        poisoning = tf.keras.callbacks.LambdaCallback(on_train_batch_end=poison)
        return [*make_callbacks(config, model, *others), poisoning]

    monkeypatch.setattr(fit_module, "make_callbacks", make)
    with pytest.raises(UserError, match=r"loss is nan at step 6 with learning rate .*step-00000004; lower"):
        run(config)
