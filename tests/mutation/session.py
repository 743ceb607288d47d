"""One session of cosmic-ray: all mutants of a module, made in its file one after the other, and tested."""

from __future__ import annotations

import ast
import difflib
import sys
from collections.abc import Callable
from pathlib import Path

from cosmic_ray.commands import init
from cosmic_ray.mutating import use_mutation
from cosmic_ray.plugins import get_operator
from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import MutationSpec, TestOutcome, WorkerOutcome, WorkResult

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
