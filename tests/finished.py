"""A finished run for each family of tokenizers, with its model, its export and its card."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from tests.hub.interface import TOKEN
from tests.pytorch_folder import write_hub_folder
from tests.tiny import SENTENCES, with_one_layer
from tests.tiny_run import make_config
from tfmlm.config import Config, ExportConfig, HubConfig, ModelConfig, TokenizerConfig
from tfmlm.config.load import load_config


@dataclass(frozen=True)
class Finished:
    """What one run has left in a folder."""

    folder: Path

    @property
    def run_dir(self) -> Path:
        return self.folder / "run"

    @property
    def model_dir(self) -> Path:
        return self.run_dir / "model"

    @property
    def version(self) -> Path:
        """The only version of its export."""
        return self.folder / "secret-place" / "exports" / "tiny-export" / "1"

    @property
    def config(self) -> Config:
        return load_config(self.run_dir / "config.yaml")


TEXTS = ["Return the {mask} size.", "Load the {mask} of the {mask}, if it exists."]
"""Samples of each run, with one mask and with several."""


def finish_run(folder: Path, tokenizer: PreTrainedTokenizerFast, model: ModelConfig) -> None:
    """Trains, exports and writes the card; the paths, the license and the token are what a card must heed."""
    from tfmlm.run import run

    place = folder / "secret-place"
    place.mkdir()
    (place / "docs.txt").write_text("\n".join(SENTENCES * 4), encoding="utf-8")
    tokenizer.save_pretrained(place / "tokenizer")
    tiny = make_config(folder, place / "docs.txt", evaluate_every_steps=4)
    config = replace(
        tiny,
        run=replace(
            tiny.run, name="tiny", sample_texts=[text.format(mask=tokenizer.mask_token) for text in TEXTS]
        ),
        tokenizer=TokenizerConfig(name_or_path=str(place / "tokenizer")),
        model=model,
        export=ExportConfig(dir=str(place / "exports"), name="tiny-export", text_signature="require"),
        hub=HubConfig(license="apache-2.0", language=["en"]),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_TOKEN", TOKEN)
        run(config)


def finish_from_scratch(folder: Path, tokenizer: PreTrainedTokenizerFast, model_type: str) -> None:
    """A new model of one layer."""
    finish_run(folder, tokenizer, ModelConfig(config={"model_type": model_type} | with_one_layer(model_type)))


def finish_from_hub(folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """A RoBERTa of two layers from a folder in the Hub's layout."""
    write_hub_folder(folder / "hub", tokenizer)
    finish_run(folder, tokenizer, ModelConfig(name_or_path=str(folder / "hub")))
