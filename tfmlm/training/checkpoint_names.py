"""The names of checkpoints: which of them are in a folder, and in what order."""

from __future__ import annotations

import re
from pathlib import Path


def list_checkpoints(folder: Path, kind: str) -> list[Path]:
    """The checkpoints `KIND-STEP` in a folder, by their step.

    Args:
        folder: it need not be there.
        kind: `step` or `best`.
    """
    pattern = re.compile(rf"{kind}-(\d{{8,}})")
    found = ((pattern.fullmatch(path.name), path) for path in folder.glob(f"{kind}-*"))
    # As numbers: eight digits are not enough for every step, and text puts 100000000 before 99999999.
    return [path for _, path in sorted((int(match[1]), path) for match, path in found if match)]
