"""From texts to the token ids that the model is given: tokenized, cut to its length, padded."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf
from transformers import PreTrainedTokenizerFast

from tfmlm.export.target_words import TargetWords
from tfmlm.graph_tokenizer.tokenizer import GraphTokenizer


class ModelInput(NamedTuple):
    """A batch of texts.

    Attributes:
        input_ids: int32 [N, L].
        attention_mask: int32 [N, L].
        first_tokens: int32 [N], how many of a text's own tokens were cut off before the first.
        notes: string [N], what became of the text, or "".
    """

    input_ids: tf.Tensor
    attention_mask: tf.Tensor
    first_tokens: tf.Tensor
    notes: tf.Tensor


class TextInput(tf.Module):
    """Makes the model's input from texts.

    Attributes:
        tokenize: the tokenizer as ops.
        find_target_ids: from words to token ids.

    Args:
        tokenizer: a fast tokenizer, whose `model_max_length` is the model's.
        long_texts: `cut` a text that is too long so that its masks stay, or `refuse` it.
        max_masks: masks of a text that are answered.

    Raises:
        UnsupportedTokenizerError: the tokenizer cannot become ops.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, long_texts: str, max_masks: int) -> None:
        super().__init__()
        self.tokenize = GraphTokenizer(tokenizer)
        self.find_target_ids = TargetWords(tokenizer, self.tokenize)
        self._max_length = int(tokenizer.model_max_length)
        self._refuses = long_texts == "refuse"
        self._max_masks = max_masks
        self._mask_token = str(tokenizer.mask_token)
        self._mask_token_id = int(tokenizer.mask_token_id)
        self._pad_token_id = int(tokenizer.pad_token_id)

    def __call__(self, texts: tf.Tensor) -> ModelInput:
        """Tokenizes strings [N]."""
        ids = self.tokenize(texts)
        room = self._max_length - len(self.tokenize.prefix) - len(self.tokenize.suffix)
        is_long = ids.row_lengths() > room
        if self._refuses:
            ids = tf.ragged.boolean_mask(ids, ids.with_flat_values(tf.gather(~is_long, ids.value_rowids())))
        num_masks, first_mask, last_mask = self._find_masks(ids)
        starts = _choose_start(ids.row_lengths(), first_mask, last_mask, room)
        window = _slice_rows(ids, starts, room)
        lost = num_masks - self._find_masks(window)[0]
        rows = tf.ones([ids.nrows(), 1], tf.int32)
        whole = tf.concat([rows * self.tokenize.prefix, window, rows * self.tokenize.suffix], axis=1)
        input_ids = whole.to_tensor(self._pad_token_id)
        # No texts have no longest text; the model's products need a token.
        missing = tf.maximum(1 - tf.shape(input_ids)[1], 0)
        input_ids = tf.pad(input_ids, [[0, 0], [0, missing]])
        return ModelInput(
            input_ids=input_ids,
            attention_mask=tf.sequence_mask(whole.row_lengths(), tf.shape(input_ids)[1], tf.int32),
            first_tokens=starts,
            notes=self._describe(is_long, num_masks, lost),
        )

    def _find_masks(self, ids: tf.RaggedTensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Number of a row's masks, and where its first and last answered ones are; int32 [N] each."""
        rows = ids.value_rowids()
        places = tf.cast(tf.where(ids.flat_values == self._mask_token_id)[:, 0], tf.int32)
        masks = tf.RaggedTensor.from_value_rowids(
            places - tf.gather(ids.row_starts(), tf.gather(rows, places)),
            tf.gather(rows, places),
            ids.nrows(out_type=tf.int32),
            validate=False,
        )
        answered = masks[:, : self._max_masks]
        return masks.row_lengths(), tf.reduce_min(answered, axis=1), tf.reduce_max(answered, axis=1)

    def _describe(self, is_long: tf.Tensor, num_masks: tf.Tensor, lost: tf.Tensor) -> tf.Tensor:
        """A note on what became of each text, string [N]."""
        limit = f"the {self._max_length} tokens that the model takes"
        is_refused = is_long & self._refuses
        sentences = [
            (is_refused, f"refused, for it is longer than {limit}"),
            (is_long & ~is_refused, f"cut to {limit}"),
            (lost > 0, tf.strings.join(["masks cut off: ", tf.strings.as_string(lost)])),
            ((num_masks == 0) & ~is_refused, f"no {self._mask_token} in it"),
            (num_masks - lost > self._max_masks, f"only the first {self._max_masks} masks are answered"),
        ]
        parts = [tf.where(applies, tf.strings.join([text, "; "]), "") for applies, text in sentences]
        return tf.strings.regex_replace(tf.strings.join(parts), "; $", "")


def _choose_start(length: tf.Tensor, first: tf.Tensor, last: tf.Tensor, room: int) -> tf.Tensor:
    """First token of the window: the text's own, unless a mask would be cut off; int32 [N]."""
    span = last - first + 1
    around = tf.where(span > room, first, first - (room - span) // 2)
    latest = tf.maximum(length - room, 0)
    return tf.where(last < room, 0, tf.clip_by_value(around, 0, latest))


def _slice_rows(rows: tf.RaggedTensor, starts: tf.Tensor, width: int) -> tf.RaggedTensor:
    """At most `width` values of each row, from its own start on."""
    begins = rows.row_starts() + starts
    ends = tf.minimum(begins + width, rows.row_limits())
    places = tf.ragged.range(begins, ends, row_splits_dtype=tf.int32)
    return places.with_flat_values(tf.gather(rows.flat_values, places.flat_values))
