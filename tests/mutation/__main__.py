"""Mutates modules, runs their tests, prints the shares: `python -m tests.mutation [MODULE ...]`."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from tests.folders import CHECKOUT
from tests.mutation.mutants import ForkedPytest, mutate
from tests.mutation.report import Tally, count, describe, is_good_enough

TARGETS = {
    "masking": (
        "tfmlm/data/masking.py",
        [
            "tests/data/test_masking.py",
            "tests/data/test_masking_shares.py",
            "tests/data/test_maskable_vocabulary.py",
            "tests/data/test_stock_collator.py",
            "tests/data/test_whole_word.py",
        ],
    ),
    "packing": (
        "tfmlm/data/packing.py",
        [
            "tests/data/test_packing.py",
            "tests/data/test_stream_tokenizer.py",
            "tests/data/test_whole_word.py",
        ],
    ),
    "loss": ("tfmlm/training/loss.py", ["tests/training/test_loss.py"]),
    "checkpoint": ("tfmlm/training/checkpoint.py", ["tests/training/test_checkpoint.py"]),
}
"""Each module, and the tests that must notice its mutants: the module's own, which take seconds."""


def main() -> None:
    """Parses the arguments, mutates, prints."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description="Do the tests notice?")
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"{', '.join(TARGETS)} (default: all)")
    names = parser.parse_args().modules or list(TARGETS)
    unknown = set(names) - set(TARGETS)
    if unknown:
        parser.error(f"no module {', '.join(sorted(unknown))}; the modules are {', '.join(TARGETS)}")

    folder = Path(tempfile.mkdtemp(prefix="tfmlm-mutation-"))
    print(f"sessions, for cr-report and cr-html: {folder}", flush=True)
    enter_copy(folder)
    pytest = ForkedPytest(folder)
    tallies: dict[str, Tally] = {}
    for name in names:
        started = time.monotonic()
        path, tests = TARGETS[name]
        session = folder / f"{name}.sqlite"
        mutate(Path(path), partial(pytest.run, tests), session)
        tallies[name] = count(name, session)
        print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)
    leave_copy(folder)
    print("\n".join(describe(tallies)))
    sys.exit(0 if is_good_enough(tallies) else 1)


def enter_copy(folder: Path) -> None:
    """Goes to a copy of the checkout, so that a mutant is never left where somebody works."""
    for name in ("tests", "tfmlm"):
        shutil.copytree(CHECKOUT / name, folder / "copy" / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(CHECKOUT / "pyproject.toml", folder / "copy")
    os.chdir(folder / "copy")
    sys.path.insert(0, str(folder / "copy"))


def leave_copy(folder: Path) -> None:
    """Removes everything but the sessions."""
    os.chdir(CHECKOUT)
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)


if __name__ == "__main__":
    main()
