"""The functions that an export holds."""

from __future__ import annotations

import tensorflow as tf

from tfmlm.export.fill_mask import FillMask, leave_out_server_padding
from tfmlm.export.requested import RequestedFill
from tfmlm.export.text_input import ModelInput, TextInput


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


def _as_of_texts(outputs: dict[str, tf.Tensor], given: ModelInput) -> dict[str, tf.Tensor]:
    """The outputs with positions in the whole texts' tokens, and with the notes."""
    positions = outputs["positions"]
    return {
        **outputs,
        "positions": tf.where(positions < 0, -1, positions + given.first_tokens[:, tf.newaxis]),
        "notes": given.notes,
    }


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
        return _as_of_texts(self.fill_mask.fill(given.input_ids, given.attention_mask), given)


class IdOptionsSignature(tf.Module):
    """The signature that takes token ids and what is asked for them.

    Args:
        requested: from ids and requests to words.
    """

    def __init__(self, requested: RequestedFill) -> None:
        super().__init__()
        self.requested = requested

    @tf.function(
        input_signature=[
            *_ids_of(tf.int32),
            tf.TensorSpec([None], tf.int32, name="top_k"),
            tf.TensorSpec([None, None], tf.int32, name="target_ids"),
        ],
        autograph=False,
    )
    def ids_options(
        self, input_ids: tf.Tensor, attention_mask: tf.Tensor, top_k: tf.Tensor, target_ids: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Fills the masks of token ids, int32 [N, L]; see `RequestedFill.fill`."""
        first_token_id = self.requested.fill_mask.first_token_id
        attention_mask = leave_out_server_padding(input_ids, attention_mask, first_token_id)
        outputs: dict[str, tf.Tensor] = self.requested.fill(input_ids, attention_mask, top_k, target_ids)
        return outputs


class TextOptionsSignature(tf.Module):
    """The signature that takes texts and what is asked for each.

    Args:
        requested: from ids and requests to words.
        text_input: from texts and words to ids.
    """

    def __init__(self, requested: RequestedFill, text_input: TextInput) -> None:
        super().__init__()
        self.requested = requested
        self.text_input = text_input

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.string, name="texts"),
            tf.TensorSpec([None], tf.int32, name="top_k"),
            tf.TensorSpec([None, None], tf.string, name="targets"),
        ],
        autograph=False,
    )
    def text_options(self, texts: tf.Tensor, top_k: tf.Tensor, targets: tf.Tensor) -> dict[str, tf.Tensor]:
        """Fills the masks of texts, string [N].

        A value for each text, and not one for all, so that servers may run several requests together.

        Args:
            texts: string [N].
            top_k: int32 [N], candidates for each mask of a text.
            targets: string [N, T], see `TargetWords`.

        Returns:
            As `RequestedFill.fill`, with positions and notes as those of `text`.
        """
        target_ids = self.text_input.find_target_ids(targets)
        given = self.text_input(texts)
        outputs = self.requested.fill(given.input_ids, given.attention_mask, top_k, target_ids)
        return _as_of_texts(outputs, given)


class Signatures(tf.Module):
    """All that an export holds.

    Args:
        fill_mask: from ids to words.
        text_input: from texts to ids; without it there are no signatures for texts.
        max_top_k: the most candidates that a text may ask for.
    """

    def __init__(self, fill_mask: FillMask, text_input: TextInput | None, max_top_k: int) -> None:
        super().__init__()
        requested = RequestedFill(fill_mask, max_top_k)
        self._of_ids = IdSignatures(fill_mask)
        self._of_ids_options = IdOptionsSignature(requested)
        self._of_texts = TextSignature(fill_mask, text_input) if text_input else None
        self._of_texts_options = TextOptionsSignature(requested, text_input) if text_input else None

    def list_all(self) -> dict[str, tf.types.experimental.GenericFunction]:
        """The signatures by name; `serving_default` is `text`, or `ids` where there is no `text`."""
        of_ids = self._of_ids
        signatures = {
            "ids": of_ids.ids,
            "ids_int64": of_ids.ids_int64,
            "ids_options": self._of_ids_options.ids_options,
            "logits": of_ids.logits,
            "logits_int64": of_ids.logits_int64,
        }
        if self._of_texts is None or self._of_texts_options is None:
            return {"serving_default": of_ids.ids, **signatures}
        return {
            "serving_default": self._of_texts.text,
            "text": self._of_texts.text,
            "text_options": self._of_texts_options.text_options,
            **signatures,
        }
