"""The umask decides who may read and write what the commands leave, file by file."""

import os
from pathlib import Path

import pytest

from tests.tiny_run import make_config
from tfmlm.cli.main import main
from tfmlm.config.load import dump_config


def list_other_modes(folder: Path, umask: int) -> dict[str, str]:
    """Files and folders of another mode than a program gets that asks for no special one."""
    return {
        str(path.relative_to(folder)): oct(path.stat().st_mode & 0o777)
        for path in folder.rglob("*")
        if path.stat().st_mode & 0o777 != (0o777 if path.is_dir() else 0o666) & ~umask
    }


@pytest.mark.long
@pytest.mark.parametrize("umask", [0o000, 0o027])
def test_the_umask_decides(
    umask: int, tmp_path: Path, text_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "work"
    monkeypatch.setenv("TFMLM_CACHE", str(folder / "cache"))
    config = tmp_path / "config.yaml"
    config.write_text(dump_config(make_config(folder, text_file, max_steps=4, checkpoint_every_steps=2)))
    before = os.umask(umask)
    try:
        folder.mkdir()
        assert main(["train", str(config), "export.enabled=true", f"export.dir={folder}/exports"]) == 0
        assert main(["prepare", str(config), "--output", str(folder / "shards")]) == 0
        assert main(["report", str(folder / "run"), "--output", str(folder / "report.html")]) == 0
        predict = ["predict", str(folder / "run"), "Return the [MASK].", "--output", str(folder / "p.jsonl")]
        assert main(predict) == 0
    finally:
        os.umask(before)
    parts = [
        "run/model/model.safetensors",
        "exports",
        "shards/manifest.json",
        "report.html",
        "p.jsonl",
        "cache",
    ]
    assert all((folder / part).exists() for part in parts)
    assert list_other_modes(folder, umask) == {}
