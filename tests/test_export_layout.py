"""An export's folder is read by one rule, and exports at once do not share what they write."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tensorflow as tf

from tests.finished import Finished, Signatures, save_untraced
from tfmlm.config import ExportConfig
from tfmlm.errors import UserError
from tfmlm.export.saved_model import export_saved_model
from tfmlm.export_layout import add_version, begin_version, list_versions
from tfmlm.inference.loading import find_export


def put(folder: Path, name: str, file: str = "saved_model.pb") -> Path:
    (folder / name).mkdir()
    (folder / name / file).write_text(name)
    return folder / name


def test_only_plain_integers_with_a_saved_model_are_versions(tmp_path: Path) -> None:
    for name in ("1", "2", "007", "+9", "\N{SUPERSCRIPT TWO}", "1.5", ".unfinished-a"):
        put(tmp_path, name)
    put(tmp_path, "8", "variables")
    (tmp_path / "9").write_text("a file")
    assert sorted(list_versions(tmp_path)) == [1, 2]
    assert find_export(str(tmp_path)) == tmp_path / "2"


def test_the_next_number_is_after_all_that_have_one(tmp_path: Path) -> None:
    put(tmp_path, "1")
    put(tmp_path, "8", "variables")
    assert add_version(put(tmp_path, ".finished"), tmp_path) == tmp_path / "9"


@pytest.mark.parametrize("number", [2**63, 10**20])
def test_numbers_beyond_64_bits_are_none(tmp_path: Path, number: int) -> None:
    put(tmp_path, "3")
    put(tmp_path, str(number))
    assert list_versions(tmp_path) == [3]
    assert find_export(str(tmp_path)) == tmp_path / "3"
    assert add_version(put(tmp_path, ".finished"), tmp_path) == tmp_path / "4"
    put(tmp_path, str(2**63 - 1))
    with pytest.raises(UserError, match="has the last number as a version"):
        add_version(put(tmp_path, ".another"), tmp_path)


def test_what_a_killed_export_left_is_removed_after_a_day(tmp_path: Path) -> None:
    old, new = begin_version(tmp_path), begin_version(tmp_path)
    put(tmp_path, "1")
    day_before = time.time() - 25 * 3600
    for path in (old, tmp_path / "1"):
        os.utime(path, (day_before, day_before))
    mine = begin_version(tmp_path)
    assert set(tmp_path.iterdir()) == {new, mine, tmp_path / "1"}
    assert mine.stat().st_mode & 0o777 == (tmp_path / "1").stat().st_mode & 0o777


def test_many_at_once_get_a_number_each(tmp_path: Path) -> None:
    finished = [put(tmp_path, f".finished-{number}") for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        versions = list(pool.map(lambda path: add_version(path, tmp_path), finished))
    assert len(set(versions)) == 40
    assert sorted(list_versions(tmp_path)) == list(range(1, 41))
    assert {path.joinpath("saved_model.pb").read_text() for path in versions} == {
        path.name for path in finished
    }


def test_an_export_that_begins_while_another_writes_leaves_it_alone(
    tmp_path: Path, word_run: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ExportConfig(dir=str(tmp_path / "exports"), text_signature="off")
    others: list[Path | None] = []

    def save_after_another(module: tf.Module, folder: str, signatures: Signatures) -> None:
        save_untraced(module, folder, signatures)
        if not others:
            others.append(None)
            others[0] = export_saved_model(word_run.model_dir, config, "name").path

    monkeypatch.setattr(tf.saved_model, "save", save_after_another)
    path = export_saved_model(word_run.model_dir, config, "name").path
    assert [others[0].name, path.name] == ["1", "2"]
    assert sorted(each.name for each in path.parent.iterdir()) == ["1", "2"]
    assert all((each / "assets.extra/export.json").exists() for each in (others[0], path))
