"""Fills masks in texts with a run, a model folder or a SavedModel."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_text  # noqa: F401 registers the operations that an export's text signature needs
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from tfmlm.data.tokenizers import load_tokenizer
from tfmlm.errors import UserError, first_line
from tfmlm.export.fill_mask import FillMask
from tfmlm.export_layout import TOKENIZER_DIR
from tfmlm.inference.loading import find_export, load_run_or_model, locate
from tfmlm.inference.targets import TargetFill, Targets, find_targets, score_by_export, score_by_model
from tfmlm.inference.texts import GivenText, check_finite, check_length, take_batches
from tfmlm.results import Candidate, decode_filled, make_candidates

_TEXTS_A_BATCH = 32

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Predictor:
    """A loaded model and its tokenizer.

    Attributes:
        fill: from `input_ids` and `attention_mask` int32 [N, L] to the outputs of `FillMask.fill`.
        tokenizer: the model's own; its `model_max_length` is the longest text.
    """

    fill: Callable[[NDArray[np.int32], NDArray[np.int32]], Arrays]
    tokenizer: PreTrainedTokenizerFast

    def __call__(self, texts: Sequence[str]) -> list[list[list[Candidate]]]:
        """Fills the masks of texts.

        Returns:
            For each text a list with one list a mask, best candidate first.

        Raises:
            UserError: a text has no mask, is too long for the model, or has more masks than it answers.
        """
        return [masks for _, masks in self.fill_stream(GivenText(text, "") for text in texts)]

    def fill_stream(self, texts: Iterable[GivenText]) -> Iterator[tuple[GivenText, list[list[Candidate]]]]:
        """Fills the masks of any number of texts, a batch at a time.

        Yields:
            Each text, and for it what calling the predictor gives.

        Raises:
            UserError: as calling the predictor does, when the text's batch is reached.
        """
        for batch in take_batches(texts, _TEXTS_A_BATCH):
            yield from zip(batch, self._fill_batch(batch), strict=True)

    def _fill_batch(self, texts: list[GivenText]) -> list[list[list[Candidate]]]:
        encoded = self.tokenizer([text.text for text in texts], return_tensors="np", padding=True)
        input_ids, attention_mask = encoded["input_ids"], encoded["attention_mask"]
        num_masks = (input_ids == self.tokenizer.mask_token_id).sum(axis=1)
        for text, num_tokens, masks in zip(texts, attention_mask.sum(axis=1), num_masks, strict=True):
            if not masks:
                raise UserError(
                    f"{text.name} has no mask; write {self.tokenizer.mask_token} where a word is wanted"
                )
            check_length(text, num_tokens, self.tokenizer.model_max_length)
        outputs = self.fill(input_ids.astype(np.int32), attention_mask.astype(np.int32))
        check_finite(outputs["scores"].flat)
        for text, answered, masks in zip(texts, outputs["positions"] >= 0, num_masks, strict=True):
            if answered.sum() < masks:
                raise UserError(
                    f"{text.name} has {masks} masks and the export answers {answered.sum()}; "
                    "use the model folder or export again with a larger export.max_masks"
                )
        return [
            self._describe(
                input_ids[row][attention_mask[row] == 1],
                {name: value[row] for name, value in outputs.items()},
            )
            for row in range(len(texts))
        ]

    def _describe(self, input_ids: NDArray[np.int64], outputs: Arrays) -> list[list[Candidate]]:
        is_answered = outputs["positions"] >= 0
        positions = outputs["positions"][is_answered].tolist()
        scores, token_ids = (outputs[name][is_answered].tolist() for name in ("scores", "token_ids"))
        tokens = [[token.decode() for token in of_mask] for of_mask in outputs["tokens"][is_answered]]
        ids = input_ids.tolist()
        return make_candidates(
            scores,
            token_ids,
            tokens,
            lambda mask, token_id, _: decode_filled(
                self.tokenizer.decode, ids, positions[mask], token_id, num_masks=len(positions)
            ),
        )


def load_predictor(path: str, top_k: int) -> Predictor:
    """Loads a run folder, a model folder, a Hub id, or an export (its newest version, or one version).

    Args:
        path: where it lies.
        top_k: candidates for each mask.

    Raises:
        UserError: there is none of these at `path`, or the export was made with fewer candidates.
    """
    path = locate(path)
    export = find_export(path)
    if export:
        return _load_export(export, top_k)
    return make_predictor(*load_run_or_model(path), top_k)


def make_predictor(model: tf.keras.Model, tokenizer: PreTrainedTokenizerFast, top_k: int) -> Predictor:
    """A predictor of a model that is there already.

    Args:
        model: a Hugging Face masked language model.
        tokenizer: the model's own, whose `model_max_length` is the model's.
        top_k: candidates for each mask.
    """
    # No limit on masks: nothing waits behind this text.
    has_gpu = bool(tf.config.list_physical_devices("GPU"))
    module = FillMask(model, tokenizer, top_k, int(tokenizer.model_max_length), group_by_length=not has_gpu)
    compute = tf.function(module.fill, reduce_retracing=True, autograph=False)

    def fill(input_ids: NDArray[np.int32], attention_mask: NDArray[np.int32]) -> Arrays:
        outputs = compute(tf.constant(input_ids), tf.constant(attention_mask))
        return {name: value.numpy() for name, value in outputs.items()}

    return Predictor(fill, tokenizer)


def _load_export(folder: Path, top_k: int) -> Predictor:
    with _explained_damage(folder):
        ids = tf.saved_model.load(str(folder)).signatures["ids"]
        exported_top_k = ids.structured_outputs["scores"].shape[-1]
    if top_k > exported_top_k:
        raise UserError(
            f"{str(folder)!r} was exported with {exported_top_k} candidates a mask, fewer than {top_k}; "
            "use the model folder or export again with a larger export.top_k"
        )

    def fill(input_ids: NDArray[np.int32], attention_mask: NDArray[np.int32]) -> Arrays:
        outputs = ids(input_ids=tf.constant(input_ids), attention_mask=tf.constant(attention_mask))
        return {
            name: value.numpy() if name == "positions" else value.numpy()[:, :, :top_k]
            for name, value in outputs.items()
        }

    return Predictor(fill, load_tokenizer(folder / TOKENIZER_DIR))


@contextmanager
def _explained_damage(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, AttributeError, LookupError, tf.errors.OpError) as error:
        raise UserError(
            f"{str(folder)!r} is no export of tfmlm, or damaged: {first_line(error)}; export again"
        ) from error


def load_target_predictor(path: str, words: Sequence[str], top_k: int | None) -> tuple[Predictor, Targets]:
    """Loads what `load_predictor` does, to score only given words.

    Args:
        path: where it lies.
        words: the candidates, as `find_targets` reads them.
        top_k: the most candidates for each mask; None gives them all.

    Returns:
        The predictor, and what became of the words.

    Raises:
        UserError: there is no model at `path`, or no word is left.
    """
    path = locate(path)
    export = find_export(path)
    if export:
        tokenizer = load_tokenizer(export / TOKENIZER_DIR)
        targets = find_targets(words, tokenizer)
        with _explained_damage(export):
            logits = tf.saved_model.load(str(export)).signatures["logits"]
        score = score_by_export(logits, targets)
    else:
        model, tokenizer = load_run_or_model(path)
        targets = find_targets(words, tokenizer)
        score = score_by_model(model, targets)
    return Predictor(TargetFill(score, tokenizer, targets, top_k), tokenizer), targets
