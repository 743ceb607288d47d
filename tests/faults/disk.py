"""What becomes of a small disk while a test runs."""

import subprocess
from pathlib import Path


def make_room(disk: Path) -> None:
    """From now on it has 60 MB."""
    subprocess.run(["mount", "-o", "remount,size=60m", str(disk)], check=True)


def make_read_only(disk: Path) -> None:
    """From now on nothing can be written there."""
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
