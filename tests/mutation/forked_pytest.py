"""Runs pytest in forks of a process that has the slow imports behind it: a second a mutant instead of nine.

TensorFlow is imported here and runs nothing: it starts its threads with the first operation, and only a fork
after that can hang.
"""

from __future__ import annotations

import importlib
import os
import select
import signal
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

SLOW_IMPORTS = ("scipy.stats", "hypothesis.extra.numpy", "datasets", "pytest")
LAZY_NAMES = (
    "BertConfig",
    "DataCollatorForWholeWordMask",
    "PreTrainedTokenizerFast",
    "TFAutoModelForMaskedLM",
    "TFBertForMaskedLM",
)
"""What the tests take from transformers, which imports it when it is asked for."""

TIMEOUT = 60.0
"""Seconds; the slowest of the test files takes nine."""


class ForkedPytest:
    """Runs test files of the working directory, each time as if in a new process."""

    def __init__(self, folder: Path) -> None:
        self._arguments = [
            "-o",
            "addopts=",
            "-p",
            "no:cacheprovider",
            f"--basetemp={folder / 'pytest'}",
            "-xq",
        ]
        os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
        # The plugins of other packages take as long to import as the tests to run.
        os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
        _forget_the_project()
        importlib.import_module("tests.conftest")  # first: it keeps the libraries off the user's cache
        for module in SLOW_IMPORTS:
            importlib.import_module(module)
        for name in LAZY_NAMES:
            getattr(importlib.import_module("transformers"), name)
        _choose_examples()

    def run(self, tests: list[str], is_mutant: bool = True) -> tuple[bool, str]:
        """Whether all tests pass, and what pytest says; too slow is not passed."""
        # Mutants follow each other too quickly for the time stamps in compiled files.
        sys.dont_write_bytecode = is_mutant
        with tempfile.TemporaryFile() as output:
            child = os.fork()
            if not child:
                _become_pytest([*self._arguments, *tests], output.fileno())
            is_passed = _wait(child) == 0
            output.seek(0)
            return is_passed, output.read().decode(errors="replace")


def _choose_examples() -> None:
    """The same for every mutant; and the first that fails is enough, it need not be the simplest."""
    hypothesis = importlib.import_module("hypothesis")
    phases = [hypothesis.Phase.explicit, hypothesis.Phase.generate]
    hypothesis.settings.register_profile("mutation", hypothesis.settings.get_profile("ci"), phases=phases)
    hypothesis.settings.load_profile("mutation")


def _become_pytest(arguments: list[str], output: int) -> NoReturn:
    status = 1
    try:
        os.setsid()
        for standard in (1, 2):
            os.dup2(output, standard)
        _forget_the_project()
        status = int(importlib.import_module("pytest").main(arguments))
    finally:
        sys.stdout.flush()
        os._exit(status)


def _forget_the_project() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] in ("tests", "tfmlm")]:
        del sys.modules[name]


def _wait(child: int) -> int:
    """The exit code, after everything that the child has started is gone."""
    handle = os.pidfd_open(child)
    select.select([handle], [], [], TIMEOUT)
    os.close(handle)
    try:
        os.killpg(child, signal.SIGKILL)
    except ProcessLookupError:
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]
