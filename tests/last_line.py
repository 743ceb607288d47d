"""Commands, and the last line that the person sees of their errors."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tfmlm.cli.main import main
from tfmlm.config import Config
from tfmlm.config.load import dump_config

Command = Callable[..., tuple[int, str]]


def make_command(config: Config, path: Path, capfd: pytest.CaptureFixture[str]) -> Command:
    """Runs a command on the configuration; its exit code and its last line of errors."""
    path.write_text(dump_config(config))

    def run_command(name: str, *arguments: str, on: Path = path) -> tuple[int, str]:
        capfd.readouterr()
        exit_code = main([name, str(on), *arguments])
        errors = capfd.readouterr().err
        assert "Traceback" not in errors, errors
        return exit_code, (errors.splitlines() or [""])[-1]

    return run_command
