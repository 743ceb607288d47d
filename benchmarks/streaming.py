"""Row: tokens a second of one pass from a text file to masked batches, streamed or packed first."""

from __future__ import annotations

import json
import os
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks.material import TEXT, Material, open_material
from benchmarks.measure import Row, Size, alternate
from tfmlm.config import Config, DataConfig, TokenizerConfig
from tfmlm.data.masking import MaskableVocabulary, MaskingCollator
from tfmlm.data.pipeline import make_training_batches
from tfmlm.data.prepare import prepare_data
from tfmlm.library_logging import quieten_libraries


def measure(folder: Path, size: Size) -> Row:
    """Ours: `data.streaming`. The peer: the project's own packing into a file, then reading it."""
    quieten_libraries()
    material = open_material(folder, size)
    path = folder / "texts.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for copy in range(size.num_copies):
            file.writelines(json.dumps({TEXT: f"{copy} {text}"}) + "\n" for text in material.texts[TEXT])
    config = replace(
        material.config,
        data=DataConfig(
            source="json", train_files=[str(path)], validation_fraction=0.001, block_size=size.block_size
        ),
        tokenizer=TokenizerConfig(name_or_path=material.config.model.name_or_path),
    )
    streamed = replace(config, data=replace(config.data, streaming=True))
    num_steps = size.num_copies * len(material.blocks) // size.blocks_per_step - 1
    rates = alternate(
        {
            "streamed": partial(time_pass, streamed, material, size, num_steps),
            "packed": partial(time_pass, config, material, size, num_steps),
        },
        size.num_repeats,
    )
    return Row(
        unit="tokens/s",
        ours=rates["streamed"],
        peer=rates["packed"],
        higher_is_better=True,
        notes=["the peer packs into a file first; one pass from the text file, tokenizing included"],
    )


def time_pass(config: Config, material: Material, size: Size, num_steps: int) -> float:
    """Tokens a second from an empty cache to the last batch."""
    collator = MaskingCollator(MaskableVocabulary.from_tokenizer(material.tokenizer), config.masking, seed=0)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TFMLM_CACHE"] = cache
        start = time.perf_counter()
        data = prepare_data(config)
        batches = make_training_batches(data.train, collator, 0, 0, num_steps, size.blocks_per_step)
        num_batches = sum(1 for _ in batches)
        return num_batches * size.tokens_per_step / (time.perf_counter() - start)
