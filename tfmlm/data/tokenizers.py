"""Loads a tokenizer and checks that it can serve a masked language model."""

from __future__ import annotations

import os
import re
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tfmlm.errors import UserError, first_line


def load_tokenizer(path: str | Path) -> PreTrainedTokenizerFast:
    """Loads a fast tokenizer that can mask.

    Args:
        path: a folder or a Hub id.

    Raises:
        UserError: there is no tokenizer, it is not a fast one, or it has no mask or padding token.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    except Exception as error:  # the tokenizers library raises a bare one for a broken file
        if "trust_remote_code" in str(error):
            raise UserError(
                f"tokenizer {str(path)!r} needs code of its own (auto_map), which is never run; "
                "use one that transformers has"
            ) from error
        raise UserError(
            f"tokenizer.name_or_path {str(path)!r} holds no tokenizer: {first_line(error)}"
        ) from error
    return check_tokenizer(tokenizer, str(path))


def check_tokenizer(tokenizer: PreTrainedTokenizerFast, name: str) -> PreTrainedTokenizerFast:
    """Returns the tokenizer if it can serve a masked language model."""
    if not tokenizer.is_fast:
        raise UserError(f"tokenizer {name!r} has no fast version (tokenizer.json); convert it first")
    for role in ("mask_token", "pad_token"):
        if getattr(tokenizer, role) is None:
            raise UserError(
                f"tokenizer {name!r} has no {role}, which a masked language model needs; "
                "use the tokenizer of a masked language model or train one (tokenizer.train_vocab_size)"
            )
    return tokenizer


def save_tokenizer_folder(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Writes a tokenizer that `load_tokenizer` loads.

    Raises:
        OSError: the folder cannot be written.
    """
    try:
        tokenizer.save_pretrained(folder)
    except OSError:
        raise
    except Exception as error:  # the tokenizers library raises a bare one, with the number in its text
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(folder)) from error
