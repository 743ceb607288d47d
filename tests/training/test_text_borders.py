"""With `data.attend_within_texts` a token of a packed block is computed as if its text were alone."""

import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray
from transformers import AutoConfig, TFPreTrainedModel

from tests.tiny import ALL_TINY_CONFIGS, PAD_IS_ONE, long_but, make_tiny
from tfmlm.errors import UserError
from tfmlm.training.heads import compute_logits
from tfmlm.training.text_borders import check_text_borders, keep_within_texts

REFUSED = ("convbert", "longformer", "mobilebert")
FIELDS = {"esm": {"token_dropout": False}}
TYPES = [model_type for model_type in ALL_TINY_CONFIGS if model_type not in REFUSED]
LENGTHS = [[7, 1, 12, 4], [3, 17]]
"""Of the texts of two blocks of 24 tokens. The first text of a block may be the rest of one."""


def make_model(model_type: str, **fields: object) -> TFPreTrainedModel:
    tf.keras.utils.set_random_seed(3)
    model = make_tiny(model_type, **ALL_TINY_CONFIGS[model_type] | FIELDS.get(model_type, {}) | fields)
    # Larger than at the start, where what a token attends to hardly matters.
    model.set_weights([4 * weight if weight.ndim > 1 else weight for weight in model.get_weights()])
    return model


def compute_alone(model: TFPreTrainedModel, text: NDArray[np.int32]) -> NDArray[np.float32]:
    ids = tf.constant(text[np.newaxis])
    return model(input_ids=ids, attention_mask=tf.ones_like(ids), training=False).logits[0].numpy()


@pytest.mark.parametrize("model_type", long_but(TYPES, "bert", "distilbert", "roberta", "xlm"))
def test_each_text_is_computed_as_if_it_were_alone(model_type: str) -> None:
    model = make_model(model_type)
    rng = np.random.default_rng(0)
    ids = rng.integers(5, 60, (len(LENGTHS), 24)).astype(np.int32)
    num_tokens = np.array([24, 20])
    attention_mask = (np.arange(24) < num_tokens[:, np.newaxis]).astype(np.int32)
    ids[attention_mask == 0] = int(model_type in PAD_IS_ONE)
    starts = np.zeros_like(ids)
    expected = np.zeros((*ids.shape, 60), np.float32)
    for row, lengths in enumerate(LENGTHS):
        ends = np.cumsum(lengths)
        for start, end in zip([0, *ends[:-1]], ends, strict=True):
            starts[row, start] = row != 1 or start > 0  # the second block begins inside a text
            expected[row, start:end] = compute_alone(model, ids[row, start:end])
    starts[attention_mask == 0] = 1
    borders = keep_within_texts(model)

    @tf.function
    def compute(starts_text: tf.Tensor) -> tf.Tensor:
        with borders.within(starts_text):
            return compute_logits(model, tf.constant(ids), tf.constant(attention_mask))

    is_token = attention_mask == 1
    found = compute(tf.constant(starts)).numpy()
    np.testing.assert_allclose(found[is_token], expected[is_token], atol=1e-5)
    across = compute_logits(model, tf.constant(ids), tf.constant(attention_mask)).numpy()
    assert np.abs(across - expected)[is_token].max() > 1e-3


@pytest.mark.parametrize(
    ("model_type", "fields"),
    [
        *((model_type, {}) for model_type in REFUSED),
        ("esm", {"token_dropout": True}),
        ("roformer", {"rotary_value": True}),
        ("deberta-v2", {"conv_kernel_size": 3}),
    ],
)
def test_models_that_see_beyond_the_mask_are_refused(model_type: str, fields: dict[str, object]) -> None:
    with pytest.raises(UserError, match=f"data.attend_within_texts is true, and {model_type} cannot"):
        check_text_borders(AutoConfig.for_model(model_type, **ALL_TINY_CONFIGS[model_type] | fields))
