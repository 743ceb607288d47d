"""`tfmlm predict` takes texts from one place and writes all of its answers, or none."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.finished import Finished
from tests.tiny import TEXTS
from tfmlm.cli.main import main


@pytest.fixture(scope="module")
def model_dir(byte_run: Finished) -> Path:
    return byte_run.model_dir


@pytest.fixture(scope="module")
def many_texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "texts.txt"
    path.write_text("\n".join(TEXTS * 20), encoding="utf-8")  # more than one batch
    return path


def read_json(lines: str) -> list[object]:
    return [json.loads(line) for line in lines.splitlines()]


def test_files_and_stdin_give_what_arguments_give(
    model_dir: Path,
    many_texts: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = ["predict", str(model_dir), "--top-k", "2"]
    texts = many_texts.read_text().splitlines()
    assert main([*command, "--json", *texts]) == 0
    expected = read_json(capsys.readouterr().out)
    assert len(expected) == 40

    assert main([*command[:2], *texts[:3], "--json", *command[2:], *texts[3:]]) == 0
    assert read_json(capsys.readouterr().out) == expected

    assert main([*command, "--json", "--input", str(many_texts)]) == 0
    assert read_json(capsys.readouterr().out) == expected

    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"id": 1, "text": text}) + "\n" for text in texts))
    output = tmp_path / "filled.jsonl"
    assert main([*command, "--input", str(rows), "--output", str(output)]) == 0
    assert capsys.readouterr().out == f"40 texts -> {output}\n"
    assert read_json(output.read_text()) == expected

    lines = many_texts.read_bytes().replace(b"\n", b"\r\n")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
    assert main([*command, "--json", "-"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert read_json(printed.out) == expected


def test_lines_come_out_as_batches_are_done(model_dir: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "tfmlm", "predict", str(model_dir), "--json", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write((TEXTS[0] + "\n") * 33)
        process.stdin.flush()
        # The standard input is still open.
        assert [len(json.loads(process.stdout.readline())) for _ in range(32)] == [1] * 32
        assert process.poll() is None
        process.stdin.close()
        assert len(process.stdout.readlines()) == 1
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("name", "last_row", "says"),
    [
        # 40 right rows are more than a batch, which has been computed when row 41 comes.
        ("t.txt", b"no mask", "{path} row 41 has no mask; write <mask> where a word is wanted"),
        ("t.txt", b"", "{path} row 1 has no mask; write <mask> where a word is wanted"),
        (
            "t.txt",
            b"<mask>" + b" array" * 100,
            "{path} row 1 has 103 tokens and the model takes 70; shorten it",
        ),
        ("t.txt", b"<mask> \xff", "{path} row 1 is not UTF-8 (byte 7); convert it"),
        (
            "t.jsonl",
            b'{"text": "<mask>"',
            "{path} row 41 is not JSON (Expecting ',' delimiter: line 1 column",
        ),
        ("t.jsonl", b'{"texts": "<mask>"}', "{path} row 1 has no field `text` with a string; write one"),
        ("t.jsonl", b"3", "{path} row 1 has no field `text` with a string; write one"),
    ],
)
def test_a_wrong_row_is_named_and_nothing_is_half_written(
    model_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    last_row: bytes,
    says: str,
) -> None:
    texts = TEXTS * 20 if "row 41" in says else []
    rows = [json.dumps({"text": text}) if name.endswith("jsonl") else text for text in texts]
    path, output = tmp_path / name, tmp_path / "filled.jsonl"
    path.write_bytes("\n".join([*rows, ""]).encode() + last_row + b"\n")
    output.write_text("before\n")
    assert main(["predict", str(model_dir), "--input", str(path), "--output", str(output)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"tfmlm: {says.format(path=path)}")
    assert printed.err.count("\n") == 1
    assert sorted(file.name for file in tmp_path.iterdir()) == ["filled.jsonl", name]
    assert output.read_text() == "before\n"


def test_skipped_rows_keep_the_lines_together_and_are_named(
    model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, output = tmp_path / "t.txt", tmp_path / "filled.jsonl"
    long = "<mask>" + " array" * 100
    rows = [TEXTS[0], "no mask", long, *[""] * 9, TEXTS[0]]
    path.write_text("\n".join(rows) + "\n")
    command = ["predict", str(model_dir), "--input", str(path), "--without-mask", "skip"]
    assert main([*command, "--output", str(output)]) == 2
    assert "row 3 has 103 tokens" in capsys.readouterr().err
    assert not output.exists()
    assert main([*command, "--long-texts", "cut", "--output", str(output)]) == 0
    filled = read_json(output.read_text())
    assert [len(masks) for masks in filled] == [1, 0, 1, *[0] * 9, 1]
    tokens = [[candidate["token"] for candidate in masks[0]] for masks in (filled[0], filled[-1])]
    assert tokens[0] == tokens[1]
    *named, last = capsys.readouterr().err.splitlines()
    assert len(named) == 10
    assert named[0] == f"tfmlm: {path} row 2: skipped, for there is no <mask> in it"
    assert named[1] == f"tfmlm: {path} row 3: cut to the 70 tokens that the model takes"
    assert last == "tfmlm: 11 texts were skipped or cut, of which the first 10 are named above"
    # For people each note stands at its text.
    assert main(["predict", str(model_dir), "no", TEXTS[0], "--without-mask", "skip"]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith(f"no\n  note: skipped, for there is no <mask> in it\n{TEXTS[0]}\n  ")
    assert printed.err == ""


def test_targets_on_the_command_line(model_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["predict", str(model_dir), TEXTS[0], "--json", "--targets", "Ġsize,Ġpath,Ġsizes"]
    assert main(arguments) == 0
    printed = capsys.readouterr()
    ((candidates,),) = read_json(printed.out)
    assert {candidate["token_str"] for candidate in candidates} >= {" size", " path"}
    assert candidates == sorted(candidates, key=lambda candidate: -candidate["score"])
    assert printed.err.startswith("tfmlm: target 'Ġsizes' is not in the vocabulary; ")
    assert main([*arguments, "--top-k", "1"]) == 0
    ((candidates_1,),) = read_json(capsys.readouterr().out)
    assert candidates_1 == candidates[:1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "there are no texts; give some, - for the standard input, or --input FILE"),
        (["a", "--input", "texts.txt"], "texts and --input are both given"),
        (["-", "--input", "texts.txt"], "texts and --input are both given"),
        (["a", "-"], "texts and - for the standard input are both given"),
        (["--input", "nowhere.txt"], "--input 'nowhere.txt' is not a file"),
        (["--input", "/"], "--input '/' is not a file"),
    ],
)
@pytest.mark.parametrize("command", ["predict", "score"])
def test_texts_come_from_one_place(
    command: str, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the model is looked at."""
    assert main([command, "nowhere", *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"tfmlm: {says}")


@pytest.mark.parametrize(("output", "says"), [("nowhere/a.jsonl", "cannot be written"), ("", "is a folder")])
def test_an_output_that_cannot_be_written(
    model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], output: str, says: str
) -> None:
    assert main(["predict", str(model_dir), TEXTS[0], "--output", str(tmp_path / output)]) == 2
    assert says in capsys.readouterr().err
