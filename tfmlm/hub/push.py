"""Uploads a model folder to the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from tfmlm.config import HubConfig
from tfmlm.errors import UserError


def push_model(model_dir: Path, config: HubConfig) -> str:
    """Uploads `model_dir` as one commit, making the repository if need be.

    The token is the environment's (`HF_TOKEN`) or the login's.

    Returns:
        The address of the repository.

    Raises:
        UserError: the Hub refused or could not be reached. The model on disk is untouched.
    """
    if not config.repo_id:
        raise UserError("hub.repo_id is empty; set it to a name such as me/my-model")
    api = HfApi()
    try:
        repository = api.create_repo(config.repo_id, private=config.private, exist_ok=True)
        api.upload_folder(
            folder_path=model_dir,
            repo_id=repository.repo_id,
            commit_message="Upload masked language model",
        )
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"push of {str(model_dir)!r} to {config.repo_id!r} failed: {reason}; the model is safe on disk, "
            f"`tfmlm push {model_dir} hub.repo_id={config.repo_id}` tries again"
        ) from error
    return str(repository)
