"""Results of runs, commands and clients: figures, and words for masks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypedDict


class Candidate(TypedDict):
    """A word for a mask, in the field names of the Hugging Face pipeline.

    Attributes:
        score: probability.
        token: id.
        token_str: the word.
        sequence: the text with this word in place of this mask; other masks stay.
    """

    score: float
    token: int
    token_str: str
    sequence: str


def make_candidates(
    scores: Sequence[Sequence[float]],
    token_ids: Sequence[Sequence[int]],
    tokens: Sequence[Sequence[str]],
    fill_in: Callable[[int, int, str], str],
) -> list[list[Candidate]]:
    """The candidates of each of M masks in a text.

    Args:
        scores: [M, K], probabilities.
        token_ids: [M, K].
        tokens: [M, K], their words.
        fill_in: gives the text, from the number of a mask (0 is the first), a token's id and the token.

    Returns:
        [M, K], in the order of the arguments.
    """
    return [
        [
            Candidate(
                score=float(score),
                token=int(token_id),
                token_str=token,
                sequence=fill_in(mask, int(token_id), token),
            )
            for score, token_id, token in zip(*of_mask, strict=True)
        ]
        for mask, of_mask in enumerate(zip(scores, token_ids, tokens, strict=True))
    ]


def decode_filled(
    decode: Callable[..., str], ids: Sequence[int], position: int, token_id: int, *, num_masks: int
) -> str:
    """The text of token ids with one mask filled.

    Args:
        decode: of a tokenizer of transformers or tokenizers.
        ids: of the text, special tokens included.
        position: of the mask.
        token_id: of the word.
        num_masks: in the text; as in the Hugging Face pipeline, other masks keep the special tokens.
    """
    filled = [*ids[:position], token_id, *ids[position + 1 :]]
    return str(decode(filled, skip_special_tokens=num_masks == 1))


Samples = dict[str, list[list[Candidate]]]
"""For each text, one list of candidates a mask, best first."""


@dataclass(frozen=True)
class Result:
    """The figures of a finished run; `result.json`.

    Attributes:
        perplexity: exponential of `eval_loss`, after training.
        eval_loss: token-weighted mean cross-entropy over the held-out masked tokens, in nats.
        eval_top_1: share of the masked tokens that the model puts first.
        eval_top_5: share that it puts among its first five.
        initial_perplexity: the same measure before training.
        steps: optimizer steps.
        tokens: tokens that were trained on, padding left out.
        train_seconds: wall-clock seconds in the training loop, the first step's tracing included.
        step_seconds_median: median seconds of a step.
        tokens_per_second: median over the steps.
        model_dir: the Hugging Face folder.
        saved_model_dir: the exported version, if there is one.
        bad_rows: rows of the source that could not be read and were left out.
        unknown_share: share of the text's tokens that the tokenizer does not know.
        unmasked_share: share of the held-out blocks that have no mask.
        perplexity_per_character: exponential of the sum of the held-out masked tokens' losses, in nats, over
            the number of characters that these tokens stand for (`data.characters`). Vocabularies can be
            compared by it; None where the tokenizer does not tell how many there are.
        tokens_a_text_before: mean tokens of a held-out text with the vocabulary as it was; None unless it has
            grown.
        tokens_a_text_after: the same with the new words.
        num_new_words: entries that the vocabulary has grown by.
        notes: what the person should know, one sentence each.
        samples_before: `run.sample_texts` as the model filled them before training; for each text, one list
            of candidates a mask. Empty in results of versions that did not keep them.
        samples_after: the same with the trained model.
    """

    perplexity: float
    eval_loss: float
    eval_top_1: float
    eval_top_5: float
    initial_perplexity: float
    steps: int
    tokens: int
    train_seconds: float
    step_seconds_median: float
    tokens_per_second: float
    model_dir: str
    saved_model_dir: str | None
    bad_rows: int = 0
    unknown_share: float = 0.0
    unmasked_share: float = 0.0
    perplexity_per_character: float | None = None
    tokens_a_text_before: float | None = None
    tokens_a_text_after: float | None = None
    num_new_words: int = 0
    notes: list[str] = field(default_factory=list)
    samples_before: Samples = field(default_factory=dict)
    samples_after: Samples = field(default_factory=dict)


class Evaluation(NamedTuple):
    """A result over all masked tokens of a set.

    Attributes:
        loss: mean cross-entropy of a masked token, in nats.
        top_1: share of the masked tokens that the model puts first.
        top_5: share that it puts among its first five.
    """

    loss: float
    top_1: float
    top_5: float

    @property
    def perplexity(self) -> float:
        """Exponential of the loss, and finite."""
        return to_perplexity(self.loss)


# === Perplexity ===

LARGEST_LOSS = 700.0
"""In nats; the exponential of a larger one soon is no float, and infinity is no JSON."""


def to_perplexity(loss: float) -> float:
    """Exponential of a loss in nats; about 1e304 for all those whose exponential is no finite number."""
    return math.exp(min(loss, LARGEST_LOSS))
