"""What `import tfmlm` offers: light until it is used, and the same as the commands."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

import tfmlm
from tests.finished import Finished
from tests.folders import CHECKOUT
from tfmlm.cli.main import main
from tfmlm.errors import UserError


def run_code(code: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(CHECKOUT)} | environment,
    )


def test_the_import_is_light(tmp_path: Path) -> None:
    done = run_code(
        "import sys, tfmlm\nassert {'train', 'fill'} <= set(dir(tfmlm))\n"
        "print(sorted({'tensorflow', 'transformers', 'datasets', 'numpy', 'omegaconf'} & set(sys.modules)))",
        tmp_path,
    )
    assert done.stdout == "[]\n", done.stderr
    with pytest.raises(AttributeError, match="has no attribute 'tarin'"):
        tfmlm.tarin  # noqa: B018


@pytest.mark.long
def test_keras_3_that_was_there_first_is_told(tmp_path: Path) -> None:
    code = (
        "import tensorflow as tf\ntf.keras.Model\nimport tfmlm\n"
        "try:\n    tfmlm.fill('model', 'a')\nexcept Exception as error:\n    print(repr(error))"
    )
    done = run_code(code, tmp_path, TF_USE_LEGACY_KERAS="0")
    assert "UserError('TensorFlow was used with Keras 3 before tfmlm was imported" in done.stdout, done.stderr


@pytest.mark.parametrize("form", ["file", "config", "mapping"])
def test_train_reads_a_finished_run_again(form: str, word_run: Finished, tmp_path: Path) -> None:
    """In each form of a configuration; that it trains shows the recipe among the examples."""
    run_dir = tmp_path / "run"
    shutil.copytree(word_run.run_dir, run_dir)
    config = replace(word_run.config, run=replace(word_run.config.run, output_dir=str(run_dir)))
    given = {"file": run_dir / "config.yaml", "config": config, "mapping": asdict(config)}[form]
    result = tfmlm.train(given, [f"run.output_dir={run_dir}"])
    assert asdict(result) == json.loads((word_run.run_dir / "result.json").read_text())
    with pytest.raises(UserError, match=r"data\.block_size is 0"):
        tfmlm.train(given, ["data.block_size=0"])


def test_fill_is_predict(word_run: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    texts = ["Return the [MASK] size.", "Load the [MASK] of the [MASK]."]
    filled = tfmlm.fill(word_run.run_dir, texts, top_k=3)
    assert main(["predict", str(word_run.run_dir), *texts, "--top-k", "3", "--json"]) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == filled
    assert tfmlm.fill(str(word_run.version), texts[0], top_k=3)[0][0]["token"] == filled[0][0][0]["token"]
    for wrong, says in ((["a", 3], "texts hold 3"), ("no mask", "has no mask")):
        with pytest.raises(UserError, match=says):
            tfmlm.fill(word_run.run_dir, wrong)
    with pytest.raises(UserError, match="top_k is 0"):
        tfmlm.fill(word_run.run_dir, texts, top_k=0)
