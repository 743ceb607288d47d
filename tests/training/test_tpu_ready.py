"""What can be shown of the TPU path without a TPU: the step compiles whole, with static shapes."""

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import tensorflow as tf

from tests.tiny import TINY_CONFIGS, long_but, make_tiny, with_one_layer
from tfmlm.config import Config, DataConfig, TrainConfig
from tfmlm.errors import UserError
from tfmlm.training import setup
from tfmlm.training.masked_lm import MaskedLanguageModel
from tfmlm.training.optimizer import make_optimizer


@pytest.mark.parametrize("model_type", long_but(TINY_CONFIGS, "bert", "roberta"))
def test_the_training_step_is_one_xla_program_without_host_calls(model_type: str) -> None:
    config = Config(data=DataConfig(block_size=16), train=TrainConfig(per_replica_batch_size=4))
    model = MaskedLanguageModel(make_tiny(model_type, **with_one_layer(model_type)), config)
    model.compile(make_optimizer(config.optimizer, 10))
    batch = {name: tf.fill([4, 16], 7) for name in ("input_ids", "attention_mask", "labels")}

    step = tf.function(model.train_step, jit_compile=True)
    assert float(step(batch)["loss"]) > 0
    program = step.experimental_get_compiler_ir(batch)(stage="hlo")
    assert program.startswith("HloModule")
    for host_call in ("infeed", "outfeed", "send(", "recv(", "xla_python", "callback"):
        assert host_call not in program
    # A dynamic dimension is written as <=n.
    assert not re.search(r"\[[^\]]*<=", program)


class FakeTPU(tf.distribute.TPUStrategy):
    """A slice, as far as its hosts' names."""

    def __init__(self, job: str) -> None:
        self.devices = tuple(f"/job:{job}/replica:0/task:{host}/device:TPU:0" for host in range(2))

    @property
    def extended(self) -> SimpleNamespace:
        return SimpleNamespace(worker_devices=self.devices, _in_multi_worker_mode=lambda: False)


class StoppedError(Exception):
    """The check was passed."""


@pytest.mark.parametrize("streaming", [False, True])
def test_other_hosts_read_nothing_but_shards(
    streaming: bool, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(config: Config) -> None:
        raise StoppedError

    config = replace(
        config,
        data=replace(config.data, streaming=streaming),
        train=replace(config.train, max_steps=1, max_seconds=None),
    )
    monkeypatch.setattr(setup, "check_model", stop)
    monkeypatch.setattr(setup, "make_strategy", lambda distribute: FakeTPU("worker"))
    with pytest.raises(
        UserError, match=r"a TPU of other hosts reads nothing but shards; run `tfmlm prepare`"
    ):
        setup.set_up(config)

    (tmp_path / "manifest.json").touch()
    with pytest.raises(StoppedError):
        setup.set_up(replace(config, data=replace(config.data, source=str(tmp_path))))
    monkeypatch.setattr(setup, "make_strategy", lambda distribute: FakeTPU("localhost"))
    with pytest.raises(StoppedError):
        setup.set_up(config)


def test_a_host_call_does_not_compile() -> None:
    @tf.function(jit_compile=True)
    def call_python(x: tf.Tensor) -> tf.Tensor:
        return tf.py_function(lambda y: y, [x], tf.float32)

    with pytest.raises(tf.errors.InvalidArgumentError, match="EagerPyFunc"):
        call_python(tf.ones([2]))
