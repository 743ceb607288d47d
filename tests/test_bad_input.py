"""What the user got wrong ends in one line, exit code 2, and no run that looks finished."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast, RobertaTokenizerFast

from tests.pytorch_folder import write_hub_folder
from tests.tiny import SENTENCES
from tfmlm.cli import main

CONFIG = """
run: {{name: bad, output_dir: {folder}/run}}
data: {{source: text, train_files: [{folder}/texts.txt], block_size: 32}}
model: {{name_or_path: {folder}/model}}
train: {{max_steps: 1, per_replica_batch_size: 2}}
export: {{enabled: false}}
"""

Case = tuple[str, Callable[[Path], list[str]], str]


def overrides(*items: str) -> Callable[[Path], list[str]]:
    return lambda folder: [item.format(folder=folder) for item in items]


def write(name: str, content: str | bytes, *items: str) -> Callable[[Path], list[str]]:
    def prepare(folder: Path) -> list[str]:
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return overrides(*items)(folder)

    return prepare


def remove_mask_token(folder: Path) -> list[str]:
    tokenizer = RobertaTokenizerFast.from_pretrained(folder / "model")
    bare = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer, pad_token=tokenizer.pad_token
    )
    bare.save_pretrained(folder / "bare")
    return [f"tokenizer.name_or_path={folder / 'bare'}"]


def remove(name: str) -> Callable[[Path], list[str]]:
    def prepare(folder: Path) -> list[str]:
        (folder / name).unlink()
        return []

    return prepare


def begin_another_run(folder: Path) -> list[str]:
    (folder / "run" / "checkpoints" / "of-another-run").mkdir(parents=True)
    (folder / "run" / "config.yaml").write_text(
        CONFIG.format(folder=folder) + "optimizer: {learning_rate: 0.5}\n"
    )
    return []


JSON = ("data.source=json", "data.train_files=[{folder}/rows.jsonl]")
CASES: list[Case] = [
    ("unknown key", overrides("optimizer.learning_rat=1"), "optimizer.learning_rat: .*'learning_rate'"),
    ("unknown section", overrides("optimiser.learning_rate=1"), "optimiser: .*'optimizer'"),
    ("wrong type", overrides("data.block_size=long"), "data.block_size is 'long'; it must be of type int"),
    ("list expected", overrides("data.train_files=a.txt"), "data.train_files is 'a.txt'; .* list"),
    ("section expected", overrides("data=3"), "overrides do not fit|section data is 3"),
    ("no choice", overrides("train.precision=fp8"), "train.precision is 'fp8'; .*float32, bfloat16"),
    ("out of range", overrides("masking.rate=1.5"), "masking.rate is 1.5; it must be between 0 and 1"),
    ("fractions over 1", overrides("masking.mask_fraction=0.95"), "add up to more than 1"),
    ("no override", overrides("block_size"), "'block_size' is not of the form section.key=value"),
    ("push to nowhere", overrides("hub.push=true"), "hub.repo_id is empty"),
    (
        "broken YAML",
        write("config.yaml", "run: {name: [1"),
        "config.yaml' line \\d, column 1: not valid YAML",
    ),
    ("YAML list", write("config.yaml", "- 1\n- 2\n"), "is a list"),
    ("not text at all", write("config.yaml", b"run: \xff\xfe"), "config.yaml' cannot be read|not valid YAML"),
    ("no config", remove("config.yaml"), "config.yaml' does not exist"),
    ("no files", overrides("data.train_files=[]"), "needs data.train_files"),
    (
        "split of files",
        overrides("data.validation_split=test"),
        "validation_split 'test' is for Hub datasets",
    ),
    ("missing file", overrides("data.train_files=[{folder}/none.txt]"), "no text file matches .*none.txt"),
    ("empty file", write("texts.txt", ""), "texts.txt|holds no text"),
    ("only blanks", write("texts.txt", "\n  \n"), "holds no text"),
    ("no such column", write("rows.jsonl", '{"a": "b"}\n', *JSON), "'text' does not exist; .*columns are: a"),
    (
        "column of numbers",
        write("rows.jsonl", '{"a": 1, "b": "c"}\n', *JSON, "data.text_column=a"),
        "'a' holds int64, not text",
    ),
    ("broken rows", write("rows.jsonl", '{"text": "a"}\n{"text": \n', *JSON), "rows.jsonl"),
    ("no mask token", remove_mask_token, "has no mask_token"),
    ("no weights", remove("model/model.safetensors"), "has no weights"),
    ("block too long", overrides("data.block_size=71"), "data.block_size 71 is over .* maximum of 70"),
    ("model is no folder", overrides("model.name_or_path={folder}/nowhere"), "is not a folder"),
    ("folder not writable", overrides("run.output_dir={folder}/texts.txt/run"), "cannot be written"),
    ("folder in use", overrides("run.output_dir={folder}/model"), "is not empty and holds no run"),
    ("another run", begin_another_run, r"another configuration \(optimizer.learning_rate\)"),
]


@pytest.fixture
def folder(tmp_path: Path, byte_tokenizer: PreTrainedTokenizerFast) -> Path:
    (tmp_path / "texts.txt").write_text("\n".join(SENTENCES))
    (tmp_path / "config.yaml").write_text(CONFIG.format(folder=tmp_path))
    write_hub_folder(tmp_path / "model", byte_tokenizer)
    return tmp_path


@pytest.mark.parametrize(
    ("prepare", "message"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_train_refuses(
    prepare: Callable[[Path], list[str]], message: str, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = prepare(folder)
    exit_code = main(["train", str(folder / "config.yaml"), *arguments])
    captured = capfd.readouterr()
    last_line = captured.err.splitlines()[-1]
    assert exit_code == 2
    assert last_line.startswith("tfmlm: ")
    assert_matches(message, last_line)
    assert "Traceback" not in captured.err
    assert captured.err.count("tfmlm: ") == 1
    assert not list(folder.rglob("result.json"))
    assert not (folder / "run" / "model").exists()


def assert_matches(pattern: str, line: str) -> None:
    assert re.search(pattern, line), line


def test_the_same_folder_trains_once_the_input_is_right(folder: Path) -> None:
    """Shows that the cases above fail for their own reason."""
    assert main(["train", str(folder / "config.yaml")]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "{folder}/nowhere/x", "a <mask>"], "is not a folder"),
        (["predict", "{folder}/model", "no mask here"], "text 'no mask here' has no mask; write <mask>"),
        (["predict", "{folder}/model", "<mask>" + " a" * 100], "the model takes 70; shorten it"),
        (["predict", "{folder}/model", "<mask>", "--top-k", "0"], "--top-k is 0"),
        (["evaluate", "{folder}"], "no finished run"),
        (["export", "{folder}/model"], "has no run_config.yaml"),
        (["config", "{folder}/none.yaml"], "does not exist"),
    ],
)
def test_other_commands_refuse(
    arguments: list[str], message: str, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([argument.format(folder=folder) for argument in arguments]) == 2
    error = capfd.readouterr().err
    assert message in error
    assert "Traceback" not in error
