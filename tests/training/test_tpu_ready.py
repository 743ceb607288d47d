"""What can be shown of the TPU path without a TPU: the step compiles whole, with static shapes."""

import re

import pytest
import tensorflow as tf

from tests.tiny import TINY_CONFIGS, long_but, make_tiny, with_one_layer
from tfmlm.config import Config, DataConfig, TrainConfig
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


def test_a_host_call_does_not_compile() -> None:
    @tf.function(jit_compile=True)
    def call_python(x: tf.Tensor) -> tf.Tensor:
        return tf.py_function(lambda y: y, [x], tf.float32)

    with pytest.raises(tf.errors.InvalidArgumentError, match="EagerPyFunc"):
        call_python(tf.ones([2]))
