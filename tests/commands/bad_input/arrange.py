"""How a folder comes to hold what is wrong."""

import json
from pathlib import Path

from tests.commands.bad_input.case import Arrange


def write(name: str, content: str | bytes) -> Arrange:
    def arrange(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return arrange


def remove(name: str) -> Arrange:
    return lambda folder: (folder / name).unlink()


def change_json(name: str, **values: object) -> Arrange:
    def arrange(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return arrange


def cut(name: str, share: float) -> Arrange:
    def arrange(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(share * len(content))])

    return arrange


def then(*arrangements: Arrange) -> Arrange:
    def arrange(folder: Path) -> None:
        for each in arrangements:
            each(folder)

    return arrange
