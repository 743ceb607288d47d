"""Filled masks equal the Hugging Face pipeline's."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast, pipeline

from tests.finished import Finished, Signatures
from tests.tiny import TEXTS, TINY_CONFIGS, make_tiny
from tfmlm.config import ExportConfig
from tfmlm.errors import UserError
from tfmlm.export.saved_model import export_saved_model
from tfmlm.inference.fill import Policy, Predictor, load_predictor, load_target_predictor
from tfmlm.inference.targets import find_targets
from tfmlm.inference.texts import GivenText
from tfmlm.results import Candidate
from tfmlm.training.model import load_model_folder


@pytest.fixture(scope="module")
def model_dir(byte_run: Finished) -> Path:
    return byte_run.model_dir


@pytest.fixture(scope="module")
def cutting(byte_run: Finished) -> tuple[Predictor, Any]:
    """An export by `predict`, and its signature `text`, which cuts in the graph."""
    import tensorflow as tf

    loaded = tf.saved_model.load(str(byte_run.version))
    text = loaded.signatures["text"]
    return load_predictor(str(byte_run.version), top_k=5), lambda texts: text(texts=tf.constant(texts))


@pytest.fixture(scope="module")
def version(byte_run: Finished) -> Path:
    """With fewer candidates than the tests have targets."""
    return byte_run.version


PREDICT_TWICE = """
import sys
from tfmlm.cli.main import main
export, text, words = sys.argv[1:]
sys.exit(main(["predict", export, text]) or main(["predict", export, text, "--targets", words]))
"""


def test_an_export_is_loaded_where_nothing_was_exported(word_run: Finished) -> None:
    """A process that has only this to do must register the operations of the text signature itself."""
    text = "Return the [MASK] of the list."
    done = subprocess.run(
        [sys.executable, "-c", PREDICT_TWICE, str(word_run.version), text, "name,value"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(text) == 2


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


def test_the_exports_signatures(version: Path) -> None:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(version))
    assert set(loaded.signatures) == {
        "serving_default",
        "text",
        "text_options",
        "ids",
        "ids_int64",
        "ids_options",
        "logits",
        "logits_int64",
    }
    input_ids = tf.constant([[0, 4, 9, 4, 2], [0, 9, 9, 2, 1]], tf.int32)
    attention_mask = tf.constant([[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]])
    outputs = loaded.signatures["ids"](input_ids=input_ids, attention_mask=attention_mask)
    assert outputs["positions"].numpy().tolist() == [[1, 3], [-1, -1]]
    assert outputs["token_ids"].shape == outputs["scores"].shape == outputs["tokens"].shape == (2, 2, 5)
    assert outputs["token_ids"].numpy()[1].tolist() == [[-1] * 5] * 2
    assert outputs["scores"].numpy()[1].sum() == 0.0
    assert outputs["tokens"].numpy()[1].tolist() == [[b""] * 5] * 2

    logits = loaded.signatures["logits"](input_ids=input_ids, attention_mask=attention_mask)["logits"]
    probabilities = tf.nn.softmax(logits[0, 1]).numpy()
    best = np.argsort(-probabilities)[:5]
    assert outputs["token_ids"].numpy()[0, 0].tolist() == best.tolist()
    np.testing.assert_allclose(outputs["scores"].numpy()[0, 0], probabilities[best], atol=1e-5)


def test_versions_count_up_and_a_failed_export_leaves_none(
    model_dir: Path, tmp_path: Path, saved: Signatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tensorflow as tf

    config = ExportConfig(dir=str(tmp_path), text_signature="off")
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


# === Texts that cannot be answered as they are ===


@settings(max_examples=25, deadline=None)
@given(
    fillers=st.lists(st.integers(0, 150), min_size=1, max_size=4), long_texts=st.sampled_from(["cut", "skip"])
)
def test_a_long_text_is_cut_as_the_export_cuts_it_or_skipped(
    cutting: tuple[Predictor, Any], fillers: list[int], long_texts: Literal["cut", "skip"]
) -> None:
    predictor, by_text = cutting
    # A part between two masks that is longer than the model takes is drawn often enough.
    text = "<mask>".join(" the" * number for number in fillers)
    policy = Policy(without_mask="skip", long_texts=long_texts)
    (filled,) = replace(predictor, policy=policy).fill_stream([GivenText(text, "")])
    num_tokens, max_length = sum(fillers) + len(fillers) + 1, predictor.tokenizer.model_max_length
    if len(fillers) == 1:
        assert (filled.masks, filled.note) == ([], "skipped, for there is no <mask> in it")
    elif long_texts == "skip" and num_tokens > max_length:
        assert filled.masks == []
        assert filled.note == f"skipped, for it is longer than the {max_length} tokens that the model takes"
    else:
        outputs = {name: value.numpy()[0] for name, value in by_text(texts=[text]).items()}
        assert filled.note == outputs["notes"].decode()
        assert bool(filled.note) == (num_tokens > max_length)
        is_answered = outputs["positions"] >= 0
        assert len(filled.masks) == is_answered.sum()
        expected = zip(outputs["token_ids"][is_answered], outputs["scores"][is_answered], strict=True)
        for candidates, (token_ids, scores) in zip(filled.masks, expected, strict=True):
            np.testing.assert_allclose([each["score"] for each in candidates], scores, atol=1e-5)
            assert {each["token"] for each in candidates} == set(token_ids.tolist())
            # The whole text, of which the model saw a part.
            assert candidates[0]["sequence"].count("the") >= sum(fillers)


def test_texts_that_are_left_out_leave_the_others_as_they_are(model_dir: Path) -> None:
    predictor = load_predictor(str(model_dir), top_k=2)
    skipping = replace(predictor, policy=Policy("skip", "skip"))
    for wrong in (["no"], ["no", "<mask>" + " the" * 200], ["<mask>" + " the" * 200]):
        filled = list(skipping.fill_stream(GivenText(text, "") for text in [*wrong, *TEXTS, *wrong]))
        answered = [each.masks for each in filled[len(wrong) : -len(wrong)]]
        for masks, others in zip(answered, predictor(TEXTS), strict=True):
            for candidates, expected in zip(masks, others, strict=True):
                assert [each["token"] for each in candidates] == [each["token"] for each in expected]
                assert [each["sequence"] for each in candidates] == [each["sequence"] for each in expected]
        assert [each.masks for each in [*filled[: len(wrong)], *filled[-len(wrong) :]]] == [[]] * 2 * len(
            wrong
        )
        assert [bool(each.note) for each in filled] == [
            *([True] * len(wrong)),
            *([False] * len(TEXTS)),
            *([True] * len(wrong)),
        ]
    assert [each.masks for each in skipping.fill_stream([GivenText("no", "")])] == [[]]


# === Given words only ===


def assert_same_candidates(ours: list[Candidate], theirs: list[dict[str, object]]) -> None:
    assert [candidate["token"] for candidate in ours] == [expected["token"] for expected in theirs]
    for candidate, expected in zip(ours, theirs, strict=True):
        assert candidate == expected | {"score": pytest.approx(expected["score"], abs=1e-4)}


WORDS = ["Ġsize", "Ġpath", " name", "array", "size", "unseen", "Ġsize", "", "Ġindex"]
"""In the vocabulary, not in it but for their first token, twice, and nothing."""


@pytest.mark.parametrize("top_k", [None, 3])
def test_targets_equal_the_hugging_face_pipelines(model_dir: Path, version: Path, top_k: int | None) -> None:
    fill_mask = pipeline("fill-mask", model=str(model_dir), framework="tf")
    expected = fill_mask(TEXTS[0], targets=WORDS, top_k=top_k or len(WORDS))
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


def test_targets_of_several_masks_are_the_models_probabilities(model_dir: Path, version: Path) -> None:
    """The Hugging Face pipeline fails on several masks with targets."""
    import tensorflow as tf

    model, tokenizer = load_model_folder(model_dir)
    words = ["Ġsize", "Ġpath", "Ġname", "Ġthe", "Ġof", "Ġindex"]
    for path in (model_dir, version):
        predict, targets = load_target_predictor(str(path), words, None)
        for text, masks in zip(TEXTS, predict(TEXTS), strict=True):
            input_ids = tokenizer(text, return_tensors="tf")["input_ids"]
            probabilities = tf.nn.softmax(model(input_ids).logits[input_ids == tokenizer.mask_token_id])
            assert len(masks) == text.count("<mask>")
            for candidates, row in zip(masks, probabilities.numpy(), strict=True):
                best = sorted(targets.token_ids, key=lambda token_id, row=row: -row[token_id])
                assert [candidate["token"] for candidate in candidates] == best
                np.testing.assert_allclose([c["score"] for c in candidates], row[best], atol=1e-5)


def test_an_export_that_answers_fewer_masks_refuses(version: Path) -> None:
    predict = load_predictor(str(version), top_k=2)
    assert len(predict(["<mask>" * 16])[0]) == 16
    with pytest.raises(UserError, match=r"has 17 masks and the export answers 16; .* export\.max_masks"):
        predict([TEXTS[0], "<mask>" * 17])
