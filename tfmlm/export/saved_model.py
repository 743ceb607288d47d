"""Writes a SavedModel as TensorFlow Serving wants it: `<dir>/<name>/<version>/`."""

from __future__ import annotations

import shutil
from pathlib import Path

import tensorflow as tf

from tfmlm.config import ExportConfig
from tfmlm.errors import UserError
from tfmlm.export.batching import write_batching_parameters
from tfmlm.export.fill_mask import FillMask
from tfmlm.export.warmup import make_samples, write_warmup_requests
from tfmlm.training.model import load_model_folder

TOKENIZER_DIR = "assets.extra/tokenizer"
"""Where the tokenizer lies in a version; TensorFlow Serving ignores `assets.extra`."""


def export_saved_model(model_dir: Path, config: ExportConfig, name: str) -> Path:
    """Exports a model folder as the next version.

    Signatures: `serving_default`, the same as `ids`, and `logits`; see `FillMask`. Beside them lies what
    TensorFlow Serving reads when it loads the version: warm-up requests and batching parameters.

    Args:
        model_dir: a Hugging Face folder with a TensorFlow-readable model and a tokenizer.
        config: where to, and how many candidates.
        name: name of the export.

    Returns:
        The folder of the new version, which appears only when it is whole.

    Raises:
        UserError: the folder holds no model, or the export cannot be written.
    """
    model, tokenizer = load_model_folder(model_dir)
    module = FillMask(model, tokenizer, config.top_k)
    root = Path(config.dir, name)
    # TensorFlow Serving watches for folders named by a number; this one it does not see.
    unfinished = root / ".unfinished"
    try:
        root.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(unfinished, ignore_errors=True)
        tf.saved_model.save(
            module,
            str(unfinished),
            signatures={"serving_default": module.ids, "ids": module.ids, "logits": module.logits},
        )
        tokenizer.save_pretrained(unfinished / TOKENIZER_DIR)
        write_warmup_requests(unfinished, name, make_samples(tokenizer))
        write_batching_parameters(unfinished)
        version = root / str(max(list_versions(root), default=0) + 1)
        unfinished.rename(version)
    except OSError as error:
        raise UserError(f"export to {str(root)!r} failed: {error}; set export.dir") from error
    return version


def list_versions(root: Path) -> list[int]:
    """Version numbers below an export's folder."""
    return [int(path.name) for path in root.iterdir() if path.name.isdigit() and path.is_dir()]
