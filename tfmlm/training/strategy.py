"""Devices: the `tf.distribute` strategy, and the precision they compute in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path

import tensorflow as tf

from tfmlm.config import DistributeConfig
from tfmlm.errors import UserError, first_line
from tfmlm.training.cluster import Cluster, meet, read_cluster

_DEVICES = Path("/dev")
_PCI = Path("/sys/bus/pci/devices")
_GOOGLE = "0x1ae0"
"""PCI vendor of TPU chips; a TPU VM shows the newer ones as `/dev/vfio/N`, which others do too."""
_CPUINFO = Path("/proc/cpuinfo")
_FAST_BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
"""Processor flags of x86 (the first two) and Arm (the last) with bfloat16 arithmetic."""


def make_strategy(config: DistributeConfig) -> tf.distribute.Strategy:
    """The strategy that `distribute.strategy` names; call it before anything is computed.

    Raises:
        UserError: there is no such device, or `TF_CONFIG` is wrong.
        WorkerLostError: the other workers have not come.
    """
    cluster = read_cluster()
    choice = config.strategy if config.strategy != "auto" else _choose(cluster)
    if choice == "multi_worker":
        if "TF_CONFIG" not in os.environ:
            raise UserError(
                "distribute.strategy is multi_worker and TF_CONFIG is not set; see configs/launch/ for how"
            )
        return meet(partial(_make_multi_worker, config.wait_seconds), config.wait_seconds)
    if choice == "tpu":
        return _connect_tpu(config.tpu)
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if choice == "mirrored":
        return _make_mirrored(tuple(device.name for device in devices))
    return tf.distribute.OneDeviceStrategy(devices[0].name)


@cache
def _make_mirrored(devices: tuple[str, ...]) -> tf.distribute.Strategy:
    """One of each process: each numbers its sums from 100 on, and TensorFlow tells those of two not apart."""
    return tf.distribute.MirroredStrategy(devices)


_BYTES_PER_PACK = 32 * 2**20
"""Gradients that one collective sums: packs of this size are on their way while the next are computed."""


def _make_multi_worker(timeout_seconds: float) -> tf.distribute.Strategy:
    # Left to itself, TensorFlow sums over a ring of its own, also where there are GPUs (collective_util.py).
    implementation = tf.distribute.experimental.CommunicationImplementation
    return tf.distribute.MultiWorkerMirroredStrategy(
        communication_options=tf.distribute.experimental.CommunicationOptions(
            bytes_per_pack=_BYTES_PER_PACK,
            timeout_seconds=timeout_seconds,
            implementation=implementation.NCCL
            if tf.config.list_physical_devices("GPU")
            else implementation.AUTO,
        )
    )


def _choose(cluster: Cluster) -> str:
    if cluster.num_workers > 1:
        return "multi_worker"
    if has_tpu():
        return "tpu"
    return "mirrored" if len(tf.config.list_physical_devices("GPU")) > 1 else "one_device"


def has_tpu() -> bool:
    """True where `TPU_NAME` names a TPU, and on a TPU VM."""
    return bool(os.environ.get("TPU_NAME")) or _has_local_tpu()


def _has_local_tpu() -> bool:
    """True on a TPU VM, which shows its chips as device files."""
    if any(_DEVICES.glob("accel[0-9]*")):
        return True
    vendors = (path.read_text().strip() for path in _PCI.glob("*/vendor"))
    return any((_DEVICES / "vfio").glob("[0-9]*")) and _GOOGLE in vendors


def find_unused_accelerators() -> list[str]:
    """What is in this machine and TensorFlow cannot use, with the remedy, a sentence each."""
    unused = []
    has_nvidia = any(_DEVICES.glob("nvidia[0-9]*")) or (_DEVICES / "dxg").exists()  # the second is WSL's
    if has_nvidia and not tf.config.list_physical_devices("GPU"):
        unused.append(
            "this machine has an NVIDIA GPU and TensorFlow finds none; install its CUDA libraries: "
            "pip install 'tfmlm[cuda]'"
        )
    # A TPU is a device of TensorFlow's once it is connected; without its package it never is.
    if _has_local_tpu() and find_spec("libtpu") is None:
        unused.append(
            "this machine has a TPU and TensorFlow cannot use it; put TensorFlow's package for it in the "
            "place of the plain one: pip install --force-reinstall --no-deps tensorflow-tpu==2.20.0 libtpu"
        )
    return unused


def _connect_tpu(name: str | None) -> tf.distribute.Strategy:
    name = name or os.environ.get("TPU_NAME") or ("local" if _has_local_tpu() else None)
    if name is None:
        raise UserError(
            "distribute.strategy is tpu and this machine has none; set distribute.tpu or TPU_NAME to its name"
        )
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=name)
        if name != "local":
            tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    except (ValueError, RuntimeError, OSError, tf.errors.OpError) as error:
        raise UserError(f"TPU {name!r} does not answer: {first_line(error)}") from error


def describe_devices(strategy: tf.distribute.Strategy) -> str:
    """How many devices compute, and of which kind, such as `1 CPU`."""
    kind = strategy.extended.worker_devices[0].split(":")[-2]
    return f"{strategy.num_replicas_in_sync} {kind}"


def choose_precision(requested: str) -> tuple[str, list[str]]:
    """The precision to compute in, with a note where it is not the requested one.

    bfloat16 on a processor without bfloat16 arithmetic is emulated and several times slower than float32.
    """
    if (
        requested != "bfloat16"
        or tf.config.list_logical_devices("TPU")
        or tf.config.list_logical_devices("GPU")
        or has_fast_bfloat16()
    ):
        return requested, []
    return "float32", ["this processor has no fast bfloat16, so float32 was used"]


def has_fast_bfloat16() -> bool:
    """True if the processor names bfloat16 arithmetic among its features (Linux; elsewhere taken as no)."""
    return _CPUINFO.exists() and bool(_FAST_BFLOAT16_FLAGS & set(_CPUINFO.read_text().split()))


@contextmanager
def precision_policy(precision: str) -> Iterator[None]:
    """Layers made inside compute in `precision`; their variables are float32 under either policy."""
    policy = tf.keras.mixed_precision.global_policy()
    tf.keras.mixed_precision.set_global_policy(precision if precision == "float32" else f"mixed_{precision}")
    try:
        yield
    finally:
        tf.keras.mixed_precision.set_global_policy(policy)
