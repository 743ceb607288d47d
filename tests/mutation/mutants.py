"""Makes mutants and runs their tests, each in a fork of one process that has imported TensorFlow."""

from __future__ import annotations

import ast
import difflib
import importlib
import os
import select
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from cosmic_ray.commands import init
from cosmic_ray.mutating import use_mutation
from cosmic_ray.plugins import get_operator
from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import MutationSpec, TestOutcome, WorkerOutcome, WorkResult

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


Position = tuple[int, int]


RunTests = Callable[[bool], tuple[bool, str]]
"""Of a mutant or of the code as it is: whether all tests pass, and what they print."""


def mutate(module: Path, run_tests: RunTests, session: Path) -> None:
    """Fills a session with the results of every mutant.

    Raises:
        SystemExit: the tests fail without a mutation, so they would kill every mutant.
    """
    is_passed, output = run_tests(False)
    if not is_passed:
        sys.exit(f"the tests of {module} fail without a mutation:\n{output}")
    with use_db(session) as work:
        init([module], work, {})
        _skip_annotations(work, module)
        for item in work.pending_work_items:
            (mutation,) = item.mutations
            work.set_result(item.job_id, _test_mutant(mutation, run_tests))


def _test_mutant(mutation: MutationSpec, run_tests: RunTests) -> WorkResult:
    operator = get_operator(mutation.operator_name)(**mutation.operator_args)
    try:
        with use_mutation(mutation.module_path, operator, mutation.occurrence) as (before, after):
            is_passed, output = run_tests(True)
    except AttributeError as error:
        # cosmic-ray 8.7 finds `errors.OpError` behind an `except` and cannot replace a name with a dot.
        return WorkResult(WorkerOutcome.NO_TEST, output=str(error))
    return WorkResult(
        WorkerOutcome.NORMAL,
        output=output,
        test_outcome=TestOutcome.SURVIVED if is_passed else TestOutcome.KILLED,
        diff="\n".join(difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm="")),
    )


def _skip_annotations(work: WorkDB, module: Path) -> None:
    """With `from __future__ import annotations` they are never evaluated: no mutant of one can be noticed."""
    spans = find_annotations(module.read_text(encoding="utf-8"))
    skipped = [
        item.job_id
        for item in work.work_items
        for mutation in item.mutations
        if any(start <= mutation.start_pos < end for start, end in spans)
    ]
    work.set_multiple_results(skipped, WorkResult(WorkerOutcome.SKIPPED))


def find_annotations(source: str) -> list[tuple[Position, Position]]:
    """Start and end (line, column) of every annotation of a name, an argument or a returned value."""
    annotations = [
        annotation
        for node in ast.walk(ast.parse(source))
        for annotation in (getattr(node, "annotation", None), getattr(node, "returns", None))
        if annotation is not None
    ]
    return [
        ((node.lineno, node.col_offset), (node.end_lineno or 0, node.end_col_offset or 0))
        for node in annotations
    ]
