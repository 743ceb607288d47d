"""The one place where the libraries' noise is turned off, so that a terminal shows what matters."""

from __future__ import annotations

import logging
import warnings

from tfmlm.errors import escape_controls


def quieten_libraries(ignore_warnings: bool = True) -> None:
    """Silences TensorFlow, transformers, datasets and drivers of fsspec; errors still come as exceptions.

    Args:
        ignore_warnings: also ignore Python warnings, which are for programmers.
    """
    import datasets
    import transformers

    # "Some weights were newly initialized", "TensorFlow is deprecated": the run's notes say what matters.
    transformers.logging.set_verbosity_error()
    # One bar for each map and filter; the run logs one line a stage instead.
    datasets.disable_progress_bars()
    quieten_hub()
    # It logs a broken file and then raises it.
    datasets.logging.set_verbosity(logging.CRITICAL)
    # What they raise comes in one line.
    for driver in ("fsspec", "gcsfs", "s3fs"):
        logging.getLogger(driver).setLevel(logging.CRITICAL)
    # Blocks have a cache of their own; intermediate tables need none and go to a temporary folder.
    datasets.disable_caching()
    quieten_tensorflow(ignore_warnings)


def quieten_tensorflow(ignore_warnings: bool = True) -> None:
    """Silences TensorFlow alone, for a command that needs no more.

    Args:
        ignore_warnings: also ignore Python warnings, which are for programmers.
    """
    import tensorflow as tf

    # Retracing and AutoGraph hints are for TensorFlow programmers.
    tf.get_logger().setLevel(logging.ERROR)
    # tf_keras, transformers and their dependencies warn of their own deprecations.
    if ignore_warnings:
        warnings.simplefilter("ignore")


def quieten_hub() -> None:
    """Silences `huggingface_hub`: our own lines say what failed and what comes next."""
    from huggingface_hub.utils.tqdm import disable_progress_bars

    # They would run through the progress bar of the training.
    disable_progress_bars()
    # Its warnings of each attempt hold signed addresses.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)


class _EscapedLines(logging.Formatter):
    """Lines in which names from files cannot command a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return escape_controls(super().format(record))


def show_progress_lines() -> None:
    """Prints what the `tfmlm` logger says, one plain line a message, to standard error."""
    logger = logging.getLogger("tfmlm")
    handler = logging.StreamHandler()
    handler.setFormatter(_EscapedLines())
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    # With a handler there, a library's `basicConfig` does nothing; else it would print each line again.
    logging.getLogger().addHandler(logging.NullHandler())
