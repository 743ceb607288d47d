"""A folder to push: as much of a trained model as a push looks at."""

from pathlib import Path

from tfmlm.config import Config, HubConfig, ModelConfig
from tfmlm.config.load import dump_config

COMMIT = r"^POST /api/models/me/mine/commit/main"


def write_model(folder: Path) -> Path:
    folder.mkdir()
    (folder / "README.md").write_text("---\nlibrary_name: transformers\n---\n")
    (folder / "config.json").write_text('{"model_type": "bert"}')
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 4000)
    config = Config(model=ModelConfig(name_or_path="bert"), hub=HubConfig(repo_id="me/mine"))
    (folder / "run_config.yaml").write_text(dump_config(config))
    return folder
