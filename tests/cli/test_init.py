"""`tfmlm init` and `tfmlm train --text`: one choice, written with comments or trained with."""

import json
import shutil
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from tests.preview.server import run_server
from tests.tiny import SENTENCES, write_hub_folder
from tfmlm.cli.init import write_commented
from tfmlm.cli.main import main
from tfmlm.config.load import load_config
from tfmlm.training.suggestion import suggest_config


@pytest.fixture
def world(tmp_path: Path, byte_tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model and with texts, and nothing else."""
    write_hub_folder(tmp_path / "model", byte_tokenizer)
    for number, sentence in enumerate(SENTENCES):
        path = tmp_path / "my_notes" / f"{number % 7}" / f"{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{sentence}\n\n{sentence.upper()}\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


FROM = ["--text", "my_notes/", "--model", "model"]


def test_what_is_written_is_what_is_trained_with(world: Path, capfd: pytest.CaptureFixture[str]) -> None:
    odd = r"run.sample_texts=['\${HOME} \u202e: #<mask>']"
    said = ["optimizer.learning_rate=3e-4", odd]
    assert main(["init", said[0], *FROM, said[1]]) == 0
    printed = capfd.readouterr().out
    suggestion = suggest_config(["my_notes/"], "model", said)
    written = (world / "my_notes.yaml").read_text()
    assert load_config("my_notes.yaml") == suggestion.config
    assert written == write_commented(suggestion)
    unwrapped = " ".join(line.strip().removeprefix("# ") for line in written.splitlines())
    for choice in suggestion.choices:
        assert choice.reason in printed
        assert f"Here: {choice.reason}." in unwrapped
    assert printed.endswith("next         tfmlm train my_notes.yaml\n")
    # A second one writes over nothing, and neither does one of another name.
    assert main(["init", *FROM]) == 2
    assert (world / "my_notes.yaml").read_text() == written
    assert main(["init", *FROM, "--output", "other.yaml", "run.name=x"]) == 0
    assert load_config("other.yaml").run.name == "x"


@pytest.mark.long
def test_one_command_in_an_empty_folder_ends_with_an_export_that_is_served(
    world: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = ["train", *FROM, "train.epochs=1", "export.text_signature=require"]
    assert main(command) == 0
    out, error = capfd.readouterr()
    assert "chosen       run.name=my_notes" in out
    assert "             tfmlm serve saved_models/my_notes\n" in out
    assert "step 1 of" in error
    config = load_config("runs/my_notes/config.yaml")
    result = json.loads(Path("runs/my_notes/result.json").read_text())
    assert config.train.epochs == 1
    assert f"data.block_size={config.data.block_size}" in out

    with run_server(world / "saved_models" / "my_notes") as server:
        status, answer = server.ask(":predict", {"instances": ["Return the<mask> size."]})
    assert status == 200
    assert len(answer["predictions"][0]["tokens"][0]) == 5

    # More text and the same command: the run is recognized, and nothing is trained anew.
    shutil.copytree("my_notes", "my_notes/more")
    assert main(["train", *FROM]) == 0
    out, error = capfd.readouterr()
    assert "begun        runs/my_notes holds this run" in out
    assert "train.epochs=1, which would be" in out
    assert "step 1 of" not in error
    assert json.loads(Path("runs/my_notes/result.json").read_text()) == result
    # With another setting it is another run; with a larger one it would go on.
    assert main(["train", *FROM, "data.block_size=32"]) == 2
    assert "holds a run of another configuration (data.block_size)" in capfd.readouterr().err
    # The file that `init` writes of the text as it was is the same run.
    shutil.rmtree("my_notes/more")
    assert main(["init", *FROM]) == 0
    assert load_config("my_notes.yaml") == config
