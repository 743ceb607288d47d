"""Texts in, words out: every text has a defined answer."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from transformers import PreTrainedTokenizerFast

from tests.data.test_stream_tokenizer import plain_tokenizer
from tests.finished import Finished, Signatures
from tests.folders import CHECKOUT
from tfmlm.config import ExportConfig
from tfmlm.config.load import load_config
from tfmlm.errors import UserError
from tfmlm.export.fill_mask import FillMask, _find_first_token
from tfmlm.export.saved_model import _make_text_input, export_saved_model
from tfmlm.export.signatures import TextSignature
from tfmlm.inference.fill import load_predictor
from tfmlm.training.model import load_model_folder

SENTENCE = "Return the <mask> of the given array."


@pytest.fixture(scope="module")
def model_dir(byte_run: Finished) -> Path:
    return byte_run.model_dir


@pytest.fixture(scope="module")
def loaded(byte_run: Finished) -> Any:
    return tf.saved_model.load(str(byte_run.version))


@pytest.fixture(scope="module")
def max_length(model_dir: Path) -> int:
    return load_model_folder(model_dir)[1].model_max_length


def fill(loaded: Any, *texts: str | bytes) -> dict[str, np.ndarray]:
    outputs = loaded.signatures["text"](texts=tf.constant(texts, tf.string))
    return {name: value.numpy() for name, value in outputs.items()}


def test_equals_predict_and_the_ids_signature(
    loaded: Any, model_dir: Path, byte_tokenizer: PreTrainedTokenizerFast
) -> None:
    texts = [SENTENCE, "Load <mask>, if <mask> exists.", "x <mask>"]
    ours = fill(loaded, *texts)
    encoded = byte_tokenizer(texts, return_tensors="tf", padding=True)
    for name, dtype in (("ids", tf.int32), ("ids_int64", tf.int64)):
        inputs = {key: tf.cast(encoded[key], dtype) for key in ("input_ids", "attention_mask")}
        by_ids = loaded.signatures[name](**inputs)
        for key in ("token_ids", "positions", "tokens"):
            np.testing.assert_array_equal(ours[key], by_ids[key].numpy())
        np.testing.assert_allclose(ours["scores"], by_ids["scores"].numpy(), atol=1e-6)
    for row, masks in enumerate(load_predictor(str(model_dir), top_k=5)(texts)):
        for index, candidates in enumerate(masks):
            assert ours["token_ids"][row, index].tolist() == [each["token"] for each in candidates]
            expected = [each["score"] for each in candidates]
            np.testing.assert_allclose(ours["scores"][row, index], expected, atol=1e-5)
    assert ours["notes"].tolist() == [b"", b"", b""]


def test_a_text_is_answered_the_same_alone_and_in_a_batch(loaded: Any, max_length: int) -> None:
    texts = [SENTENCE, "", "no mask", "<mask>" * 19, "a " * 2 * max_length + "<mask>", " <mask>\n\n<mask> "]
    together = fill(loaded, *texts)
    for row, text in enumerate(texts):
        alone = fill(loaded, text)
        num_masks = alone["positions"].shape[1]
        for name, value in alone.items():
            mine = together[name][row] if name == "notes" else together[name][row, :num_masks]
            if name == "scores":
                np.testing.assert_allclose(mine, value[0], atol=1e-5)
            else:
                np.testing.assert_array_equal(mine, value[0])


def test_texts_without_an_answer_say_why(loaded: Any) -> None:
    outputs = fill(loaded, "no mask here", "", " \n", b"\xff\xfe")
    assert outputs["positions"].tolist() == [[-1]] * 4
    assert outputs["token_ids"].tolist() == [[[-1] * 5]] * 4
    assert outputs["tokens"].tolist() == [[[b""] * 5]] * 4
    assert outputs["scores"].tolist() == [[[0.0] * 5]] * 4
    assert outputs["notes"].tolist() == [b"no <mask> in it"] * 4


def test_no_texts_are_no_answers(loaded: Any) -> None:
    outputs = fill(loaded)
    assert outputs["scores"].shape == (0, 1, 5)
    assert outputs["notes"].shape == (0,)


def test_more_masks_than_the_most_are_not_answered(loaded: Any) -> None:
    outputs = fill(loaded, "<mask> a" * 18)
    assert (outputs["positions"] >= 0).sum() == 16
    assert outputs["notes"].tolist() == [b"only the first 16 masks are answered"]


def test_a_long_text_is_cut_so_that_its_masks_stay(
    loaded: Any, max_length: int, byte_tokenizer: PreTrainedTokenizerFast
) -> None:
    filler = " the" * max_length
    texts = [f"Return <mask>{filler}", f"Return{filler} <mask>", f"Return{filler} <mask>{filler}"]
    outputs = fill(loaded, *texts)
    assert outputs["notes"].tolist() == [f"cut to the {max_length} tokens that the model takes".encode()] * 3
    for text, (position,) in zip(texts, outputs["positions"], strict=True):
        ids = byte_tokenizer(text)["input_ids"]
        assert ids[position] == byte_tokenizer.mask_token_id  # it counts in the whole text
    # The window is what the model would be given by hand.
    ids = byte_tokenizer(texts[1], add_special_tokens=False)["input_ids"]
    window = [0, *ids[-(max_length - 2) :], 2]
    by_ids = loaded.signatures["ids"](
        input_ids=tf.constant([window], tf.int32), attention_mask=tf.ones([1, max_length], tf.int32)
    )
    np.testing.assert_allclose(outputs["scores"][1], by_ids["scores"][0].numpy(), atol=1e-5)


def test_masks_too_far_apart_are_lost_and_counted(loaded: Any, max_length: int) -> None:
    outputs = fill(loaded, "<mask>" + " the" * 2 * max_length + "<mask>")
    assert (outputs["positions"] >= 0).sum() == 1
    assert outputs["notes"][0].endswith(b"; masks cut off: 1")


def test_a_long_text_is_refused_on_request(model_dir: Path, max_length: int) -> None:
    model, tokenizer = load_model_folder(model_dir)
    text_input, _ = _make_text_input(tokenizer, ExportConfig(long_texts="refuse"), [])
    assert text_input
    refusing = TextSignature(
        FillMask(model, tokenizer, top_k=3, max_masks=16, group_by_length=True), text_input
    )
    outputs = refusing.text(tf.constant(["<mask>" + " the" * max_length, SENTENCE]))
    assert outputs["positions"].numpy()[0].tolist() == [-1]
    assert outputs["positions"].numpy()[1].tolist() != [-1]
    assert outputs["notes"].numpy().tolist() == [
        f"refused, for it is longer than the {max_length} tokens that the model takes".encode(),
        b"",
    ]


def test_wrong_ids_are_refused_with_a_reason(loaded: Any, max_length: int) -> None:
    def ask(input_ids: list[list[int]], attention_mask: list[list[int]]) -> None:
        for name in ("ids", "logits"):
            with pytest.raises(tf.errors.InvalidArgumentError) as raised:
                loaded.signatures[name](
                    input_ids=tf.constant(input_ids, tf.int32),
                    attention_mask=tf.constant(attention_mask, tf.int32),
                )
            reasons.append(str(raised.value))

    reasons: list[str] = []
    ask([[10**6]], [[1]])
    ask([[-1]], [[1]])
    assert all("input_ids must be 0 to " in reason for reason in reasons)
    reasons.clear()
    ask([[5] * (max_length + 1)], [[1] * (max_length + 1)])
    assert all(f"at most {max_length} tokens" in reason for reason in reasons)
    reasons.clear()
    ask([[5, 6]], [[1]])
    assert all("differ in shape" in reason for reason in reasons)


def test_the_export_describes_itself(
    model_dir: Path, tmp_path: Path, max_length: int, saved: Signatures
) -> None:
    config = ExportConfig(dir=str(tmp_path), top_k=3, max_masks=4, text_signature="require")
    export = export_saved_model(model_dir, config, "name", corpus=[["Return the first name."]])
    assert "text" in saved
    described = json.loads((export.path / "assets.extra/export.json").read_text())
    assert described["text_signature"] is True
    assert (described["mask_token"], described["max_masks"], described["top_k"]) == ("<mask>", 4, 3)
    assert described["max_length"] == max_length


def test_a_tokenizer_that_differs_leaves_the_texts_out_or_fails(
    model_dir: Path, tmp_path: Path, saved: Signatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The real check, on a graph that was made wrong: it forgets the pairs that were merged last.
    from tfmlm.graph_tokenizer import byte_bpe

    read = byte_bpe._read_merges
    monkeypatch.setattr(byte_bpe, "_read_merges", lambda merges, vocabulary: read(merges[:20], vocabulary))
    monkeypatch.setattr(byte_bpe, "_find_whole_words", lambda tokenizer, letters: {b"the": 0})
    export = export_saved_model(model_dir, ExportConfig(dir=str(tmp_path)), "name", [["Return the name."]])
    (note,) = export.notes
    assert "differs in the graph on the text" in note
    assert "ids" in saved
    assert "text" not in saved
    with pytest.raises(UserError, match=r"text_signature is 'require', and the tokenizer differs"):
        export_saved_model(model_dir, ExportConfig(dir=str(tmp_path), text_signature="require"), "name")
    assert [path.name for path in (tmp_path / "name").iterdir()] == ["1"]


def test_texts_can_be_left_out(model_dir: Path, tmp_path: Path, saved: Signatures) -> None:
    export = export_saved_model(model_dir, ExportConfig(dir=str(tmp_path), text_signature="off"), "name")
    assert export.notes == []
    assert "text" not in saved
    inputs = saved["serving_default"].input_signature
    assert {spec.name for spec in inputs} == {"input_ids", "attention_mask"}


def test_off_is_a_word_and_no_truth_value() -> None:
    quickstart = CHECKOUT / "configs/quickstart.yaml"
    for value in ("off", "'off'", "auto"):
        config = load_config(quickstart, [f"export.text_signature={value}"])
        assert config.export.text_signature == value.strip("'")


# === Rows of ids as clients send them ===


def fill_ids(loaded: Any, rows: list[list[int]], name: str = "ids") -> dict[str, np.ndarray]:
    dtype = tf.int64 if name.endswith("int64") else tf.int32
    ids = tf.constant(rows, dtype)
    outputs = loaded.signatures[name](input_ids=ids, attention_mask=tf.ones_like(ids))
    return {key: value.numpy() for key, value in outputs.items()}


MASK, CLS = 4, 0
"""Of the byte-level tokenizer."""


@pytest.mark.parametrize(
    ("row", "positions"),
    [
        ([MASK, 50, MASK], [0, 2]),
        ([MASK, MASK, MASK], [0, 1, 2]),
        ([50, MASK, 50], [1]),
        ([MASK, 50, 50, MASK, MASK], [0, 3, 4]),
        ([CLS, 50, MASK, CLS, CLS], [2]),
    ],
)
@pytest.mark.parametrize("name", ["ids", "ids_int64"])
def test_only_a_row_that_begins_as_the_tokenizer_does_loses_its_end(
    name: str, row: list[int], positions: list[int], loaded: Any
) -> None:
    assert fill_ids(loaded, [row], name)["positions"].tolist() == [positions]


@pytest.mark.parametrize("name", ["logits", "logits_int64"])
def test_logits_of_any_row_are_the_models(name: str, loaded: Any, model_dir: Path) -> None:
    """Drawn rows that end as they begin; if that is how every text begins, the end is the server's."""
    model, _ = load_model_folder(model_dir)
    rng = np.random.default_rng(3)
    for first in [CLS, MASK, *rng.integers(5, 60, 6)]:
        row = [int(first), *rng.integers(5, 60, 4).tolist(), *[int(first)] * int(rng.integers(1, 4))]
        kept = np.array([[1] * 5 + [int(first != CLS)] * (len(row) - 5)], np.int32)
        expected = model(np.array([row], np.int32), attention_mask=kept).logits.numpy()
        ours = fill_ids(loaded, [row], name)["logits"]
        np.testing.assert_allclose(ours[kept == 1], expected[kept == 1], atol=1e-5)


@pytest.mark.parametrize(
    ("template", "first"),
    [("<s> $A </s>", 4), ("<s> <s> $A </s>", 4), ("<s> $A <s>", None), ("$A </s>", None), ("$A", None)],
)
def test_a_server_can_be_told_by_a_first_token_that_no_text_ends_with(
    template: str, first: int | None
) -> None:
    assert _find_first_token(plain_tokenizer(template)) == first


@pytest.mark.parametrize("name", ["ids_int64", "logits_int64"])
@pytest.mark.parametrize("token_id", [2**32 + 4, 2**33 + 4, -(2**32) + 4, 2**63 - 1, -1])
def test_ids_beyond_int32_are_not_other_ids(token_id: int, name: str, loaded: Any) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError, match="input_ids must be 0 to"):
        fill_ids(loaded, [[CLS, token_id, 2]], name)


@pytest.mark.parametrize("name", ["ids", "ids_int64", "logits", "logits_int64"])
@pytest.mark.parametrize("kept", [2, -1, 2**31 - 1])
def test_an_attention_mask_is_0_or_1(kept: int, name: str, loaded: Any) -> None:
    dtype = tf.int64 if name.endswith("int64") else tf.int32
    inputs = {"input_ids": [[CLS, MASK, 2]], "attention_mask": [[1, kept, 1]]}
    with pytest.raises(tf.errors.InvalidArgumentError, match="attention_mask must be 0 or 1"):
        loaded.signatures[name](**{key: tf.constant(rows, dtype) for key, rows in inputs.items()})
