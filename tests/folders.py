"""Folders: the checkout, and the contents of others."""

from pathlib import Path

CHECKOUT = Path(__file__).parents[1]


def read_folder(folder: Path) -> dict[str, bytes]:
    """Every file's contents by its path below the folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
