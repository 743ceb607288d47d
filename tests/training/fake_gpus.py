"""Traces the functions of training and evaluation on two devices that claim to be GPUs.

`python -m tests.training.fake_gpus CONFIG [override ...]`; `distribute.strategy=multi_worker` is one worker
of several. Tracing takes the branches that real GPUs take, such as not merging the replicas' calls under XLA,
and nothing is computed. It needs a process of its own, because TensorFlow's idea of a device is changed.
"""

import sys

import tensorflow as tf
from tensorflow.python.distribute import collective_all_reduce_strategy, mirrored_run, mirrored_strategy

from tests.tiny import TINY_CONFIGS, make_tiny
from tfmlm.config import Config
from tfmlm.config.load import load_config
from tfmlm.training.masked_lm import MaskedLanguageModel
from tfmlm.training.optimizer import make_optimizer
from tfmlm.training.strategy import make_strategy, precision_policy


def make_two_fake_gpus() -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    for module in (mirrored_run, mirrored_strategy, collective_all_reduce_strategy):
        module._is_gpu_device = lambda device: True


def make_fake_strategy(config: Config) -> tf.distribute.Strategy:
    if config.distribute.strategy != "multi_worker":
        return make_strategy(config.distribute)
    # By `TF_CONFIG` it would look for real GPUs.
    devices = [device.name for device in tf.config.list_logical_devices("CPU")]
    return collective_all_reduce_strategy.CollectiveAllReduceStrategy._from_local_devices(devices)


def trace(config: Config) -> int:
    """Traces with the configuration's own training settings, and gives the number of replicas."""
    strategy = make_fake_strategy(config)
    with strategy.scope(), precision_policy(config.train.precision):
        fields = TINY_CONFIGS["roberta"] | {"max_position_embeddings": config.data.block_size + 2}
        model = MaskedLanguageModel(make_tiny("roberta", **fields), config)
        model.compile(
            make_optimizer(config.optimizer, 10, model.model.trainable_variables),
            jit_compile=config.train.xla,
            steps_per_execution=config.train.steps_per_execution,
        )
    num_blocks = config.train.per_replica_batch_size * strategy.num_replicas_in_sync
    for function, num_parts in (
        (model.make_train_function(), config.train.gradient_accumulation_steps),
        (model.make_test_function(), 1),
    ):
        shape = [num_blocks * num_parts, config.data.block_size]
        batch = {name: tf.fill(shape, 7) for name in ("input_ids", "attention_mask", "labels")}
        batches = strategy.experimental_distribute_dataset(tf.data.Dataset.from_tensors(batch).repeat())
        function.get_concrete_function(iter(batches))
    return int(strategy.num_replicas_in_sync)


if __name__ == "__main__":
    make_two_fake_gpus()
    print(trace(load_config(sys.argv[1], sys.argv[2:])), "replicas traced")
