"""Choosing devices and precision."""

from pathlib import Path

import pytest
import tensorflow as tf

from tfmlm.cli.main import main
from tfmlm.config import Config, DistributeConfig
from tfmlm.training import strategy
from tfmlm.training.setup import set_up
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


# === Accelerators that TensorFlow does not see ===


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without any; a test puts its device files there."""
    for name in ("dev", "pci"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(strategy, "_DEVICES", tmp_path / "dev")
    monkeypatch.setattr(strategy, "_PCI", tmp_path / "pci")
    monkeypatch.setattr(strategy, "find_spec", lambda name: None)
    return tmp_path


def put(path: Path, text: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, []),
        ({"dev/nvidia0": ""}, ["has an NVIDIA GPU and TensorFlow finds none"]),
        ({"dev/nvidiactl": ""}, []),
        ({"dev/dxg": ""}, ["has an NVIDIA GPU and TensorFlow finds none"]),
        ({"dev/accel0": ""}, ["has a TPU and TensorFlow cannot use it"]),
        ({"dev/vfio/0": "", "pci/a/vendor": "0x1ae0\n"}, ["has a TPU and TensorFlow cannot use it"]),
        ({"dev/vfio/0": "", "pci/a/vendor": "0x8086\n"}, []),
        ({"pci/a/vendor": "0x1ae0\n"}, []),
    ],
)
def test_an_accelerator_that_is_not_used_is_told(
    files: dict[str, str], says: list[str], machine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, text in files.items():
        put(machine / name, text)
    found = strategy.find_unused_accelerators()
    assert len(found) == len(says)
    assert all(
        part in sentence and "pip install" in sentence for part, sentence in zip(says, found, strict=True)
    )
    assert main(["doctor"]) == bool(says)
    printed = capsys.readouterr().out
    assert all(sentence in printed for sentence in found)


def test_a_run_says_that_it_does_not_use_one(
    config: Config, machine: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(machine / "dev" / "nvidia0")
    (note,) = [note for note in set_up(config).notes if "NVIDIA" in note]
    assert note in caplog.messages
