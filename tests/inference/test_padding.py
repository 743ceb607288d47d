"""A text is answered the same alone and beside longer ones, also by models that read what lies behind it."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from transformers import PreTrainedTokenizerFast

from tests.tiny import long_but
from tests.training.test_model_folder import make_random
from tfmlm.config import ExportConfig
from tfmlm.export.saved_model import export_saved_model
from tfmlm.inference.fill import load_predictor, load_target_predictor
from tfmlm.inference.score import load_scorer
from tfmlm.training.heads import READS_PADDING
from tfmlm.training.model_folder import save_model_folder

TEXTS = [
    "[MASK].",
    "Return the [MASK].",
    "Load the [MASK] of the given file, if it [MASK].",
    "a [MASK].",
]


@pytest.mark.parametrize("model_type", long_but(READS_PADDING, "convbert"))
def test_padding_changes_no_answer(
    model_type: str, tmp_path: Path, word_tokenizer: PreTrainedTokenizerFast
) -> None:
    model = make_random(model_type, vocab_size=len(word_tokenizer), num_hidden_layers=1)
    save_model_folder(model, word_tokenizer, tmp_path / "model", {})
    export = export_saved_model(
        tmp_path / "model", ExportConfig(dir=str(tmp_path / "exports"), text_signature="require"), "tiny"
    ).path
    alone = [
        tf.nn.softmax(model(word_tokenizer(text, return_tensors="tf")["input_ids"]).logits[0]).numpy()
        for text in TEXTS
    ]
    for predictor in (
        load_predictor(str(tmp_path / "model"), 5),
        load_predictor(str(export), 5),
        load_target_predictor(str(tmp_path / "model"), ["the", "of", "name"], None)[0],
        load_target_predictor(str(export), ["the", "of", "name"], None)[0],
    ):
        for text, masks, expected in zip(TEXTS, predictor(TEXTS), alone, strict=True):
            ids = np.array(word_tokenizer(text)["input_ids"])
            for position, candidates in zip(
                np.flatnonzero(ids == word_tokenizer.mask_token_id), masks, strict=True
            ):
                for candidate in candidates:
                    assert candidate["score"] == pytest.approx(
                        expected[position, candidate["token"]], abs=1e-5
                    )

    loaded = tf.saved_model.load(str(export))
    by_text = loaded.signatures["text"](texts=tf.constant(TEXTS))
    assert by_text["scores"][1, 0, 0].numpy() == pytest.approx(alone[1].max(axis=1)[3], abs=1e-5)
    padded = word_tokenizer(TEXTS, return_tensors="np", padding=True)
    inputs = {name: padded[name].astype(np.int32) for name in ("input_ids", "attention_mask")}
    logits = loaded.signatures["logits"](**{name: tf.constant(rows) for name, rows in inputs.items()})[
        "logits"
    ]
    for row, expected in enumerate(alone):
        np.testing.assert_allclose(tf.nn.softmax(logits[row, : len(expected)]), expected, atol=1e-5)

    score = load_scorer(str(tmp_path / "model"))
    plain = [text.replace("[MASK]", "name") for text in TEXTS]
    for together, text in zip(score(plain), plain, strict=True):
        assert together["score"] == pytest.approx(score([text])[0]["score"], abs=1e-4)
