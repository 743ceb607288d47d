"""Row: tokens a second from blocks to masked batches, through `prepare_tf_dataset`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from transformers import TFAutoModelForMaskedLM

from benchmarks import recipe
from benchmarks.material import Material, open_material
from benchmarks.measure import Row, Size, alternate, show
from tfmlm.config import MaskingConfig
from tfmlm.data.blocks import Blocks, PackedBlocks
from tfmlm.data.masking import MaskableVocabulary, MaskingCollator
from tfmlm.data.pipeline import make_training_batches
from tfmlm.library_logging import quieten_libraries

_WARM_UP_BATCHES = 16
_OUR_BATCHES = 8
"""Times `num_batches`: ours is faster, and its start is in the measurement."""


def measure(folder: Path, size: Size) -> Row:
    """Ours: `make_training_batches`. The recipe: its collator. The floor: a collator that only stacks."""
    quieten_libraries()
    material = open_material(folder, size)
    model = TFAutoModelForMaskedLM.from_pretrained(folder / "model")
    blocks = recipe.to_recipe_blocks(material.blocks)
    stacked = model.prepare_tf_dataset(
        blocks, shuffle=True, batch_size=size.blocks_per_step, collate_fn=_stack
    )
    rates = measure_rates(
        {
            "ours": make_ours(PackedBlocks(material.blocks), material, size),
            "recipe": make_recipe(folder, material, size),
            "stacked": stacked.repeat().take(size.num_batches),
        },
        size,
    )
    floor = median(rates["stacked"])
    return Row(
        unit="tokens/s",
        ours=rates["ours"],
        peer=rates["recipe"],
        higher_is_better=True,
        notes=[
            f"stacking alone {show(floor)}, ours is {median(rates['ours']) / floor:.0%} of it",
            f"batches of {size.blocks_per_step} x {size.block_size}",
        ],
    )


def make_ours(
    blocks: Blocks, material: Material, size: Size, masking: MaskingConfig | None = None
) -> tf.data.Dataset:
    """The project's batches, as training reads them."""
    vocabulary = MaskableVocabulary.from_tokenizer(material.tokenizer)
    return make_training_batches(
        blocks,
        MaskingCollator(vocabulary, masking or material.config.masking, seed=0),
        seed=0,
        first_step=0,
        last_step=size.num_batches * _OUR_BATCHES,
        global_batch_size=size.blocks_per_step,
    )


def make_recipe(folder: Path, material: Material, size: Size) -> tf.data.Dataset:
    """The guide's batches."""
    model = TFAutoModelForMaskedLM.from_pretrained(folder / "model")
    blocks = recipe.to_recipe_blocks(material.blocks)
    batches = recipe.make_batches(model, blocks, material.tokenizer, size.blocks_per_step)
    return batches.repeat().take(size.num_batches)


def measure_rates(contenders: Mapping[str, tf.data.Dataset], size: Size) -> dict[str, list[float]]:
    """Tokens a second of each, in every repeat."""
    runs = {name: partial(time_batches, batches, size) for name, batches in contenders.items()}
    return alternate(runs, size.pipeline_repeats)


def time_batches(batches: tf.data.Dataset, size: Size) -> float:
    """Tokens a second from the first batch to the last, the start of the pipeline included."""
    for _ in islice(iter(batches), _WARM_UP_BATCHES):
        pass
    start = time.perf_counter()
    num_batches = sum(1 for _ in batches)
    return num_batches * size.tokens_per_step / (time.perf_counter() - start)


def _stack(rows: list[dict[str, Any]]) -> dict[str, NDArray[Any]]:
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}
