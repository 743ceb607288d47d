"""Scores given words for each mask, as `targets` of the Hugging Face pipeline does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast, TFPreTrainedModel

from tfmlm.errors import UserError
from tfmlm.export.fill_mask import compute_logits_of_padded, spread_over_masks

Score = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]
"""From `input_ids` and `attention_mask` int32 [N, L] and rows and columns of P places in order, int32 [P, 2],
to the probabilities of T targets there, float32 [P, T]."""


class Targets(NamedTuple):
    """The words to score.

    Attributes:
        token_ids: of the words, each once.
        notes: what became of words that are not in the vocabulary, a sentence each.
    """

    token_ids: list[int]
    notes: list[str]


def find_targets(words: Sequence[str], tokenizer: PreTrainedTokenizerFast) -> Targets:
    """Finds the words in the vocabulary; see `FillMaskPipeline.get_target_ids` of transformers.

    A word is looked up as it is, so where the vocabulary marks spaces (`Ġsize`), `size` is the one without a
    space before it. For a word that is not there, the first of its tokens is scored.

    Raises:
        UserError: no word is left.
    """
    vocabulary = tokenizer.get_vocab()
    token_ids: list[int] = []
    notes = []
    for word in words:
        if word in vocabulary:
            token_ids.append(vocabulary[word])
            continue
        first = tokenizer(word, add_special_tokens=False, max_length=1, truncation=True)["input_ids"]
        token_ids += first
        (token,) = tokenizer.convert_ids_to_tokens(first) or [None]
        instead = f"{token!r} is scored instead" if token else "it is left out"
        notes.append(f"target {word!r} is not in the vocabulary; {instead}")
    if not token_ids:
        raise UserError(f"--targets {','.join(words)!r} has no word; write WORD,WORD")
    return Targets(list(dict.fromkeys(token_ids)), notes)


def score_by_model(model: TFPreTrainedModel, targets: Targets) -> Score:
    """Scores with a model, whose logits are computed at the masks only."""

    @tf.function(reduce_retracing=True, autograph=False)
    def score(input_ids: tf.Tensor, attention_mask: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
        logits = compute_logits_of_padded(model, input_ids, attention_mask, places)
        return tf.gather(tf.nn.softmax(tf.cast(logits, tf.float32)), targets.token_ids, axis=1)

    return score  # type: ignore[no-any-return]


def score_by_export(logits: Callable[..., dict[str, tf.Tensor]], targets: Targets) -> Score:
    """Scores with the signature `logits` of an export: `ids` gives the best words, and these may not be it.

    Exact, at the cost of logits at every position. One text at a time, because those of 32 texts of 512
    tokens would be 2 GB.
    """

    def score(input_ids: tf.Tensor, attention_mask: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
        parts = []
        for row in range(len(input_ids)):
            positions = tf.boolean_mask(places[:, 1], places[:, 0] == row)
            one = slice(row, row + 1)
            everywhere = logits(input_ids=input_ids[one], attention_mask=attention_mask[one])["logits"][0]
            probabilities = tf.nn.softmax(tf.gather(everywhere, positions))
            parts.append(tf.gather(probabilities, targets.token_ids, axis=1))
        return tf.concat(parts, axis=0)

    return score


@dataclass(frozen=True)
class TargetFill:
    """Fills masks with the most probable of given words.

    Attributes:
        score: the words' probabilities.
        tokenizer: the model's.
        targets: T words.
        top_k: the most candidates for each mask; None gives all T.
    """

    score: Score
    tokenizer: PreTrainedTokenizerFast
    targets: Targets
    top_k: int | None

    def __call__(
        self, input_ids: NDArray[np.int32], attention_mask: NDArray[np.int32]
    ) -> dict[str, NDArray[Any]]:
        """Fills the masks of token ids, int32 [N, L].

        Returns:
            As `FillMask.fill`, for all masks; probabilities are those among all words of the vocabulary.
        """
        is_mask = (input_ids == self.tokenizer.mask_token_id) & (attention_mask != 0)
        rows, columns = np.nonzero(is_mask)
        places = tf.constant(np.stack([rows, columns], axis=1), tf.int32)
        scores = self.score(tf.constant(input_ids), tf.constant(attention_mask), places).numpy()
        best = np.argsort(-scores, axis=1, kind="stable")[:, : self.top_k]
        words = [self.tokenizer.decode([token_id]) for token_id in self.targets.token_ids]
        ranks = (np.cumsum(is_mask, axis=1) - 1)[rows, columns]
        outputs = spread_over_masks(
            tf.constant(len(input_ids)),
            tf.constant(np.stack([rows, ranks], axis=1), tf.int32),
            token_ids=tf.gather(tf.constant(self.targets.token_ids, tf.int32), best),
            tokens=tf.gather(tf.constant(words), best),
            scores=tf.constant(np.take_along_axis(scores, best, axis=1)),
            positions=tf.constant(columns, tf.int32),
        )
        return {name: output.numpy() for name, output in outputs.items()}
