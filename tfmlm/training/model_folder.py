"""Writes the trained model as the Hugging Face folder that PyTorch and TensorFlow read as it is."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from transformers import PreTrainedTokenizerFast, TFPreTrainedModel

from tfmlm.atomic_files import begin_folder
from tfmlm.data.tokenizers import save_tokenizer_folder
from tfmlm.errors import UserError, reason_of
from tfmlm.training.architectures import max_block_size
from tfmlm.training.weights import MAX_SHARD_BYTES, write_weights


def save_model_folder(
    model: TFPreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    texts: Mapping[str, str],
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Writes weights, configuration and tokenizer, and puts the whole folder in the place of an older one.

    Args:
        model: a built masked language model.
        tokenizer: its tokenizer.
        folder: where to; it never holds a part of a model, whenever the process is killed.
        texts: further files, by name.
        max_shard_bytes: size above which the weights are split.

    Raises:
        UserError: the folder cannot be written, for want of room for one. An older one is as it was.
    """
    try:
        with begin_folder(folder) as unfinished:
            _write_config(model, unfinished)
            write_weights(model, unfinished, max_shard_bytes)
            save_tokenizer_folder(_limit(tokenizer, max_block_size(model.config)), unfinished)
            for name, text in texts.items():
                (unfinished / name).write_text(text, encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"model folder {str(folder)!r} cannot be written: {reason_of(error)}; "
            "make room, and the same command goes on from the last checkpoint"
        ) from error


def _write_config(model: TFPreTrainedModel, folder: Path) -> None:
    config = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__.removeprefix("TF")]
    # As the weights are written, whatever the checkpoint was before; transformers 5 calls it `dtype`.
    config.torch_dtype = "float32"
    if hasattr(config, "dtype"):
        del config.dtype
    config.save_pretrained(folder)


def _limit(tokenizer: PreTrainedTokenizerFast, max_length: int) -> PreTrainedTokenizerFast:
    """A copy that truncates, if it is asked to, to what the model takes: a new tokenizer knows no limit."""
    limited = copy.deepcopy(tokenizer)
    limited.model_max_length = min(tokenizer.model_max_length, max_length)
    return limited
