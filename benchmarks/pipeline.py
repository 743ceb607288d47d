"""Row: tokens a second from blocks to masked batches."""

from __future__ import annotations

import time
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
from benchmarks.material import open_material
from benchmarks.measure import Row, Size, alternate, show
from tfmlm.data.masking import MaskableVocabulary, MaskingCollator
from tfmlm.data.pipeline import make_training_batches
from tfmlm.quiet import quieten_libraries

_WARM_UP_BATCHES = 16


def measure(folder: Path, size: Size) -> Row:
    """Ours: `make_training_batches`. The recipe: its collator. The floor: a collator that only stacks."""
    quieten_libraries()
    material = open_material(folder, size)
    num_batches = _WARM_UP_BATCHES + size.num_batches
    vocabulary = MaskableVocabulary.from_tokenizer(material.tokenizer)
    ours = make_training_batches(
        material.blocks,
        MaskingCollator(vocabulary, material.config.masking, seed=0),
        seed=0,
        first_step=0,
        last_step=num_batches,
        global_batch_size=size.blocks_per_step,
    )
    model = TFAutoModelForMaskedLM.from_pretrained(folder / "model")
    blocks = recipe.to_recipe_blocks(material.blocks)
    theirs = recipe.make_batches(model, blocks, material.tokenizer, size.blocks_per_step)
    stacked = model.prepare_tf_dataset(
        blocks, shuffle=True, batch_size=size.blocks_per_step, collate_fn=_stack
    )
    contenders = {"ours": ours, "recipe": theirs.repeat(), "stacked": stacked.repeat()}
    rates = alternate(
        {name: partial(time_batches, batches, size) for name, batches in contenders.items()},
        size.num_repeats,
    )
    floor = median(rates["stacked"])
    return Row(
        unit="tokens/s",
        ours=rates["ours"],
        recipe=rates["recipe"],
        higher_is_better=True,
        notes=[
            f"stacking alone {show(floor)}, ours is {median(rates['ours']) / floor:.0%} of it",
            f"batches of {size.blocks_per_step} x {size.block_size}",
        ],
    )


def time_batches(batches: tf.data.Dataset, size: Size) -> float:
    """Tokens a second over `num_batches` batches, after a warm-up."""
    iterator = iter(batches)
    for _ in islice(iterator, _WARM_UP_BATCHES):
        pass
    start = time.perf_counter()
    num_batches = sum(1 for _ in islice(iterator, size.num_batches))
    return num_batches * size.tokens_per_step / (time.perf_counter() - start)


def _stack(rows: list[dict[str, Any]]) -> dict[str, NDArray[Any]]:
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}
