"""The computation that is served: from token ids to the best words for each mask."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import tensorflow as tf
from transformers import PreTrainedTokenizerFast, TFPreTrainedModel

from tfmlm.data.tokenizers import count_ids
from tfmlm.graph_tokenizer.tokenizer import read_template
from tfmlm.training.heads import (
    ARCHITECTURES,
    READS_PADDING,
    apply_head,
    compute_hidden_at,
    compute_logits,
    hidden_spec,
)


class AtMasks(NamedTuple):
    """What the model says at the P masks of N texts that are answered.

    Attributes:
        slots: int32 [P, 2], the text of each mask and its number among the text's.
        columns: int32 [P], its position among the text's tokens.
        probabilities: float32 [P, V].
    """

    slots: tf.Tensor
    columns: tf.Tensor
    probabilities: tf.Tensor


class FillMask(tf.Module):
    """Fills masks with a model's most probable words.

    Attributes:
        model: a Hugging Face model; of an export in float32, of a run that trains in what it computes in.
        max_length: tokens that the model takes.
        max_masks: masks of a text that are answered; the first ones.
        num_words: ids of the tokenizer.
        top_k: K, candidates for each mask, at most so many.
        first_token_id: with which the tokenizer begins every text; None if it has no such token.

    Args:
        model: the model.
        tokenizer: its tokenizer, whose `model_max_length` is the model's.
        top_k: candidates for each mask, at most the words of the tokenizer.
        max_masks: masks of a text that are answered.
        group_by_length: whether texts of like length are computed together. A model whose head is not known
            computes whole batches, and one that reads the padding only texts of one length.
    """

    def __init__(
        self,
        model: TFPreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        top_k: int,
        max_masks: int,
        group_by_length: bool,
    ) -> None:
        super().__init__()
        self._most_padding = choose_most_padding(model, group_by_length)
        self.model = model
        self.max_length = int(tokenizer.model_max_length)
        self.max_masks = max_masks
        self.num_words = count_ids(tokenizer)
        self.top_k = min(top_k, self.num_words)
        self.first_token_id = _find_first_token(tokenizer)
        self._mask_token_id = int(tokenizer.mask_token_id)
        # Ids that the model has and the tokenizer has not decode to nothing.
        ids = set(tokenizer.get_vocab().values())
        self._words = [
            tokenizer.decode([token_id]) if token_id in ids else ""
            for token_id in range(model.config.vocab_size)
        ]

    def fill(self, input_ids: tf.Tensor, attention_mask: tf.Tensor) -> dict[str, tf.Tensor]:
        """Fills the masks of token ids.

        Args:
            input_ids: int32 [N, L].
            attention_mask: int32 [N, L].

        Returns:
            `token_ids` int32, `tokens` string and `scores` float32 [N, M, K], best first, and `positions`
            int32 [N, M]. M is the largest number of answered masks in a text of the batch, at least 1; a
            text with fewer has position -1, token id -1, an empty token and score 0 in the rest.
        """
        at_masks = self.compute_at_masks(input_ids, attention_mask)
        scores, token_ids = tf.math.top_k(at_masks.probabilities, self.top_k)
        return spread_over_masks(
            tf.shape(input_ids)[0],
            at_masks.slots,
            token_ids=token_ids,
            tokens=self.find_words(token_ids),
            scores=scores,
            positions=at_masks.columns,
        )

    def compute_at_masks(self, input_ids: tf.Tensor, attention_mask: tf.Tensor) -> AtMasks:
        """The probabilities of all words at the masks that are answered; arguments as of `fill`."""
        with tf.control_dependencies(self._check(input_ids)):
            input_ids = tf.identity(input_ids)
        is_mask = (input_ids == self._mask_token_id) & (attention_mask != 0)
        rank = tf.cumsum(tf.cast(is_mask, tf.int32), axis=1, exclusive=True)
        # Logits for the masks that there are, not for the most that a text has times all texts.
        places = tf.cast(tf.where(is_mask & (rank < self.max_masks)), tf.int32)
        logits = apply_head(self.model, self._compute_hidden(input_ids, attention_mask, places))
        slots = tf.stack([places[:, 0], tf.gather_nd(rank, places)], axis=1)
        return AtMasks(slots, places[:, 1], tf.nn.softmax(tf.cast(logits, tf.float32)))

    def find_words(self, token_ids: tf.Tensor) -> tf.Tensor:
        """The words of ids, string of the same shape."""
        return tf.gather(tf.constant(self._words), token_ids)

    def _compute_hidden(
        self, input_ids: tf.Tensor, attention_mask: tf.Tensor, places: tf.Tensor
    ) -> tf.Tensor:
        """The head's input at the rows and columns `places`, see `hidden_spec`."""
        return compute_hidden_of_padded(self.model, input_ids, attention_mask, places, self._most_padding)

    def compute_logits(self, input_ids: tf.Tensor, attention_mask: tf.Tensor) -> dict[str, tf.Tensor]:
        """`logits` float32 [N, L, V] at every position, for those who need them all."""
        with tf.control_dependencies(self._check(input_ids)):
            input_ids = tf.identity(input_ids)
        if self._most_padding == 0:
            places = tf.cast(tf.where(attention_mask != 0), tf.int32)
            values = compute_logits_of_padded(self.model, input_ids, attention_mask, places)
            shape = tf.concat([tf.shape(input_ids), [self.model.config.vocab_size]], axis=0)
            logits = tf.ensure_shape(tf.scatter_nd(places, values, shape), [None, None, values.shape[-1]])
        else:
            logits = compute_logits(self.model, input_ids, attention_mask)
        return {"logits": tf.cast(logits, tf.float32)}

    def _check(self, input_ids: tf.Tensor) -> list[tf.Operation]:
        """Assertions whose messages a client can act on; without them an op deep in the model fails."""
        vocab_size = self.model.config.vocab_size
        is_word = (input_ids >= 0) & (input_ids < vocab_size)
        shape = tf.shape(input_ids)
        return [
            tf.debugging.Assert(
                shape[1] <= self.max_length,
                [
                    f"input_ids may have at most {self.max_length} tokens a row, and have",
                    shape[1],
                ],
            ),
            tf.debugging.Assert(
                (shape[0] == 0) | (shape[1] > 0), ["input_ids have no tokens; give at least one a row"]
            ),
            tf.debugging.Assert(
                tf.reduce_all(is_word), [f"input_ids must be 0 to {vocab_size - 1}, and are", input_ids]
            ),
        ]


def _find_first_token(tokenizer: PreTrainedTokenizerFast) -> int | None:
    """See `FillMask.first_token_id`; a token that ends texts too cannot tell a server's padding either."""
    prefix, suffix = read_template(tokenizer)
    return prefix[0] if prefix and prefix[0] not in suffix else None


def spread_over_masks(
    num_texts: tf.Tensor,
    slots: tf.Tensor,
    *,
    token_ids: tf.Tensor,
    tokens: tf.Tensor,
    scores: tf.Tensor,
    positions: tf.Tensor,
) -> dict[str, tf.Tensor]:
    """Puts what was computed for P masks where it belongs in the outputs of N texts.

    Args:
        num_texts: N.
        slots: int32 [P, 2], the text of each mask and its number among the text's.
        token_ids: int32 [P, K].
        tokens: string [P, K].
        scores: float32 [P, K].
        positions: int32 [P], of the mask among the text's tokens.

    Returns:
        See `FillMask.fill`.
    """
    shape = tf.stack([num_texts, count_masks(slots)])
    return {
        "token_ids": spread(token_ids, -1, slots, shape),
        "tokens": spread(tokens, "", slots, shape),
        "scores": spread(scores, 0.0, slots, shape),
        "positions": spread(positions, -1, slots, shape),
    }


def count_masks(slots: tf.Tensor) -> tf.Tensor:
    """M, the largest number of answered masks in a text, at least 1; int32 scalar."""
    return tf.reduce_max(tf.concat([slots[:, 1] + 1, [1]], axis=0))


def spread(values: tf.Tensor, missing: int | float | str, slots: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
    """Puts values [P, …] at their `slots` of [N, M, …], and `missing` where there are none.

    Args:
        values: of each mask.
        missing: the value of no mask.
        slots: int32 [P, 2].
        shape: N and M.
    """
    empty = tf.fill(tf.concat([shape, tf.shape(values)[1:]], axis=0), tf.constant(missing, values.dtype))
    filled = tf.tensor_scatter_nd_update(empty, slots, values)
    return tf.ensure_shape(filled, [None, None, *values.shape[1:]])


def leave_out_server_padding(
    input_ids: tf.Tensor, attention_mask: tf.Tensor, first_token_id: int | None
) -> tf.Tensor:
    """The attention mask without the padding that TensorFlow Serving adds when it batches.

    It makes rows of several clients equally long with the first value of each request's tensor
    (`pad_variable_length_inputs` in its `batching_util.cc`): `input_ids` get the first token, which is [CLS]
    or <s>, and `attention_mask` gets 1, which would let it be attended to. So where a row begins with that
    token, what repeats it at its end does not count. A row without it keeps its mask: there the same tokens
    may be the client's own.

    Args:
        input_ids: int32 [N, L].
        attention_mask: int32 [N, L].
        first_token_id: with which the tokenizer begins every text; None if it has no such token.
    """
    shapes = [tf.shape(input_ids), tf.shape(attention_mask)]
    differ = tf.debugging.Assert(
        tf.reduce_all(shapes[0] == shapes[1]), ["input_ids and attention_mask differ in shape", *shapes]
    )
    is_mask = tf.debugging.Assert(
        tf.reduce_all((attention_mask == 0) | (attention_mask == 1)),
        ["attention_mask must be 0 or 1, and is", attention_mask],
    )
    with tf.control_dependencies([differ, is_mask]):
        input_ids, attention_mask = tf.identity(input_ids), tf.identity(attention_mask)
    if first_token_id is None:
        return attention_mask
    repeats = tf.cast(input_ids == input_ids[:, :1], tf.int32)
    is_padding = tf.math.cumprod(repeats, axis=1, reverse=True) == 1
    is_padding &= (input_ids[:, :1] == first_token_id) & (tf.range(tf.shape(input_ids)[1]) > 0)
    return tf.where(is_padding, 0, attention_mask)


# === Texts of like length together ===


MOST_PADDING = 64
"""Tokens of padding that a group may have in all. On a CPU one more call of a small model costs about as much
as 15 tokens do; on a GPU it costs more than the padding, and `export.group_by_length` is for that."""

Compute = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]
"""From `input_ids` and `attention_mask` [n, l] and positions [p] in their flattened form to values [p, D]."""


def choose_most_padding(model: TFPreTrainedModel, group_by_length: bool) -> int | None:
    """Tokens of padding that rows of a model may have together; None computes them as one batch."""
    if model.config.model_type in READS_PADDING:
        return 0
    return MOST_PADDING if group_by_length and model.config.model_type in ARCHITECTURES else None


def compute_logits_of_padded(
    model: TFPreTrainedModel, input_ids: tf.Tensor, attention_mask: tf.Tensor, places: tf.Tensor
) -> tf.Tensor:
    """Vocabulary logits at rows and columns of rows that may be padded, as one batch where that is right.

    Args:
        model: any TensorFlow masked language model.
        input_ids: int32 [N, L].
        attention_mask: int32 [N, L].
        places: int32 [P, 2].

    Returns:
        [P, V] in the model's compute dtype.
    """
    most_padding = choose_most_padding(model, group_by_length=False)
    return apply_head(model, compute_hidden_of_padded(model, input_ids, attention_mask, places, most_padding))


def compute_hidden_of_padded(
    model: TFPreTrainedModel,
    input_ids: tf.Tensor,
    attention_mask: tf.Tensor,
    places: tf.Tensor,
    most_padding: int | None,
) -> tf.Tensor:
    """The head's input [P, D], see `hidden_spec`; arguments as of the two functions above."""
    compute = partial(compute_hidden_at, model)
    if most_padding is not None:
        return compute_by_length(compute, input_ids, attention_mask, places, hidden_spec(model), most_padding)
    indices = places[:, 0] * tf.shape(input_ids)[1] + places[:, 1]
    return compute(input_ids, attention_mask, indices)


def compute_by_length(
    compute: Compute,
    input_ids: tf.Tensor,
    attention_mask: tf.Tensor,
    places: tf.Tensor,
    spec: tf.TensorSpec,
    most_padding: int = MOST_PADDING,
) -> tf.Tensor:
    """Calls `compute` on groups of rows of like length; a row without a place costs nothing.

    Args:
        compute: what is computed of a group.
        input_ids: int32 [N, L].
        attention_mask: int32 [N, L]; what follows the last that is not 0 in a row is left out.
        places: int32 [P, 2], rows and columns whose values are wanted.
        spec: [None, D] and the dtype of what `compute` returns.
        most_padding: tokens of padding that a group may have in all.

    Returns:
        [P, D], the values at the places.
    """
    rows, columns = places[:, 0], places[:, 1]
    ends = 1 + tf.range(tf.shape(attention_mask)[1])
    lengths = tf.reduce_max(tf.where(attention_mask != 0, ends, 0), axis=1)
    wanted = tf.unique(rows).y
    order = tf.gather(wanted, tf.argsort(tf.gather(lengths, wanted), direction="DESCENDING"))

    def add_group(start: tf.Tensor, values: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        group = _take_group(order, lengths, start, most_padding)
        longest = lengths[group[0]]
        # Where in the group a row is, counted from 1; 0 if it is not in it.
        rank = tf.scatter_nd(group[:, tf.newaxis], 1 + tf.range(tf.size(group)), tf.shape(lengths))
        ours = tf.where(tf.gather(rank, rows) > 0)[:, 0]
        positions = (tf.gather(rank, tf.gather(rows, ours)) - 1) * longest + tf.gather(columns, ours)
        input_ids_of_group = tf.gather(input_ids, group)[:, :longest]
        attention_mask_of_group = tf.gather(attention_mask, group)[:, :longest]
        computed = compute(input_ids_of_group, attention_mask_of_group, positions)
        values = tf.tensor_scatter_nd_update(values, ours[:, tf.newaxis], computed)
        return start + tf.size(group), tf.ensure_shape(values, spec.shape)

    _, values = tf.while_loop(
        lambda start, _: start < tf.size(order),
        add_group,
        (tf.constant(0), tf.zeros([tf.shape(places)[0], spec.shape[1]], spec.dtype)),
        shape_invariants=(tf.TensorShape([]), spec.shape),
        parallel_iterations=1,  # each uses all cores
    )
    return values


def _take_group(order: tf.Tensor, lengths: tf.Tensor, start: tf.Tensor, most_padding: int) -> tf.Tensor:
    """The rows from `start` on that together need no more than `most_padding`."""
    rest = order[start:]
    missing = lengths[rest[0]] - tf.gather(lengths, rest)
    return tf.boolean_mask(rest, tf.cumsum(missing) <= most_padding)
