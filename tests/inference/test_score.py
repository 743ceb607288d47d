"""Scores equal the plain loop's: one text, one mask, all logits at a time."""

import io
import json
import math
import sys
from copy import copy
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from transformers import PreTrainedTokenizerFast, TFPreTrainedModel

from tests.finished import Finished
from tests.tiny import ALL_TINY_CONFIGS, PAD_IS_ONE, SENTENCES, long_but, make_tiny
from tfmlm.cli.main import main
from tfmlm.errors import UserError
from tfmlm.inference.score import load_scorer, make_scorer
from tfmlm.training.architectures import max_block_size
from tfmlm.training.model import load_model_folder

TEXTS = [
    "Return",
    *SENTENCES[:3],
    "",
    "Load it. " * 6,
    "naïve \N{SNOWMAN}",
    "the size of the array of the file",
]


def score_plainly(
    model: TFPreTrainedModel, tokenizer: PreTrainedTokenizerFast, text: str
) -> tuple[float, int]:
    """The sum of log probabilities, and how many; only the first and last token are special."""
    ids = tokenizer(text)["input_ids"]
    total = 0.0
    for position in range(1, len(ids) - 1):
        masked = [*ids[:position], tokenizer.mask_token_id, *ids[position + 1 :]]
        logits = model(tf.constant([masked]), training=False).logits[0, position].numpy().astype(np.float64)
        highest = logits.max()
        total += logits[ids[position]] - highest - np.log(np.exp(logits - highest).sum())
    return total, len(ids) - 2


@pytest.mark.parametrize("model_type", long_but(ALL_TINY_CONFIGS, "bert", "roberta"))
def test_equals_the_plain_loop(
    model_type: str, word_tokenizer: PreTrainedTokenizerFast, byte_tokenizer: PreTrainedTokenizerFast
) -> None:
    tokenizer = copy(byte_tokenizer if model_type in PAD_IS_ONE else word_tokenizer)
    fields = ALL_TINY_CONFIGS[model_type]
    model = make_tiny(model_type, **fields | {"vocab_size": len(tokenizer), "initializer_range": 0.5})
    tokenizer.model_max_length = max_block_size(model.config)
    scores = make_scorer(model, tokenizer)(TEXTS)
    assert [score["text"] for score in scores] == TEXTS
    for score in scores:
        total, num_tokens = score_plainly(model, tokenizer, score["text"])
        assert score["tokens"] == num_tokens
        assert score["score"] == pytest.approx(total, abs=1e-4, rel=1e-6)
        if num_tokens:
            assert score["perplexity"] == pytest.approx(math.exp(-total / num_tokens), rel=1e-4)
    assert len({round(score["score"], 3) for score in scores}) == len(TEXTS)


@pytest.fixture(scope="module")
def model_dir(byte_run: Finished) -> Path:
    return byte_run.model_dir


def test_more_texts_than_a_chunk_and_a_batch_keep_their_order(model_dir: Path) -> None:
    score = load_scorer(str(model_dir))
    texts = [SENTENCES[number % 240] + " again" * (number % 7) for number in range(300)]
    together = score(texts)
    assert [one["text"] for one in together] == texts
    for number in (0, 100, 255, 256, 299):
        (alone,) = score([texts[number]])
        assert together[number] == alone | {
            "score": pytest.approx(alone["score"], abs=1e-4),
            "perplexity": pytest.approx(alone["perplexity"], rel=1e-5),
        }


def test_a_text_without_tokens_scores_nothing(model_dir: Path) -> None:
    assert load_scorer(str(model_dir))([""]) == [{"text": "", "score": 0.0, "tokens": 0, "perplexity": None}]


def test_special_tokens_in_the_text_are_not_scored(model_dir: Path) -> None:
    score = load_scorer(str(model_dir))
    marked, plain = score(["Return<mask> size", "Return size"])
    assert marked["tokens"] == plain["tokens"]
    assert marked["score"] != pytest.approx(plain["score"], abs=1e-4)


def test_the_longest_text_is_scored_and_a_longer_one_refused(model_dir: Path) -> None:
    score = load_scorer(str(model_dir))
    model, tokenizer = load_model_folder(model_dir)
    longest = " array" * 68
    assert len(tokenizer(longest)["input_ids"]) == tokenizer.model_max_length == 70
    (one,) = score([longest])
    assert one["score"] == pytest.approx(score_plainly(model, tokenizer, longest)[0], abs=1e-4, rel=1e-6)
    with pytest.raises(
        UserError, match=r"text ' array array.*…' has 71 tokens and the model takes 70; shorten it"
    ):
        score([longest + " array"])


def test_an_export_is_refused_with_what_to_do(byte_run: Finished) -> None:
    for path in (byte_run.version.parent, byte_run.version):
        with pytest.raises(UserError, match=r"is an export, .*; score with the run or the model folder"):
            load_scorer(str(path))


def test_the_command_prints_or_writes_a_line_a_text(
    model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = load_scorer(str(model_dir))(TEXTS)
    assert main(["score", str(model_dir), *TEXTS, "--json"]) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == expected
    assert main(["score", str(model_dir), *TEXTS]) == 0
    lines = capsys.readouterr().out.splitlines()
    for line, score in zip(lines, expected, strict=True):
        assert line == f"{score['score']:10.3f}  {score['tokens']:5}  {score['text']}"

    texts, output = tmp_path / "texts.txt", tmp_path / "scores.jsonl"
    texts.write_text("".join(f"{text}\n" for text in TEXTS), encoding="utf-8")
    assert main(["score", str(model_dir), "--input", str(texts), "--output", str(output)]) == 0
    assert capsys.readouterr().out == f"{len(TEXTS)} texts -> {output}\n"
    assert [json.loads(line) for line in output.read_text().splitlines()] == expected

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(texts.read_bytes())))
    assert main(["score", str(model_dir), "-", "--json"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert [json.loads(line) for line in printed.out.splitlines()] == expected


def test_a_wrong_row_is_named_and_nothing_is_half_written(
    model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts, output = tmp_path / "texts.txt", tmp_path / "scores.jsonl"
    texts.write_text("\n".join([*["a"] * 256, "a" * 500]))
    assert main(["score", str(model_dir), "--input", str(texts), "--output", str(output)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"tfmlm: {texts} row 257 has ")
    assert error.endswith("the model takes 70; shorten it\n")
    assert list(tmp_path.iterdir()) == [texts]
