"""The computation that is served: from token ids to the best words for each mask."""

from __future__ import annotations

import tensorflow as tf
from transformers import PreTrainedTokenizerFast, TFPreTrainedModel

from tfmlm.training.heads import compute_logits_at

_IDS = [tf.TensorSpec([None, None], tf.int32, name=name) for name in ("input_ids", "attention_mask")]


class FillMask(tf.Module):
    """A model as the functions that an export holds.

    Attributes:
        model: a Hugging Face model in float32.
        top_k: K, candidates for each mask.
    """

    def __init__(self, model: TFPreTrainedModel, tokenizer: PreTrainedTokenizerFast, top_k: int) -> None:
        super().__init__()
        self.model = model
        self.top_k = min(top_k, len(tokenizer))
        self._mask_token_id = int(tokenizer.mask_token_id)
        # Ids that the model has and the tokenizer has not decode to nothing.
        padding = [""] * max(0, model.config.vocab_size - len(tokenizer))
        self._words = [tokenizer.decode([token_id]) for token_id in range(len(tokenizer))] + padding

    @tf.function(input_signature=_IDS)
    def ids(self, input_ids: tf.Tensor, attention_mask: tf.Tensor) -> dict[str, tf.Tensor]:
        """Fills the masks of token ids.

        Args:
            self: the module.
            input_ids: int32 [N, L].
            attention_mask: int32 [N, L].

        Returns:
            `token_ids` int32, `tokens` string and `scores` float32 [N, M, K], best first, and `positions`
            int32 [N, M]. M is the largest number of masks in a text of the batch, at least 1; a text with
            fewer has position -1, token id -1, an empty token and score 0 in the rest.
        """
        is_mask = (input_ids == self._mask_token_id) & (attention_mask != 0)
        counts = tf.reduce_sum(tf.cast(is_mask, tf.int32), axis=1)
        num_masks = tf.maximum(tf.reduce_max(counts), 1)
        # A stable sort of "is no mask" puts the masks' positions first, in order.
        columns = tf.argsort(tf.cast(~is_mask, tf.int32), axis=1, stable=True)[:, :num_masks]
        is_filled = tf.range(num_masks)[tf.newaxis, :] < counts[:, tf.newaxis]

        num_texts, length = tf.unstack(tf.shape(input_ids))
        rows = tf.range(num_texts)[:, tf.newaxis]
        indices = tf.reshape(rows * length + columns, [-1])
        logits = compute_logits_at(self.model, input_ids, attention_mask, indices)
        scores, token_ids = tf.math.top_k(tf.nn.softmax(tf.cast(logits, tf.float32)), self.top_k)
        tokens = tf.gather(tf.constant(self._words), token_ids)

        shape = [num_texts, num_masks, self.top_k]
        is_candidate = is_filled[:, :, tf.newaxis]
        return {
            "token_ids": tf.where(is_candidate, tf.reshape(token_ids, shape), -1),
            "tokens": tf.where(is_candidate, tf.reshape(tokens, shape), ""),
            "scores": tf.where(is_candidate, tf.reshape(scores, shape), 0.0),
            "positions": tf.where(is_filled, columns, -1),
        }

    @tf.function(input_signature=_IDS)
    def logits(self, input_ids: tf.Tensor, attention_mask: tf.Tensor) -> dict[str, tf.Tensor]:
        """`logits` float32 [N, L, V] at every position, for those who need them all."""
        outputs = self.model(input_ids=input_ids, attention_mask=attention_mask, training=False)
        return {"logits": tf.cast(outputs.logits, tf.float32)}
