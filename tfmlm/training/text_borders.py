"""Attention that stays inside each text of a packed block, and positions that count from its beginning.

Most TensorFlow classes of transformers take no mask of each pair of tokens, so it is put in where each layer
adds the mask to its scores. What each token is computed from is then as if its text were alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import tensorflow as tf
from transformers import PretrainedConfig, TFPreTrainedModel

from tfmlm.data.tokenizers import PADS_AT_ONE
from tfmlm.errors import UserError

_FARTHER_READERS = {
    "convbert": "its convolutions read the tokens beside a token",
    "longformer": "its windows of attention take no mask for each pair of tokens",
    "mobilebert": "its embeddings read the tokens beside a token",
}
"""`model_type`s whose tokens see others than those that the mask lets them attend to, and how."""

_FARTHER_READING_FIELDS = {
    "deberta-v2": ("conv_kernel_size", "a convolution reads the tokens beside a token"),
    "esm": ("token_dropout", "each token is scaled by the share of masks in the whole block"),
    "roformer": ("rotary_value", "its values hang on the place in the block"),
}
"""Fields that do the same to a model where they are set."""

_ATTENTIONS = ("SelfAttention", "MultiHeadAttention", "AlbertAttention")
"""Ends of the names of the classes that add a mask to their scores."""

_MASKED = -10_000.0
"""Added to a score, as transformers does: the exponential is 0 in float32."""


def check_text_borders(model_config: PretrainedConfig) -> None:
    """Checks that a token of the model sees nothing but what it attends to.

    Raises:
        UserError: it does, so that a mask would not keep texts apart.
    """
    model_type = model_config.model_type
    reason = _FARTHER_READERS.get(model_type)
    if model_type in _FARTHER_READING_FIELDS:
        name, why = _FARTHER_READING_FIELDS[model_type]
        if getattr(model_config, name, 0):
            reason = f"with {name} {why}"
    if reason:
        raise UserError(
            f"data.attend_within_texts is true, and {model_type} cannot: {reason}; set it to false, or "
            "data.pack=false"
        )


class TextBorders:
    """The borders of the texts in the batch that is computed; none outside of `within`."""

    def __init__(self, model_config: PretrainedConfig) -> None:
        self._first_position = 0
        if model_config.model_type in PADS_AT_ONE:
            self._first_position = 2
        elif model_config.model_type == "esm":
            self._first_position = int(model_config.pad_token_id) + 1
        self._positions: tf.Tensor | None = None
        self._same_text: tf.Tensor | None = None

    @contextmanager
    def within(self, starts_text: tf.Tensor | None) -> Iterator[None]:
        """Within it the model computes each text by itself.

        Args:
            starts_text: int32 [B, L], 1 where a text begins; what comes before the first is a text too.
        """
        if starts_text is None:
            yield
            return
        text = tf.cumsum(starts_text, axis=1)
        same_text = tf.equal(text[:, :, tf.newaxis], text[:, tf.newaxis, :])
        place = tf.range(tf.shape(text)[1])
        first_place = tf.reduce_min(tf.where(same_text, place, tf.size(place)), axis=2)
        self._same_text = same_text[:, tf.newaxis]
        self._positions = place - first_place + self._first_position
        try:
            yield
        finally:
            self._same_text = self._positions = None

    @property
    def are_set(self) -> bool:
        """Whether this is within `within`."""
        return self._same_text is not None

    def give_positions(self, position_ids: tf.Tensor | None) -> tf.Tensor | None:
        """Positions of the tokens in their texts, int32 [B, L]; outside of `within` what is given."""
        return position_ids if self._positions is None else self._positions

    def add_to_scores(self, mask: tf.Tensor) -> tf.Tensor:
        """A mask [B, 1, 1, L] that is added to scores, as one of each pair of tokens, [B, 1, L, L]."""
        if self._same_text is None:
            return mask
        return mask + tf.where(self._same_text, tf.cast(0.0, mask.dtype), tf.cast(_MASKED, mask.dtype))

    def multiply(self, mask: tf.Tensor) -> tf.Tensor:
        """The same of a mask [B, 1, L, L] of 0 and 1."""
        return mask if self._same_text is None else mask * tf.cast(self._same_text, mask.dtype)

    def widen(self, mask: tf.Tensor) -> tf.Tensor:
        """The same of a mask [B, L] of 0 and 1, as [B, L, L]."""
        if self._same_text is None:
            return mask
        return mask[:, tf.newaxis, :] * tf.cast(self._same_text[:, 0], mask.dtype)

    def attend_as_distilbert(
        self, layer: Any, query: tf.Tensor, key: tf.Tensor, value: tf.Tensor, mask: tf.Tensor, **others: Any
    ) -> tuple[tf.Tensor]:
        """`TFMultiHeadSelfAttention.call` with a mask of each pair of tokens, of which it takes none."""
        batch, length = tf.shape(query)[0], tf.shape(query)[1]

        def split_heads(projected: tf.Tensor) -> tf.Tensor:
            heads = tf.reshape(projected, [batch, length, layer.n_heads, layer.dim // layer.n_heads])
            return tf.transpose(heads, [0, 2, 1, 3])

        scale = tf.math.rsqrt(tf.cast(layer.dim // layer.n_heads, tf.float32))
        queries = tf.cast(split_heads(layer.q_lin(query)), tf.float32) * scale
        keys = tf.cast(split_heads(layer.k_lin(key)), tf.float32)
        kept = tf.cast(self.widen(mask)[:, tf.newaxis], tf.float32)
        scores = tf.matmul(queries, keys, transpose_b=True) - 1e30 * (1.0 - kept)
        weights = layer.dropout(tf.nn.softmax(scores, axis=-1), training=others.get("training", False))
        context = tf.transpose(tf.matmul(weights, split_heads(layer.v_lin(value))), [0, 2, 1, 3])
        return (layer.out_lin(tf.reshape(context, [batch, length, layer.dim])),)


def keep_within_texts(model: TFPreTrainedModel) -> TextBorders:
    """Gives the model's layers the borders that the returned object has at the time.

    Args:
        model: passes `check_text_borders`.
    """
    borders = TextBorders(model.config)
    model_type = model.config.model_type
    change_mask: Callable[[tf.Tensor], tf.Tensor] = borders.add_to_scores
    mask_name = "attention_mask"
    if model_type in ("deberta", "deberta-v2"):
        change_mask = borders.multiply
    elif model_type in ("flaubert", "xlm"):
        change_mask, mask_name = borders.widen, "mask"
    places_positions = "MainLayer" if model_type in ("flaubert", "xlm") else "Embeddings"
    num_attentions = 0
    for layer in model.submodules:
        name = type(layer).__name__
        if name.endswith(_ATTENTIONS):
            num_attentions += 1
            layer.call = (
                _attend_apart(borders, layer)
                if model_type == "distilbert"
                else _change_argument(layer, mask_name, change_mask)
            )
        elif name.endswith(places_positions) and "position_ids" in inspect.signature(layer.call).parameters:
            layer.call = _change_argument(layer, "position_ids", borders.give_positions)
    assert num_attentions, model_type
    return borders


def _change_argument(
    layer: tf.keras.layers.Layer, name: str, change: Callable[[Any], Any]
) -> Callable[..., Any]:
    """The layer's `call` with one of its arguments changed."""
    call = layer.call
    signature = inspect.signature(call)

    def call_changed(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.arguments[name] = change(bound.arguments.get(name))
        return call(*bound.args, **bound.kwargs)

    return call_changed


def _attend_apart(borders: TextBorders, layer: tf.keras.layers.Layer) -> Callable[..., Any]:
    call = layer.call
    signature, attend = inspect.signature(call), partial(borders.attend_as_distilbert, layer)

    def call_apart(*args: Any, **kwargs: Any) -> Any:
        if not borders.are_set:
            return call(*args, **kwargs)
        return attend(**signature.bind(*args, **kwargs).arguments)

    return call_apart
