"""One finished run, whose card the tests read, and copies of it to change."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.hub.card.cards import TEXT
from tests.hub.interface import TOKEN
from tests.tiny import SENTENCES
from tests.tiny_run import make_config
from tfmlm.config import Config, ExportConfig, HubConfig, RunConfig
from tfmlm.run import run


@pytest.fixture(scope="package")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("card")
    (folder / "secret-place").mkdir()
    text_file = folder / "secret-place" / "docs.txt"
    text_file.write_text("\n".join(SENTENCES * 4), encoding="utf-8")
    tiny = make_config(folder, text_file)
    return replace(
        tiny,
        run=RunConfig(name="tiny", output_dir=str(folder / "run"), sample_texts=[TEXT]),
        export=ExportConfig(dir=str(folder / "secret-place" / "exports"), name="tiny-export"),
        hub=HubConfig(license="apache-2.0", language=["en"]),
    )


@pytest.fixture(scope="package")
def run_dir(config: Config) -> Path:
    """A finished run, whose card nobody has changed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_TOKEN", TOKEN)
        run(config)
    return config.run_dir


@pytest.fixture
def copy_dir(run_dir: Path, tmp_path: Path) -> Path:
    return shutil.copytree(run_dir, tmp_path / "copy", ignore=shutil.ignore_patterns("checkpoints"))
