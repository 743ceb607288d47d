"""What the user got wrong ends in one line, exit code 2, and nothing half-written."""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from tests.cli.bad_input import CONFIG, TABLE, Case, write_page
from tests.folders import CHECKOUT
from tests.tiny import SENTENCES, write_hub_folder
from tfmlm.cli.main import main, make_parser, run_command
from tfmlm.errors import UserError, in_one_line

CASES = [(f"{area}: {case.mistake}", case) for area, cases in TABLE.items() for case in cases]
PAGE = CHECKOUT / "docs" / "bad-input.md"

BEGUN = {"run", "run/config.yaml", ".run.lock", ".model.lock"}
"""What a run that could not start leaves, with the lock beside its folder; the same command, put right, goes
on from it."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, byte_tokenizer: PreTrainedTokenizerFast) -> Path:
    folder = tmp_path_factory.mktemp("bad") / "model"
    write_hub_folder(folder, byte_tokenizer)
    byte_tokenizer.save_pretrained(folder.with_name("tokens"))
    return folder


@pytest.fixture
def folder(tmp_path: Path, model: Path) -> Path:
    (tmp_path / "texts.txt").write_text("\n".join(SENTENCES))
    (tmp_path / "config.yaml").write_text(CONFIG.format(folder=tmp_path))
    for name in ("model", "tokens"):
        shutil.copytree(model.with_name(name), tmp_path / name)
    return tmp_path


def list_commands() -> list[str]:
    (commands,) = [action for action in make_parser()._actions if isinstance(action.choices, dict)]
    return list(commands.choices)


def read_all(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize("case", [case for _, case in CASES], ids=[name for name, _ in CASES])
def test_a_mistake_ends_in_one_line(case: Case, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    case.arrange(folder)
    before = read_all(folder)
    exit_code = main(case.make_arguments(folder))
    errors = capfd.readouterr().err
    last_line = errors.splitlines()[-1]
    assert exit_code == 2, errors
    assert last_line.startswith("tfmlm: ")
    assert case.says in last_line
    assert last_line.isprintable()
    assert errors.count("tfmlm: ") == 1
    assert "Traceback" not in errors
    after = read_all(folder)
    assert {name: after.get(name) for name in before} == before | {
        name: after[name] for name in BEGUN & before.keys()
    }
    assert after.keys() - before.keys() <= BEGUN


def test_the_same_folder_trains_once_the_input_is_right(folder: Path) -> None:
    """Shows that the cases above fail for their own reason."""
    assert main(["train", str(folder / "config.yaml"), "data.block_size=long"]) == 2
    assert main(["train", str(folder / "config.yaml")]) == 0


def test_the_table_is_large_and_its_page_is_the_present_one() -> None:
    assert len(CASES) >= 60
    assert len({name for name, _ in CASES}) == len(CASES)
    assert PAGE.read_text(encoding="utf-8") == write_page(), (
        "run python -m tests.cli.bad_input > docs/bad-input.md"
    )


# === Debugging, and what nobody foresaw ===


@pytest.mark.parametrize("place", [0, 1, 2], ids=["before the command", "after it", "at the end"])
def test_debug_shows_where_an_error_comes_from(
    place: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["config", str(tmp_path / "none.yaml")]
    assert main(arguments) == 2
    line = capfd.readouterr().err
    assert "Traceback" not in line
    assert main([*arguments[:place], "--debug", *arguments[place:]]) == 2
    errors = capfd.readouterr().err
    assert errors.startswith("Traceback (most recent call last)")
    assert "load.py" in errors
    assert errors.endswith(line)


@pytest.mark.parametrize("command", sorted(list_commands()))
def test_every_command_takes_debug(command: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert "--debug" in capfd.readouterr().out


def test_a_bug_keeps_its_traceback_and_asks_to_be_reported(capfd: pytest.CaptureFixture[str]) -> None:
    def fail(options: argparse.Namespace) -> int:
        raise ZeroDivisionError

    assert run_command(argparse.Namespace(command=fail, debug=False)) == 70
    errors = capfd.readouterr().err
    assert "ZeroDivisionError" in errors
    assert errors.splitlines()[-1] == "tfmlm: this is a bug in tfmlm; please report it with the lines above"


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = f"{sys.executable} -m tfmlm config | head -c 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, timeout=60, check=False)
    assert done.stderr == b""
    assert done.returncode in {0, 141}


def test_a_message_cannot_command_the_terminal() -> None:
    error = UserError("row 'a\x1b[2J'\r\nends \ud800\u202e; é stays")
    assert in_one_line(error) == "row 'a\\x1b[2J' ends \\ud800\\u202e; é stays"
