"""The card of a run: read, written again after changes, and the code in it."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from tfmlm.config import Config
from tfmlm.hub.card import TrainingEnvironment, write_card
from tfmlm.results import Result
from tfmlm.run_folder import RunFolder

TEXT = "Return the [MASK] size."
CIRCUMSTANCES = TrainingEnvironment("1 CPU", ["the head is new"])


def read_card(run_dir: Path) -> str:
    return (run_dir / "model" / "README.md").read_text(encoding="utf-8")


def read_result(run_dir: Path) -> Result:
    result = RunFolder(run_dir).read_result()
    assert result
    return result


def rewrite(copy_dir: Path, config: Config, **changes: Any) -> str:
    """The card of a run that differs in some of its configuration or result."""
    result = replace(read_result(copy_dir), **changes)
    write_card(config, RunFolder(copy_dir), result, CIRCUMSTANCES)
    return read_card(copy_dir)


def extract(card: str, language: str, heading: str) -> str:
    """All code in that language below a heading."""
    section = card.partition(f"### {heading}\n")[2].partition("\n#")[0]
    return "\n".join(re.findall(rf"```{language}\n(.*?)\n```", section, re.DOTALL))
