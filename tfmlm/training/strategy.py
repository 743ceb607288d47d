"""Machines and devices: the cluster, the `tf.distribute` strategy, and the precision they compute in."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf

from tfmlm.config import DistributeConfig
from tfmlm.errors import UserError, WorkerLostError, first_line

# === The machines of a run, as `TF_CONFIG` names them ===


class Cluster(NamedTuple):
    """This process among the workers of a run.

    Attributes:
        num_workers: 1 without `TF_CONFIG`.
        number: of this worker, from 0; the first is the chief, which alone writes, pushes and exports.
    """

    num_workers: int = 1
    number: int = 0

    @property
    def is_chief(self) -> bool:
        """True for the first worker, which alone writes."""
        return self.number == 0


def read_cluster() -> Cluster:
    """Reads `TF_CONFIG`, in which the workers are listed under `worker`.

    The first of them is the chief, unless there is a task `chief` of its own, as Vertex AI and Kubeflow have
    it. `TFConfigClusterResolver` reads it too and checks nothing: an index out of range, or a parameter
    server, would be found when the workers wait for each other.

    Raises:
        UserError: it is there and is not of that form.
    """
    text = os.environ.get("TF_CONFIG")
    if not text:
        return Cluster()
    try:
        config = json.loads(text)
        cluster, kind = config["cluster"], config["task"]["type"]
        if not {kind, *cluster} <= {"chief", "worker"}:
            raise ValueError("a task is of another type than chief or worker")
        num_chiefs, num_workers = (len(list(cluster.get(each, []))) for each in ("chief", "worker"))
        if num_chiefs > 1:
            raise ValueError(f"there are {num_chiefs} chiefs")
        index, count = int(config["task"]["index"]), num_chiefs if kind == "chief" else num_workers
        if not 0 <= index < count:
            raise ValueError(f"task {index} is none of {count} of type {kind}")
    except (AttributeError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"TF_CONFIG cannot be used ({error}); it must be like "
            '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}'
        ) from error
    return Cluster(num_chiefs + num_workers, index if kind == "chief" else num_chiefs + index)


# === Devices ===


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
    """
    cluster = read_cluster()
    choice = config.strategy if config.strategy != "auto" else _choose(cluster)
    if choice == "multi_worker":
        if "TF_CONFIG" not in os.environ:
            raise UserError(
                "distribute.strategy is multi_worker and TF_CONFIG is not set; see configs/launch/ for how"
            )
        return tf.distribute.MultiWorkerMirroredStrategy()
    if choice == "tpu":
        return _connect_tpu(config.tpu)
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if choice == "mirrored":
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    return tf.distribute.OneDeviceStrategy(devices[0].name)


def _choose(cluster: Cluster) -> str:
    if cluster.num_workers > 1:
        return "multi_worker"
    if os.environ.get("TPU_NAME") or _has_local_tpu():
        return "tpu"
    return "mirrored" if len(tf.config.list_physical_devices("GPU")) > 1 else "one_device"


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


@contextmanager
def explained_worker_loss(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Turns the error of a collective operation whose partner is gone into one line."""
    try:
        yield
    except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.InternalError) as error:
        if not strategy.extended._in_multi_worker_mode():  # noqa: SLF001
            raise
        raise WorkerLostError(
            "another worker of this run is gone; start all of them again to go on from the last checkpoint"
        ) from error


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
