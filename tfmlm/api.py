"""What `import tfmlm` offers to a script or a notebook: a run, and a trained model in use.

The package loads this module, and TensorFlow with it, when one of these is first used.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from typing import Any, overload

import tensorflow as tf

from tfmlm.config import Config
from tfmlm.config.load import load_config, make_config
from tfmlm.errors import UserError
from tfmlm.inference.fill import load_predictor
from tfmlm.library_logging import quieten_libraries, show_progress_lines
from tfmlm.results import Candidate, Result
from tfmlm.run import run


def train(
    config: Config | Mapping[str, Any] | str | PathLike[str], overrides: Sequence[str] = ()
) -> Result | None:
    """Trains, evaluates and exports, as `tfmlm train` does; goes on with the run, or reads a finished one.

    Args:
        config: a YAML file, a `tfmlm.config.Config`, or a mapping of sections such as
            `{"data": {"source": "text", "train_files": ["notes.txt"]}, "model": {...}}`.
        overrides: `section.key=value`, applied last and always winning.

    Returns:
        The figures of the run, and where its model and export are; None for a worker that is not the first.

    Raises:
        tfmlm.errors.UserError: something is wrong with what was given; the message says what and what to do.
        tfmlm.errors.PreemptedError: the process was told to end, and the run can go on.
        tfmlm.errors.WorkerLostError: another worker of the run is gone.
    """
    settings = (
        load_config(str(config), list(overrides))
        if isinstance(config, str | PathLike)
        else make_config(config, overrides)
    )
    with _quiet_libraries():
        finished = run(settings)
    if finished and finished.unpushed:
        raise UserError(finished.unpushed)
    return finished.result if finished else None


# A string is a sequence of strings to the type system; the first of the two that fits is taken.
@overload
def fill(  # type: ignore[overload-overlap]
    model: str | PathLike[str], texts: str, top_k: int = 5
) -> list[list[Candidate]]: ...


@overload
def fill(model: str | PathLike[str], texts: Sequence[str], top_k: int = 5) -> list[list[list[Candidate]]]: ...


def fill(
    model: str | PathLike[str], texts: str | Sequence[str], top_k: int = 5
) -> list[list[Candidate]] | list[list[list[Candidate]]]:
    """Fills the masks in texts, as `tfmlm predict` does.

    The model is loaded at each call: give all texts at once, or keep `tfmlm.inference.fill.load_predictor`.

    Args:
        model: a run folder, a model folder, a Hub id, or an export.
        texts: one text or several, each with the model's mask token.
        top_k: candidates for each mask.

    Returns:
        For each text, one list of candidates a mask, best first; of one text that is no list, its own.

    Raises:
        tfmlm.errors.UserError: there is no such model, or a text has no mask or is too long.
    """
    if top_k < 1:
        raise UserError(f"top_k is {top_k}; it must be 1 or more")
    several: list[Any] = [texts] if isinstance(texts, str) else list(texts)
    wrong = [text for text in several if not isinstance(text, str)]
    if wrong:
        raise UserError(f"texts hold {wrong[0]!r}; each must be a string")
    with _quiet_libraries():
        filled = load_predictor(str(model), top_k)(several)
    return filled[0] if isinstance(texts, str) else filled


@contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Quietens the libraries, and shows the lines of a run where the program shows none by itself.

    Raises:
        UserError: TensorFlow is here with Keras 3, which the models of transformers cannot use.
    """
    if not tf.keras.Model.__module__.startswith("tf_keras"):
        raise UserError(
            "TensorFlow was used with Keras 3 before tfmlm was imported; import tfmlm first, or set "
            "TF_USE_LEGACY_KERAS=1"
        )
    with warnings.catch_warnings():
        quieten_libraries()
        if not logging.getLogger("tfmlm").handlers:
            show_progress_lines()
        yield
