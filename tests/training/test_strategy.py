"""Choosing devices and precision."""

from pathlib import Path

import pytest
import tensorflow as tf

from tfmlm.config import DistributeConfig
from tfmlm.training import strategy
from tfmlm.training.strategy import choose_precision, make_strategy


def test_auto_without_gpus_is_one_device() -> None:
    chosen = make_strategy(DistributeConfig("auto"))
    assert isinstance(chosen, tf.distribute.OneDeviceStrategy)


def test_mirrored_uses_every_device() -> None:
    chosen = make_strategy(DistributeConfig("mirrored"))
    assert isinstance(chosen, tf.distribute.MirroredStrategy)
    assert chosen.num_replicas_in_sync == 2


@pytest.mark.parametrize(
    ("flags", "precision"),
    [("fma avx512f avx512_bf16", "bfloat16"), ("amx_bf16 amx_tile", "bfloat16"), ("fma avx512f", "float32")],
)
def test_bfloat16_only_where_the_processor_has_it(
    flags: str, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    monkeypatch.setattr(strategy, "_CPUINFO", tmp_path / "cpuinfo")
    chosen, notes = choose_precision("bfloat16")
    assert chosen == precision
    assert bool(notes) == (precision == "float32")


def test_float32_is_taken_as_asked() -> None:
    assert choose_precision("float32") == ("float32", [])
