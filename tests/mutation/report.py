"""What the sessions found: killed, survived, and which survivors are equivalent to the code."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import WorkerOutcome

SMALLEST_SHARE = 0.85
EQUIVALENT = Path(__file__).with_name("equivalent.toml")

_LINE = "{:<11} {:>7} {:>7} {:>8} {:>10} {:>8}"


class Mutant(NamedTuple):
    """Where it is, `module.function`, and its lines before and after."""

    place: str
    before: str
    after: str


@dataclass
class Tally:
    """Mutants of a module by what became of them; the equivalent ones survived, and no test can kill them."""

    killed: list[Mutant] = field(default_factory=list)
    survived: list[Mutant] = field(default_factory=list)
    equivalent: list[Mutant] = field(default_factory=list)

    @property
    def num_mutants(self) -> int:
        """All of them."""
        return len(self.killed) + len(self.survived) + len(self.equivalent)


def count(name: str, session: Path) -> Tally:
    """Sorts the mutants of a finished session."""
    tally, equivalent = Tally(), set(read_equivalent())
    with use_db(session, WorkDB.Mode.open) as work:
        for item, result in work.completed_work_items:
            if result.worker_outcome != WorkerOutcome.NORMAL:
                continue
            place = ".".join(filter(None, [name, item.mutations[0].definition_name]))
            mutant = Mutant(place, _changed(result.diff, "-"), _changed(result.diff, "+"))
            if result.is_killed:
                tally.killed.append(mutant)
            elif mutant in equivalent:
                tally.equivalent.append(mutant)
            else:
                tally.survived.append(mutant)
    return tally


def read_equivalent() -> Iterator[Mutant]:
    """The mutants of `equivalent.toml`."""
    for entry in tomllib.loads(EQUIVALENT.read_text(encoding="utf-8"))["mutants"]:
        for after in entry["after"]:
            yield Mutant(entry["place"], entry["before"], after)


def describe(tallies: dict[str, Tally]) -> Iterator[str]:
    """Lines of the report: survivors, then the table."""
    for tally in tallies.values():
        for mutant in sorted(tally.survived):
            yield f"{mutant.place}\n  - {mutant.before}\n  + {mutant.after}"
        for mutant in sorted(set(tally.killed) & set(read_equivalent())):
            yield f"{mutant.place}: killed, and equivalent.toml says that none can be\n  + {mutant.after}"
    yield _LINE.format("module", "mutants", "killed", "survived", "equivalent", "killed %")
    for name, tally in [*tallies.items(), ("all", _add(tallies))]:
        yield _LINE.format(
            name,
            tally.num_mutants,
            len(tally.killed),
            len(tally.survived),
            len(tally.equivalent),
            f"{100 * len(tally.killed) / tally.num_mutants:.1f}",
        )


def is_good_enough(tallies: dict[str, Tally]) -> bool:
    """Whether every module keeps the promise; equivalent mutants count as not killed."""
    return all(len(tally.killed) >= SMALLEST_SHARE * tally.num_mutants for tally in tallies.values())


def _add(tallies: dict[str, Tally]) -> Tally:
    return Tally(
        *(
            [mutant for tally in tallies.values() for mutant in getattr(tally, name)]
            for name in ("killed", "survived", "equivalent")
        )
    )


def _changed(diff: str, sign: str) -> str:
    """The lines that were taken out (`-`) or put in (`+`), in one."""
    lines = diff.splitlines()[2:]
    return " ".join(line[1:].strip() for line in lines if line.startswith(sign))
