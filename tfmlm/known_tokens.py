"""The tokens that this process knows, so that none of them ends up in a file."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from huggingface_hub import constants

_VARIABLES = (
    *("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "TFMLM_SERVING_TOKEN"),
    *("WANDB_API_KEY", "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_PASSWORD"),
)

_SURE_LENGTH = 8
"""Characters of a token that is none by chance, and so is looked for within a value."""


def holds_token(value: object, tokens: Iterable[str]) -> bool:
    """Whether a value is one of `list_known_tokens`, or a text that holds one."""
    text = str(value)
    return any(token in text if len(token) >= _SURE_LENGTH else token == value for token in tokens)


def list_known_tokens() -> list[str]:
    """The tokens of the environment and of the Hub's login."""
    tokens = [os.environ.get(name, "") for name in _VARIABLES]
    for path in (constants.HF_TOKEN_PATH, constants.HF_STORED_TOKENS_PATH):
        try:
            # The second file has lines such as `hf_token = …`, one for each name.
            lines = Path(path).read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError):
            continue
        tokens += [line.rpartition("=")[2] for line in lines]
    return [token.strip() for token in tokens if token.strip()]
