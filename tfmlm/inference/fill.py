"""Fills masks in texts with a run, a model folder or a SavedModel."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_text  # noqa: F401 registers the operations that an export's text signature needs
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from tfmlm.data.tokenizers import load_tokenizer
from tfmlm.errors import UserError, first_line
from tfmlm.export.fill_mask import FillMask
from tfmlm.export_layout import TOKENIZER_DIR
from tfmlm.graph_tokenizer.tokenizer import read_template
from tfmlm.inference.loading import find_export, load_run_or_model, locate
from tfmlm.inference.targets import TargetFill, Targets, find_targets, score_by_export, score_by_model
from tfmlm.inference.texts import GivenText, check_finite, check_length, take_batches
from tfmlm.results import Candidate, decode_filled, make_candidates

_TEXTS_A_BATCH = 32

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Policy:
    """What becomes of a text that cannot be answered as it is.

    Attributes:
        without_mask: of one that has no mask.
        long_texts: of one that has more tokens than the model takes; `cut` leaves a part in which its masks
            stay, the part that an export with `export.long_texts=cut` takes.
    """

    without_mask: Literal["fail", "skip"] = "fail"
    long_texts: Literal["fail", "skip", "cut"] = "fail"


class FilledText(NamedTuple):
    """A text with words for its masks.

    Attributes:
        text: the text.
        masks: a list for each mask, best candidate first; none of a text that was skipped.
        note: what became of a text that was not answered whole, or nothing.
    """

    text: GivenText
    masks: list[list[Candidate]]
    note: str


class _Part(NamedTuple):
    """What the model is given of a text.

    Attributes:
        ids: of the whole text, special tokens included.
        start: tokens of the text that are left out before the part.
        given: ids of the part, special tokens included; none if the text is skipped.
        note: as of `FilledText`.
    """

    ids: list[int]
    start: int
    given: list[int]
    note: str


@dataclass(frozen=True)
class Predictor:
    """A loaded model and its tokenizer.

    Attributes:
        fill: from `input_ids` and `attention_mask` int32 [N, L] to the outputs of `FillMask.fill`.
        tokenizer: the model's own; its `model_max_length` is the longest text.
        policy: what becomes of texts that cannot be answered as they are.
    """

    fill: Callable[[NDArray[np.int32], NDArray[np.int32]], Arrays]
    tokenizer: PreTrainedTokenizerFast
    policy: Policy = Policy()

    def __call__(self, texts: Sequence[str]) -> list[list[list[Candidate]]]:
        """Fills the masks of texts.

        Returns:
            For each text a list with one list a mask, best candidate first.

        Raises:
            UserError: a text has no mask or is too long for the model, and the policy is to fail, or it has
                more masks than the model answers.
        """
        return [filled.masks for filled in self.fill_stream(GivenText(text, "") for text in texts)]

    def fill_stream(self, texts: Iterable[GivenText]) -> Iterator[FilledText]:
        """Fills the masks of any number of texts, a batch at a time, and gives one answer for each.

        Raises:
            UserError: as calling the predictor does, when the text's batch is reached.
        """
        for batch in take_batches(texts, _TEXTS_A_BATCH):
            yield from self._fill_batch(batch)

    def _fill_batch(self, texts: list[GivenText]) -> list[FilledText]:
        rows = self.tokenizer([text.text for text in texts])["input_ids"]
        parts = [self._choose_part(text, ids) for text, ids in zip(texts, rows, strict=True)]
        answers = iter(
            self._answer([(text, part) for text, part in zip(texts, parts, strict=True) if part.given])
        )
        return [
            FilledText(text, next(answers) if part.given else [], part.note)
            for text, part in zip(texts, parts, strict=True)
        ]

    def _choose_part(self, text: GivenText, ids: list[int]) -> _Part:
        mask, mask_id = self.tokenizer.mask_token, self.tokenizer.mask_token_id
        if mask_id not in ids:
            if self.policy.without_mask == "fail":
                raise UserError(f"{text.name} has no mask; write {mask} where a word is wanted")
            return _Part(ids, 0, [], f"skipped, for there is no {mask} in it")
        max_length = self.tokenizer.model_max_length
        if len(ids) <= max_length:
            return _Part(ids, 0, ids, "")
        if self.policy.long_texts == "fail":
            check_length(text, len(ids), max_length)
        limit = f"the {max_length} tokens that the model takes"
        if self.policy.long_texts == "skip":
            return _Part(ids, 0, [], f"skipped, for it is longer than {limit}")
        prefix, suffix = read_template(self.tokenizer)
        own = ids[len(prefix) : len(ids) - len(suffix)]
        room = max_length - len(prefix) - len(suffix)
        start = _choose_start(own, mask_id, room)
        given = [*prefix, *own[start : start + room], *suffix]
        lost = own.count(mask_id) - own[start : start + room].count(mask_id)
        return _Part(ids, start, given, f"cut to {limit}" + (f"; masks cut off: {lost}" if lost else ""))

    def _answer(self, given: list[tuple[GivenText, _Part]]) -> Iterator[list[list[Candidate]]]:
        if not given:
            return
        length = max(len(part.given) for _, part in given)
        input_ids = np.full((len(given), length), self.tokenizer.pad_token_id, np.int32)
        attention_mask = np.zeros_like(input_ids)
        for row, (_, part) in enumerate(given):
            input_ids[row, : len(part.given)] = part.given
            attention_mask[row, : len(part.given)] = 1
        outputs = self.fill(input_ids, attention_mask)
        check_finite(outputs["scores"].flat)
        num_answered = (outputs["positions"] >= 0).sum(axis=1)
        for (text, part), answered in zip(given, num_answered, strict=True):
            masks = part.given.count(self.tokenizer.mask_token_id)
            if answered < masks:
                raise UserError(
                    f"{text.name} has {masks} masks and the export answers {answered}; "
                    "use the model folder or export again with a larger export.max_masks"
                )
        for row, (_, part) in enumerate(given):
            yield self._describe(part, {name: value[row] for name, value in outputs.items()})

    def _describe(self, part: _Part, outputs: Arrays) -> list[list[Candidate]]:
        is_answered = outputs["positions"] >= 0
        positions = (outputs["positions"][is_answered] + part.start).tolist()
        scores, token_ids = (outputs[name][is_answered].tolist() for name in ("scores", "token_ids"))
        tokens = [[token.decode() for token in of_mask] for of_mask in outputs["tokens"][is_answered]]
        num_masks = part.ids.count(self.tokenizer.mask_token_id)
        return make_candidates(
            scores,
            token_ids,
            tokens,
            lambda mask, token_id, _: decode_filled(
                self.tokenizer.decode, part.ids, positions[mask], token_id, num_masks=num_masks
            ),
        )


def _choose_start(own: list[int], mask_id: int, room: int) -> int:
    """The first token of the part of a text in which its masks stay: see `export.text_input`."""
    places = [place for place, token_id in enumerate(own) if token_id == mask_id]
    if places[-1] < room:
        return 0
    span = places[-1] - places[0] + 1
    around = places[0] if span > room else places[0] - (room - span) // 2
    return min(max(around, 0), len(own) - room)


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
