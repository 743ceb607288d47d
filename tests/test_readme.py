"""The README's commands, in the order in which a reader types them."""

import re
import shlex
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.folders import CHECKOUT
from tests.preview.server import run_server
from tfmlm.cli.main import main
from tfmlm.config.schema import list_keys
from tfmlm.data import installed_docs

README = (CHECKOUT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    shlex.split(line.removeprefix("$ "))
    for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
]


SMALL = [
    "train.max_steps=2",
    "data.block_size=32",
    "train.precision=float32",
    "model.config.num_hidden_layers=1",
]


@pytest.fixture
def small_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with the shipped configurations, where "the installed packages" are two small ones."""
    import tqdm
    import yaml

    few = [file for package in (tqdm, yaml) for file in sorted(Path(package.__file__).parent.rglob("*.py"))]
    monkeypatch.setattr(installed_docs, "list_source_files", lambda: few)
    (tmp_path / "configs").symlink_to(CHECKOUT / "configs")
    monkeypatch.chdir(tmp_path)


@pytest.mark.long
def test_every_command_runs(
    small_world: None, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    names = set()
    servers = ExitStack()
    request.addfinalizer(servers.close)
    places: dict[str, str] = {}
    for program, *arguments in COMMANDS:
        if program == "make":
            subprocess.run(["make", "-n", *arguments], cwd=CHECKOUT, check=True, capture_output=True)
            continue
        assert program == "tfmlm"
        if arguments[0] in ("train", "prepare"):
            arguments.extend(SMALL)
        if arguments[0] == "serve":
            server = servers.enter_context(run_server(Path(arguments[1])))
            places = {"localhost:8501": server.rest, "localhost:8500": server.grpc_address}
            names.add("serve")
            continue
        if arguments[0] == "query":
            (place,) = (place for place in places if place in arguments[1])
            arguments[1] = arguments[1].replace(place, places[place])
        assert main(arguments) == 0, (arguments, capsys.readouterr().err)
        names.add(arguments[0])
    assert names == {
        "train",
        "prepare",
        "evaluate",
        "predict",
        "report",
        "score",
        "export",
        "config",
        "doctor",
        "serve",
        "query",
    }


def test_every_key_and_file_is_named() -> None:
    for key in list_keys():
        assert f"`{key.section}`" in README
        assert f"`{key.name}`" in README, key
    for folder in ("tfmlm", "configs", "tests", "benchmarks", "saved_models"):
        assert (CHECKOUT / folder).is_dir()
        assert f"{folder}/" in README
    for name in re.findall(r"configs/\w+\.yaml", README):
        assert (CHECKOUT / name).exists()


def test_nothing_is_left_to_fill_in() -> None:
    assert "@@" not in README


def test_contributing_is_short() -> None:
    assert len((CHECKOUT / "CONTRIBUTING.md").read_text().splitlines()) <= 60
