"""Fills masks with as many candidates as a text asks for, and scores words that it names."""

from __future__ import annotations

import tensorflow as tf

from tfmlm.export.fill_mask import FillMask, count_masks, spread, spread_over_masks


class RequestedFill(tf.Module):
    """Fills masks with what each text asks for.

    Args:
        fill_mask: from ids to words.
        max_top_k: the most candidates that a text may ask for.
    """

    def __init__(self, fill_mask: FillMask, max_top_k: int) -> None:
        super().__init__()
        self.fill_mask = fill_mask
        self._max_top_k = max_top_k

    # Both signatures that take texts and ids call it, so that the model is traced and saved once for them.
    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None], tf.int32, name="input_ids"),
            tf.TensorSpec([None, None], tf.int32, name="attention_mask"),
            tf.TensorSpec([None], tf.int32, name="top_k"),
            tf.TensorSpec([None, None], tf.int32, name="target_ids"),
        ],
        autograph=False,
    )
    def fill(
        self, input_ids: tf.Tensor, attention_mask: tf.Tensor, top_k: tf.Tensor, target_ids: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Fills the masks of token ids.

        Args:
            input_ids: int32 [N, L].
            attention_mask: int32 [N, L].
            top_k: int32 [N], candidates for each mask of a text, from 0 on.
            target_ids: int32 [N, T], words whose probabilities are wanted; -1 is none.

        Returns:
            As `FillMask.fill`, where K is the largest of `top_k`, at least 1, and a text that asks for fewer
            has token id -1, an empty token and score 0 in the rest. Beside that `target_ids` int32 [N, T],
            `target_tokens` string [N, T] and `target_scores` float32 [N, M, T], probabilities among all words
            of the vocabulary, in the order in which they were asked for; those of no word, and at no mask,
            are 0.
        """
        with tf.control_dependencies(self._check(input_ids, top_k, target_ids)):
            top_k, target_ids = tf.identity(top_k), tf.identity(target_ids)
        at_masks = self.fill_mask.compute_at_masks(input_ids, attention_mask)
        slots, probabilities = at_masks.slots, at_masks.probabilities

        most = tf.reduce_max(tf.concat([top_k, [1]], axis=0))
        num_candidates = tf.minimum(most, self.fill_mask.num_words)
        scores, token_ids = tf.math.top_k(probabilities, num_candidates)
        is_asked = tf.range(num_candidates) < tf.gather(top_k, slots[:, :1])
        outputs = spread_over_masks(
            tf.shape(input_ids)[0],
            slots,
            token_ids=tf.where(is_asked, token_ids, -1),
            tokens=tf.where(is_asked, self.fill_mask.find_words(token_ids), ""),
            scores=tf.where(is_asked, scores, 0.0),
            positions=at_masks.columns,
        )

        is_word = target_ids >= 0
        existing_ids = tf.maximum(target_ids, 0)
        target_scores = tf.gather(probabilities, tf.gather(existing_ids, slots[:, 0]), batch_dims=1)
        target_scores = tf.where(tf.gather(is_word, slots[:, 0]), target_scores, 0.0)
        shape = tf.stack([tf.shape(input_ids)[0], count_masks(slots)])
        return {
            **outputs,
            "target_ids": target_ids,
            "target_tokens": tf.where(is_word, self.fill_mask.find_words(existing_ids), ""),
            "target_scores": spread(target_scores, 0.0, slots, shape),
        }

    def _check(self, input_ids: tf.Tensor, top_k: tf.Tensor, target_ids: tf.Tensor) -> list[tf.Operation]:
        """Assertions whose messages a client can act on."""
        num_rows = [tf.shape(values)[0] for values in (input_ids, top_k, target_ids)]
        vocab_size = self.fill_mask.model.config.vocab_size
        return [
            tf.debugging.Assert(
                tf.reduce_all(num_rows[0] == num_rows[1:]),
                ["top_k and the targets need a row for each text, and the rows are", num_rows],
            ),
            tf.debugging.Assert(
                (num_rows[0] == 0) | (tf.shape(target_ids)[1] > 0),
                ['targets have no values; give each text at least one, such as ""'],
            ),
            tf.debugging.Assert(
                tf.reduce_all((top_k >= 0) & (top_k <= self._max_top_k)),
                [f"top_k must be 0 to {self._max_top_k} (export.max_top_k), and is", top_k],
            ),
            tf.debugging.Assert(
                tf.reduce_all((target_ids >= -1) & (target_ids < vocab_size)),
                [f"target_ids must be -1 (none) or 0 to {vocab_size - 1}, and are", target_ids],
            ),
        ]
