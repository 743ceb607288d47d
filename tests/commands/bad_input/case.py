"""A mistake as a case: the command, and a part of what is said to it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

CONFIG = """
run: {{name: bad, output_dir: {folder}/run}}
data: {{source: text, train_files: [{folder}/texts.txt], block_size: 32}}
model: {{name_or_path: {folder}/model}}
train: {{max_steps: 1, per_replica_batch_size: 2}}
export: {{enabled: false}}
"""
CONFIG_PATH = "{folder}/config.yaml"
TRAIN = f"train {CONFIG_PATH}"

Arrange = Callable[[Path], None]


@dataclass(frozen=True)
class Case:
    """A mistake: what it is, how it comes about in a folder, the command, and what the answer says."""

    mistake: str
    command: str
    says: str
    arrange: Arrange = lambda folder: None

    def make_arguments(self, folder: Path) -> list[str]:
        return [word.replace("\u00a0", " ").format(folder=folder) for word in self.command.split(" ")]
