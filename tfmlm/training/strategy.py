"""Devices: the `tf.distribute` strategy and the precision they compute in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tensorflow as tf

from tfmlm.config import DistributeConfig

_CPUINFO = Path("/proc/cpuinfo")
_FAST_BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
"""Processor flags of x86 (the first two) and Arm (the last) with bfloat16 arithmetic."""


def make_strategy(config: DistributeConfig) -> tf.distribute.Strategy:
    """The strategy that `distribute.strategy` names; `auto` uses every GPU of this machine."""
    gpus = tf.config.list_logical_devices("GPU")
    if config.strategy == "mirrored" or (config.strategy == "auto" and len(gpus) > 1):
        return tf.distribute.MirroredStrategy([device.name for device in gpus or _list_cpus()])
    return tf.distribute.OneDeviceStrategy((gpus or _list_cpus())[0].name)


def _list_cpus() -> list[tf.config.LogicalDevice]:
    cpus: list[tf.config.LogicalDevice] = tf.config.list_logical_devices("CPU")
    return cpus


def choose_precision(requested: str) -> tuple[str, list[str]]:
    """The precision to compute in, with a note where it is not the requested one.

    bfloat16 on a processor without bfloat16 arithmetic is emulated and several times slower than float32.
    """
    if requested != "bfloat16" or tf.config.list_logical_devices("GPU") or has_fast_bfloat16():
        return requested, []
    return "float32", ["this processor has no fast bfloat16, so float32 was used"]


def has_fast_bfloat16() -> bool:
    """Whether the processor names bfloat16 arithmetic among its features (Linux; elsewhere taken as no)."""
    return _CPUINFO.exists() and bool(_FAST_BFLOAT16_FLAGS & set(_CPUINFO.read_text().split()))


@contextmanager
def precision_policy(precision: str) -> Iterator[None]:
    """Layers made inside compute in `precision`; their variables are float32 under either policy."""
    policy = tf.keras.mixed_precision.global_policy()
    tf.keras.mixed_precision.set_global_policy("mixed_bfloat16" if precision == "bfloat16" else "float32")
    try:
        yield
    finally:
        tf.keras.mixed_precision.set_global_policy(policy)
