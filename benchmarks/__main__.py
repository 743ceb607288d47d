"""Runs the rows and prints one table: `python -m benchmarks [ROW ...] [--json] [--quick]`."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measure import QUICK, Row, Size, run_alone, show
from tfmlm.errors import UserError

ROWS = (
    "tokenize",
    "pipeline",
    "records",
    "whole_word",
    "streaming",
    "step",
    "memory",
    "checkpoint",
    "perplexity",
    "new_words",
    "fill_mask",
    "serving",
    "score",
)
"""Modules of this package; each has `measure(folder, size) -> Row`."""

_LINE = "{:<10} {:<10} {:>9} {:>9} {:>6}  {}"


def main() -> None:
    """Parses the arguments, measures, prints."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Ours against the recipe.")
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"{', '.join(ROWS)} (default: all)")
    parser.add_argument("--json", action="store_true", help="print one JSON line, every repeat included")
    parser.add_argument("--quick", action="store_true", help="seconds long; the figures mean nothing")
    options = parser.parse_args()
    unknown = set(options.rows) - set(ROWS)
    if unknown:
        parser.error(f"no row {', '.join(sorted(unknown))}; the rows are {', '.join(ROWS)}")

    rows = measure_rows(options.rows or ROWS, QUICK if options.quick else Size())
    machine = {"cores": os.cpu_count(), "date": date.today().isoformat(), "quick": options.quick}
    try:
        if options.json:
            print(json.dumps(machine | {"rows": {name: row.to_json() for name, row in rows}}))
        else:
            for line in describe(rows, machine):
                print(line, flush=True)
    except UserError as error:
        parser.exit(2, f"benchmarks: {error}\n")


def measure_rows(names: Sequence[str], size: Size) -> Iterator[tuple[str, Row]]:
    """Makes the material once and measures each row in a process of its own, in turn."""
    with tempfile.TemporaryDirectory(prefix="tfmlm-benchmarks-") as temporary:
        folder = Path(temporary)
        run_alone("benchmarks.material:make_material", folder, size)
        for name in names:
            yield name, run_alone(f"benchmarks.{name}:measure", folder, size)


def describe(rows: Iterable[tuple[str, Row]], machine: Mapping[str, Any]) -> Iterator[str]:
    """The lines of the table, each as soon as its row is measured."""
    yield _LINE.format("row", "unit", "ours", "peer", "ratio", "beside it")
    for name, row in rows:
        first, *others = row.notes
        ours, peer = show(median(row.ours)), show(median(row.peer))
        yield _LINE.format(name, row.unit, ours, peer, f"{row.ratio:.2f}x", first)
        for note in others:
            yield _LINE.format("", "", "", "", "", note)
    warning = "; a smoke run, whose figures mean nothing" if machine["quick"] else ""
    yield "The peer is the Hugging Face guide's recipe unless a note names another."
    yield "A ratio over 1 says that ours is better; medians of interleaved repeats."
    yield f"Measured on {machine['cores']} cores, {machine['date']}{warning}."


if __name__ == "__main__":
    main()
