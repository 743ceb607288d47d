"""The functions that an export holds."""

from __future__ import annotations

import tensorflow as tf

from tfmlm.export.fill_mask import FillMask, leave_out_server_padding
from tfmlm.export.text_input import TextInput


def _ids_of(dtype: tf.DType) -> list[tf.TensorSpec]:
    return [tf.TensorSpec([None, None], dtype, name=name) for name in ("input_ids", "attention_mask")]


def _narrow(*values: tf.Tensor) -> list[tf.Tensor]:
    """Integers in int32. What that cannot hold becomes its largest or smallest, which the checks refuse."""
    return [tf.cast(tf.clip_by_value(value, tf.int32.min, tf.int32.max), tf.int32) for value in values]


class IdSignatures(tf.Module):
    """The signatures that take token ids. One has one dtype, so there are two for each.

    Args:
        fill_mask: from ids to words.
    """

    def __init__(self, fill_mask: FillMask) -> None:
        super().__init__()
        self.fill_mask = fill_mask

    # Without AutoGraph, as in all of the export: no branch hangs on a tensor, and rewriting a model's code
    # takes longer than tracing it.
    @tf.function(input_signature=_ids_of(tf.int32), autograph=False)
    def ids(self, input_ids: tf.Tensor, attention_mask: tf.Tensor) -> dict[str, tf.Tensor]:
        """Fills the masks of token ids, int32 [N, L]; see `FillMask.fill`."""
        return self.fill_mask.fill(input_ids, self._leave_out_padding(input_ids, attention_mask))

    @tf.function(input_signature=_ids_of(tf.int64), autograph=False)
    def ids_int64(self, input_ids: tf.Tensor, attention_mask: tf.Tensor) -> dict[str, tf.Tensor]:
        """The same for int64."""
        outputs: dict[str, tf.Tensor] = self.ids(*_narrow(input_ids, attention_mask))
        return outputs

    @tf.function(input_signature=_ids_of(tf.int32), autograph=False)
    def logits(self, input_ids: tf.Tensor, attention_mask: tf.Tensor) -> dict[str, tf.Tensor]:
        """Logits of token ids, int32 [N, L]; see `FillMask.compute_logits`."""
        return self.fill_mask.compute_logits(input_ids, self._leave_out_padding(input_ids, attention_mask))

    def _leave_out_padding(self, input_ids: tf.Tensor, attention_mask: tf.Tensor) -> tf.Tensor:
        return leave_out_server_padding(input_ids, attention_mask, self.fill_mask.first_token_id)

    @tf.function(input_signature=_ids_of(tf.int64), autograph=False)
    def logits_int64(self, input_ids: tf.Tensor, attention_mask: tf.Tensor) -> dict[str, tf.Tensor]:
        """The same for int64."""
        outputs: dict[str, tf.Tensor] = self.logits(*_narrow(input_ids, attention_mask))
        return outputs


class TextSignature(tf.Module):
    """The signature that takes texts.

    Args:
        fill_mask: from ids to words.
        text_input: from texts to ids.
    """

    def __init__(self, fill_mask: FillMask, text_input: TextInput) -> None:
        super().__init__()
        self.fill_mask = fill_mask
        self.text_input = text_input

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="texts")], autograph=False)
    def text(self, texts: tf.Tensor) -> dict[str, tf.Tensor]:
        """Fills the masks of texts, string [N].

        Returns:
            As `FillMask.fill`, with positions in the whole text's tokens, and `notes` string [N]: what became
            of a text that was not answered whole, or "".
        """
        given = self.text_input(texts)
        outputs = self.fill_mask.fill(given.input_ids, given.attention_mask)
        positions = outputs["positions"]
        return {
            **outputs,
            "positions": tf.where(positions < 0, -1, positions + given.first_tokens[:, tf.newaxis]),
            "notes": given.notes,
        }


class Signatures(tf.Module):
    """All that an export holds.

    Args:
        fill_mask: from ids to words.
        text_input: from texts to ids; without it there is no `text`.
    """

    def __init__(self, fill_mask: FillMask, text_input: TextInput | None) -> None:
        super().__init__()
        self._of_ids = IdSignatures(fill_mask)
        self._of_texts = TextSignature(fill_mask, text_input) if text_input else None

    def list_all(self) -> dict[str, tf.types.experimental.GenericFunction]:
        """The signatures by name; `serving_default` is `text`, or `ids` where there is no `text`."""
        of_ids = self._of_ids
        signatures = {
            "ids": of_ids.ids,
            "ids_int64": of_ids.ids_int64,
            "logits": of_ids.logits,
            "logits_int64": of_ids.logits_int64,
        }
        if self._of_texts is None:
            return {"serving_default": of_ids.ids, **signatures}
        return {"serving_default": self._of_texts.text, "text": self._of_texts.text, **signatures}
