"""The pseudo-log-likelihood of texts: how probable a model finds each token given all the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast, TFPreTrainedModel

from tfmlm.errors import UserError
from tfmlm.export.fill_mask import compute_logits_of_padded
from tfmlm.inference.loading import find_export, load_run_or_model, locate
from tfmlm.inference.texts import GivenText, check_finite, check_length, take_batches
from tfmlm.results import to_perplexity

_TEXTS_A_CHUNK = 256
"""Texts whose masked copies are sorted together: more would pad less, and keep the first score waiting."""

_TOKENS_A_BATCH = 4096
"""Padding included. It bounds memory: the logits are a row of the vocabulary for each copy."""


class TextScore(TypedDict):
    """How probable a text is.

    Attributes:
        text: the text.
        score: pseudo-log-likelihood in nats, the sum over its tokens; 0 for a text without tokens.
        tokens: how many were scored; special ones are not.
        perplexity: exponential of the mean of -score over the tokens; None for a text without tokens.
    """

    text: str
    score: float
    tokens: int
    perplexity: float | None


@dataclass(frozen=True)
class Scorer:
    """A loaded model and its tokenizer.

    For each token of a text the model reads a copy in which that token is masked; the score is the sum of the
    log probabilities of the tokens at their masks (Salazar et al. 2020, Masked Language Model Scoring,
    https://arxiv.org/abs/1910.14659, equation 3).

    Attributes:
        compute: from masked copies, `input_ids` and `attention_mask` int32 [R, L], the masked position int32
            [R] of each and the token int32 [R] that was there, to its log probability, float32 [R], in nats.
        tokenizer: the model's own; its `model_max_length` is the longest text.
    """

    compute: Callable[..., tf.Tensor]
    tokenizer: PreTrainedTokenizerFast

    def __call__(self, texts: Sequence[str]) -> list[TextScore]:
        """Scores texts.

        Raises:
            UserError: a text is too long for the model.
        """
        return list(self.score_stream(GivenText(text, "") for text in texts))

    def score_stream(self, texts: Iterable[GivenText]) -> Iterator[TextScore]:
        """Scores any number of texts, some hundred at a time.

        Raises:
            UserError: a text is too long for the model.
        """
        for chunk in take_batches(texts, _TEXTS_A_CHUNK):
            yield from self._score_chunk(chunk)

    def _score_chunk(self, texts: list[GivenText]) -> Iterator[TextScore]:
        rows: list[list[int]] = self.tokenizer([text.text for text in texts])["input_ids"]
        for text, ids in zip(texts, rows, strict=True):
            check_length(text, len(ids), self.tokenizer.model_max_length)
        # An unknown word is a word of the text; [CLS], [MASK] and the like are not.
        special = set(self.tokenizer.all_special_ids) - {self.tokenizer.unk_token_id}
        places = [
            (row, position)
            for row, ids in enumerate(rows)
            for position, token_id in enumerate(ids)
            if token_id not in special
        ]
        totals, counts = np.zeros(len(rows)), np.zeros(len(rows), int)
        for batch in _pack(places, rows):
            numbers = [row for row, _ in batch]
            np.add.at(totals, numbers, self._score_copies(batch, rows))
            np.add.at(counts, numbers, 1)
        for text, total, count in zip(texts, totals.tolist(), counts.tolist(), strict=True):
            perplexity = to_perplexity(-total / count) if count else None
            yield TextScore(text=text.text, score=total, tokens=count, perplexity=perplexity)

    def _score_copies(self, places: list[tuple[int, int]], rows: list[list[int]]) -> NDArray[np.float32]:
        length = max(len(rows[row]) for row, _ in places)
        input_ids = np.full((len(places), length), self.tokenizer.pad_token_id, np.int32)
        attention_mask = np.zeros_like(input_ids)
        for copy, (row, position) in enumerate(places):
            input_ids[copy, : len(rows[row])] = rows[row]
            input_ids[copy, position] = self.tokenizer.mask_token_id
            attention_mask[copy, : len(rows[row])] = 1
        positions = np.array([position for _, position in places], np.int32)
        tokens = np.array([rows[row][position] for row, position in places], np.int32)
        values = (tf.constant(value) for value in (input_ids, attention_mask, positions, tokens))
        scores: NDArray[np.float32] = self.compute(*values).numpy()
        check_finite(scores)
        return scores


def _pack(places: list[tuple[int, int]], rows: list[list[int]]) -> Iterator[list[tuple[int, int]]]:
    """Batches of places in texts of nearly equal length, the longest first."""
    remaining = sorted(places, key=lambda place: -len(rows[place[0]]))
    first = 0
    while first < len(remaining):
        num_copies = max(1, _TOKENS_A_BATCH // len(rows[remaining[first][0]]))
        yield remaining[first : first + num_copies]
        first += num_copies


def make_scorer(model: TFPreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> Scorer:
    """Scores with a model in float32 and its tokenizer."""
    rows_of_any_length = tf.TensorSpec([None, None], tf.int32)
    one_a_row = tf.TensorSpec([None], tf.int32)

    # With this signature it is traced once, whatever the shapes.
    @tf.function(
        input_signature=[rows_of_any_length, rows_of_any_length, one_a_row, one_a_row], autograph=False
    )
    def compute(
        input_ids: tf.Tensor, attention_mask: tf.Tensor, positions: tf.Tensor, tokens: tf.Tensor
    ) -> tf.Tensor:
        places = tf.stack([tf.range(tf.size(positions)), positions], axis=1)
        logits = compute_logits_of_padded(model, input_ids, attention_mask, places)
        return -tf.nn.sparse_softmax_cross_entropy_with_logits(tokens, tf.cast(logits, tf.float32))

    return Scorer(compute, tokenizer)


def load_scorer(path: str) -> Scorer:
    """Loads a run folder, a model folder or a Hub id.

    Raises:
        UserError: there is none of these at `path`, or it is an export.
    """
    path = locate(path)
    export = find_export(path)
    if export:
        raise UserError(
            f"{str(export)!r} is an export, which gives logits at every position only; "
            "score with the run or the model folder"
        )
    return make_scorer(*load_run_or_model(path))
