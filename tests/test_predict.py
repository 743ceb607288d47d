"""Filled masks equal the Hugging Face pipeline's."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast, pipeline

from tests.pytorch_folder import write_hub_folder
from tests.test_heads import make_tiny
from tests.tiny import TINY_CONFIGS
from tfmlm.candidate import Candidate
from tfmlm.cli import main
from tfmlm.config import ExportConfig
from tfmlm.errors import UserError
from tfmlm.export.predict import load_predictor, load_target_predictor
from tfmlm.export.saved_model import export_saved_model
from tfmlm.export.targets import find_targets
from tfmlm.training.model import load_model_folder

TEXTS = ["Return the <mask> size.", "Load the default <mask> of the <mask> file, if it exists."]


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory, byte_tokenizer: PreTrainedTokenizerFast) -> Path:
    folder = tmp_path_factory.mktemp("predict") / "model"
    write_hub_folder(folder, byte_tokenizer)
    return folder


def test_equals_the_hugging_face_pipeline(model_dir: Path) -> None:
    fill_mask = pipeline("fill-mask", model=str(model_dir), framework="tf", top_k=4)
    ours = load_predictor(str(model_dir), top_k=4)(TEXTS)
    single, several = (fill_mask(text) for text in TEXTS)
    for mine, theirs in zip([*ours[0], *ours[1]], [single, *several], strict=True):
        for candidate, expected in zip(mine, theirs, strict=True):
            assert candidate["token"] == expected["token"]
            assert candidate["token_str"] == expected["token_str"]
            assert candidate["sequence"] == expected["sequence"]
            assert candidate["score"] == pytest.approx(expected["score"], abs=1e-4)


def test_a_text_is_filled_the_same_alone_and_in_a_batch(model_dir: Path) -> None:
    predict = load_predictor(str(model_dir), top_k=3)
    texts = TEXTS * 20  # more than one batch
    together = predict(texts)
    assert len(together) == len(texts)
    for text, filled in zip(texts, together, strict=True):
        (alone,) = predict([text])
        assert [len(candidates) for candidates in filled] == [3] * text.count("<mask>")
        for mine, expected in zip(filled, alone, strict=True):
            assert [c["token"] for c in mine] == [c["token"] for c in expected]
            np.testing.assert_allclose([c["score"] for c in mine], [c["score"] for c in expected], atol=1e-5)


def test_more_candidates_than_words_are_all_words(
    model_dir: Path, byte_tokenizer: PreTrainedTokenizerFast
) -> None:
    ((candidates,),) = load_predictor(str(model_dir), top_k=10**6)(TEXTS[:1])
    assert len(candidates) == len(byte_tokenizer)
    assert sum(candidate["score"] for candidate in candidates) == pytest.approx(1.0, abs=1e-4)


def test_the_exports_signatures(model_dir: Path, tmp_path: Path) -> None:
    import tensorflow as tf

    version = export_saved_model(model_dir, ExportConfig(dir=str(tmp_path), top_k=2), "name").path
    loaded = tf.saved_model.load(str(version))
    assert set(loaded.signatures) == {
        "serving_default",
        "text",
        "ids",
        "ids_int64",
        "logits",
        "logits_int64",
    }
    input_ids = tf.constant([[0, 4, 9, 4, 2], [0, 9, 9, 2, 1]], tf.int32)
    attention_mask = tf.constant([[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]])
    outputs = loaded.signatures["ids"](input_ids=input_ids, attention_mask=attention_mask)
    assert outputs["positions"].numpy().tolist() == [[1, 3], [-1, -1]]
    assert outputs["token_ids"].shape == outputs["scores"].shape == outputs["tokens"].shape == (2, 2, 2)
    assert outputs["token_ids"].numpy()[1].tolist() == [[-1, -1], [-1, -1]]
    assert outputs["scores"].numpy()[1].sum() == 0.0
    assert outputs["tokens"].numpy()[1].tolist() == [[b"", b""], [b"", b""]]

    logits = loaded.signatures["logits"](input_ids=input_ids, attention_mask=attention_mask)["logits"]
    probabilities = tf.nn.softmax(logits[0, 1]).numpy()
    best = np.argsort(-probabilities)[:2]
    assert outputs["token_ids"].numpy()[0, 0].tolist() == best.tolist()
    np.testing.assert_allclose(outputs["scores"].numpy()[0, 0], probabilities[best], atol=1e-5)


def test_versions_count_up_and_a_failed_export_leaves_none(
    model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tensorflow as tf

    config = ExportConfig(dir=str(tmp_path))
    assert export_saved_model(model_dir, config, "name").path.name == "1"
    (tmp_path / "name" / "7").mkdir()

    def fail(*arguments: object, **options: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(tf.saved_model, "save", fail)
        with pytest.raises(UserError, match=r"disk full; make room, or set export\.dir"):
            export_saved_model(model_dir, config, "name")
    assert {path.name for path in (tmp_path / "name").iterdir()} == {"1", "7"}
    assert export_saved_model(model_dir, config, "name").path.name == "8"


def test_a_model_with_more_ids_than_its_tokenizer_exports(
    tmp_path: Path, word_tokenizer: PreTrainedTokenizerFast
) -> None:
    model = make_tiny("bert", **TINY_CONFIGS["bert"] | {"vocab_size": len(word_tokenizer) + 5})
    model.save_pretrained(tmp_path / "model", safe_serialization=True)
    word_tokenizer.save_pretrained(tmp_path / "model")
    ((candidates,),) = load_predictor(str(tmp_path / "model"), top_k=5)(["Return the [MASK]."])
    assert len(candidates) == 5


# === Given words only ===


def assert_same_candidates(ours: list[Candidate], theirs: list[dict[str, object]]) -> None:
    assert [candidate["token"] for candidate in ours] == [expected["token"] for expected in theirs]
    for candidate, expected in zip(ours, theirs, strict=True):
        assert candidate == expected | {"score": pytest.approx(expected["score"], abs=1e-4)}


WORDS = ["Ġsize", "Ġpath", " name", "array", "size", "unseen", "Ġsize", "", "Ġindex"]
"""In the vocabulary, not in it but for their first token, twice, and nothing."""


@pytest.mark.parametrize("top_k", [None, 3])
def test_targets_equal_the_hugging_face_pipelines(model_dir: Path, tmp_path: Path, top_k: int | None) -> None:
    fill_mask = pipeline("fill-mask", model=str(model_dir), framework="tf")
    expected = fill_mask(TEXTS[0], targets=WORDS, top_k=top_k or len(WORDS))
    # The export was made with fewer candidates than there are targets.
    version = export_saved_model(model_dir, ExportConfig(dir=str(tmp_path), top_k=1), "name").path
    for path in (model_dir, version):
        predict, targets = load_target_predictor(str(path), WORDS, top_k)
        assert len(targets.token_ids) < len(WORDS)
        ((candidates,),) = predict(TEXTS[:1])
        assert len(candidates) == (top_k or len(targets.token_ids))
        assert_same_candidates(candidates, expected)


def test_targets_not_in_the_vocabulary_are_told(byte_tokenizer: PreTrainedTokenizerFast) -> None:
    targets = find_targets(["Ġsize", " size", ""], byte_tokenizer)
    assert targets.token_ids == [byte_tokenizer.convert_tokens_to_ids("Ġsize")]
    assert targets.notes == [
        "target ' size' is not in the vocabulary; 'Ġsize' is scored instead",
        "target '' is not in the vocabulary; it is left out",
    ]
    with pytest.raises(UserError, match="has no word"):
        find_targets([""], byte_tokenizer)


def test_targets_of_several_masks_are_the_models_probabilities(model_dir: Path, tmp_path: Path) -> None:
    """The Hugging Face pipeline fails on several masks with targets."""
    import tensorflow as tf

    version = export_saved_model(model_dir, ExportConfig(dir=str(tmp_path)), "name").path
    model, tokenizer = load_model_folder(model_dir)
    for path in (model_dir, version):
        predict, targets = load_target_predictor(str(path), ["Ġsize", "Ġpath", "Ġname"], None)
        for text, masks in zip(TEXTS, predict(TEXTS), strict=True):
            input_ids = tokenizer(text, return_tensors="tf")["input_ids"]
            probabilities = tf.nn.softmax(model(input_ids).logits[input_ids == tokenizer.mask_token_id])
            assert len(masks) == text.count("<mask>")
            for candidates, row in zip(masks, probabilities.numpy(), strict=True):
                best = sorted(targets.token_ids, key=lambda token_id, row=row: -row[token_id])
                assert [candidate["token"] for candidate in candidates] == best
                np.testing.assert_allclose([c["score"] for c in candidates], row[best], atol=1e-5)


def test_an_export_that_answers_fewer_masks_refuses(model_dir: Path, tmp_path: Path) -> None:
    version = export_saved_model(model_dir, ExportConfig(dir=str(tmp_path), max_masks=1), "name").path
    predict = load_predictor(str(version), top_k=2)
    assert len(predict(TEXTS[:1])[0]) == 1
    with pytest.raises(UserError, match=r"has 2 masks and the export answers 1; .* export\.max_masks"):
        predict(TEXTS)


# === The command ===


@pytest.fixture(scope="module")
def many_texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "texts.txt"
    path.write_text("\n".join(TEXTS * 20), encoding="utf-8")  # more than one batch
    return path


def read_json(lines: str) -> list[object]:
    return [json.loads(line) for line in lines.splitlines()]


def test_files_and_stdin_give_what_arguments_give(
    model_dir: Path, many_texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
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

    done = subprocess.run(
        [sys.executable, "-m", "tfmlm", *command, "--json", "-"],
        input=many_texts.read_bytes().replace(b"\n", b"\r\n"),
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert read_json(done.stdout.decode()) == expected


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
        ("t.txt", b"no mask", "{path} row 41 has no mask; write <mask> where a word is wanted"),
        ("t.txt", b"", "{path} row 41 has no mask; write <mask> where a word is wanted"),
        (
            "t.txt",
            b"<mask>" + b" array" * 100,
            "{path} row 41 has 103 tokens and the model takes 70; shorten it",
        ),
        ("t.txt", b"<mask> \xff", "{path} row 41 is not UTF-8 (byte 7); convert it"),
        (
            "t.jsonl",
            b'{"text": "<mask>"',
            "{path} row 41 is not JSON (Expecting ',' delimiter: line 1 column",
        ),
        ("t.jsonl", b'{"texts": "<mask>"}', "{path} row 41 has no field `text` with a string; write one"),
        ("t.jsonl", b"3", "{path} row 41 has no field `text` with a string; write one"),
    ],
)
def test_a_wrong_row_is_named_and_nothing_is_half_written(
    model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, last_row: bytes, says: str
) -> None:
    rows = [json.dumps({"text": text}) if name.endswith("jsonl") else text for text in TEXTS * 20]
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
