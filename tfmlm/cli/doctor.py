"""The command `tfmlm doctor`: checks an installation and says how to mend it."""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from packaging.requirements import Requirement


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `doctor` to the other commands."""
    doctor = commands.add_parser("doctor", help="check the installation and say how to mend it")
    doctor.set_defaults(command=_doctor)


def _doctor(options: argparse.Namespace) -> int:
    del options
    findings = examine()
    for finding in findings:
        print(finding)
    return 1 if any(finding.is_wrong for finding in findings) else 0


@dataclass(frozen=True)
class Finding:
    """One line of the examination.

    Attributes:
        subject: what was looked at.
        state: what was found.
        remedy: how to mend it; None if nothing is wrong.
    """

    subject: str
    state: str
    remedy: str | None = None

    @property
    def is_wrong(self) -> bool:
        """True if it must be mended."""
        return self.remedy is not None

    def __str__(self) -> str:
        mark, remedy = ("WRONG", f"; {self.remedy}") if self.is_wrong else ("ok", "")
        return f"{mark:5}  {self.subject:20} {self.state}{remedy}"


def examine() -> list[Finding]:
    """Looks at Python, the packages, TensorFlow and its devices."""
    from packaging.requirements import Requirement

    packages = [_check_package(Requirement(line)) for line in _list_requirements()]
    checks: list[Callable[[], Finding]] = [_check_keras, _check_devices]
    # Without the right packages TensorFlow may not even import.
    runtime = [] if any(finding.is_wrong for finding in packages) else [check() for check in checks]
    return [Finding("python", platform.python_version()), *packages, *runtime]


def _list_requirements() -> list[str]:
    return [line for line in requires("tfmlm") or [] if "extra ==" not in line]


def _check_package(requirement: Requirement) -> Finding:
    try:
        installed = version(requirement.name)
    except PackageNotFoundError:
        return Finding(requirement.name, "missing", f"pip install '{requirement}'")
    if requirement.specifier.contains(installed, prereleases=True):
        return Finding(requirement.name, installed)
    return Finding(
        requirement.name, f"{installed}, not {requirement.specifier}", f"pip install '{requirement}'"
    )


def _check_keras() -> Finding:
    import tensorflow as tf

    if tf.keras.Model.__module__.startswith("tf_keras"):
        return Finding("Keras", f"tf.keras is tf_keras {version('tf-keras')}, as transformers needs")
    setting = os.environ.get("TF_USE_LEGACY_KERAS")
    return Finding(
        "Keras",
        f"tf.keras is Keras {version('keras')} with TF_USE_LEGACY_KERAS={setting}",
        "set TF_USE_LEGACY_KERAS=1 before TensorFlow is imported",
    )


def _check_devices() -> Finding:
    import tensorflow as tf

    from tfmlm.training.strategy import find_unused_accelerators, has_fast_bfloat16

    names = [device.name.removeprefix("/physical_device:") for device in tf.config.list_physical_devices()]
    bfloat16 = "fast" if has_fast_bfloat16() else "no fast"
    state = f"{', '.join(names)}; {bfloat16} bfloat16 on the processor"
    return Finding("devices", state, "; ".join(find_unused_accelerators()) or None)
