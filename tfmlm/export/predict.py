"""Fills masks in texts with a run, a model folder or a SavedModel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from tfmlm.candidate import Candidate
from tfmlm.data.tokenizers import load_tokenizer
from tfmlm.errors import UserError, first_line
from tfmlm.export.fill_mask import FillMask
from tfmlm.export.saved_model import TOKENIZER_DIR, list_versions
from tfmlm.run_folder import RunFolder
from tfmlm.training.model import load_model_folder

_TEXTS_A_BATCH = 32


@dataclass(frozen=True)
class Predictor:
    """A loaded model and its tokenizer.

    Attributes:
        fill: from `input_ids` and `attention_mask` int32 [N, L] to the outputs of `FillMask.fill`.
        tokenizer: the model's own; its `model_max_length` is the longest text.
    """

    fill: Callable[..., dict[str, tf.Tensor]]
    tokenizer: PreTrainedTokenizerFast

    def __call__(self, texts: Sequence[str]) -> list[list[list[Candidate]]]:
        """Fills the masks of texts.

        Returns:
            For each text a list with one list a mask, best candidate first.

        Raises:
            UserError: a text has no mask or is too long for the model.
        """
        batches = (texts[start : start + _TEXTS_A_BATCH] for start in range(0, len(texts), _TEXTS_A_BATCH))
        return [filled for batch in batches for filled in self._fill_batch(list(batch))]

    def _fill_batch(self, texts: list[str]) -> list[list[list[Candidate]]]:
        encoded = self.tokenizer(texts, return_tensors="np", padding=True)
        self._check(texts, encoded["input_ids"])
        inputs = {name: tf.constant(encoded[name], tf.int32) for name in ("input_ids", "attention_mask")}
        outputs = {name: value.numpy() for name, value in self.fill(**inputs).items()}
        return [
            self._describe(row_ids[row_mask == 1], {name: value[row] for name, value in outputs.items()})
            for row, (row_ids, row_mask) in enumerate(
                zip(encoded["input_ids"], encoded["attention_mask"], strict=True)
            )
        ]

    def _check(self, texts: list[str], input_ids: NDArray[np.int64]) -> None:
        mask_token = self.tokenizer.mask_token
        for text, has_mask in zip(
            texts, (input_ids == self.tokenizer.mask_token_id).any(axis=1), strict=True
        ):
            if not has_mask:
                raise UserError(f"text {text!r} has no mask; write {mask_token} where a word is wanted")
        if input_ids.shape[1] > self.tokenizer.model_max_length:
            raise UserError(
                f"the longest text has {input_ids.shape[1]} tokens and the model takes "
                f"{self.tokenizer.model_max_length}; shorten it"
            )

    def _describe(
        self, input_ids: NDArray[np.int64], outputs: dict[str, NDArray[Any]]
    ) -> list[list[Candidate]]:
        positions = [int(position) for position in outputs["positions"] if position >= 0]
        return [
            [
                Candidate(
                    score=float(score),
                    token=int(token_id),
                    token_str=token.decode(),
                    sequence=self._fill_in(input_ids, position, token_id, keep_special=len(positions) > 1),
                )
                for score, token_id, token in zip(
                    outputs["scores"][index],
                    outputs["token_ids"][index],
                    outputs["tokens"][index],
                    strict=True,
                )
            ]
            for index, position in enumerate(positions)
        ]

    def _fill_in(self, input_ids: NDArray[np.int64], position: int, token_id: int, keep_special: bool) -> str:
        """The text with one mask filled; as in the Hugging Face pipeline, other masks keep special tokens."""
        filled = np.where(np.arange(len(input_ids)) == position, token_id, input_ids)
        return str(self.tokenizer.decode(filled, skip_special_tokens=not keep_special))


def load_predictor(path: str, top_k: int) -> Predictor:
    """Loads a run folder, a model folder, a Hub id, or an export (its newest version, or one version).

    Args:
        path: where it lies.
        top_k: candidates for each mask.

    Raises:
        UserError: there is none of these at `path`, or the export was made with fewer candidates.
    """
    folder = Path(path)
    versions = list_versions(folder) if folder.is_dir() else []
    if versions:
        folder /= str(max(versions))
    if (folder / "saved_model.pb").exists():
        return _load_export(folder, top_k)
    if RunFolder(folder).model_dir.is_dir():
        path = str(RunFolder(folder).model_dir)
    model, tokenizer = load_model_folder(path)
    # No limit on masks: nothing waits behind this text.
    module = FillMask(model, tokenizer, top_k, max_masks=int(tokenizer.model_max_length))
    return Predictor(tf.function(module.fill, reduce_retracing=True), tokenizer)


def _load_export(folder: Path, top_k: int) -> Predictor:
    try:
        loaded = tf.saved_model.load(str(folder))
        exported_top_k = loaded.signatures["ids"].structured_outputs["scores"].shape[-1]
    except (OSError, ValueError, AttributeError, LookupError, tf.errors.OpError) as error:
        raise UserError(
            f"{str(folder)!r} is no export of tfmlm, or damaged: {first_line(error)}; export again"
        ) from error
    if top_k > exported_top_k:
        raise UserError(
            f"{str(folder)!r} was exported with {exported_top_k} candidates a mask, fewer than {top_k}; "
            "use the model folder or export again with a larger export.top_k"
        )

    def fill(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = loaded.signatures["ids"](**inputs)
        return {
            name: value if name == "positions" else value[:, :, :top_k] for name, value in outputs.items()
        }

    return Predictor(fill, load_tokenizer(folder / TOKENIZER_DIR))
