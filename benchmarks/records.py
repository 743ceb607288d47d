"""Row: tokens a second from TFRecord shards to masked batches, shuffled, with nothing in Python."""

from __future__ import annotations

from pathlib import Path
from statistics import median

from benchmarks.material import open_material
from benchmarks.measure import Row, Size, show
from benchmarks.pipeline import make_ours, make_recipe, measure_rates
from tfmlm.data.blocks import PackedBlocks, ShardedBlocks
from tfmlm.data.masking import MaskableVocabulary, MaskingCollator
from tfmlm.data.packing import Columns
from tfmlm.data.shards import write_shard
from tfmlm.library_logging import quieten_libraries

_NUM_SHARDS = 4


def measure(folder: Path, size: Size) -> Row:
    """Ours: shards through `make_training_batches`. The floor: masking alone, of blocks in memory."""
    quieten_libraries()
    material = open_material(folder, size)
    blocks = PackedBlocks(material.blocks)
    collator = MaskingCollator(
        MaskableVocabulary.from_tokenizer(material.tokenizer), material.config.masking, seed=0
    )
    in_memory = blocks.read_shuffled(seed=0, first=0, last=size.num_batches * size.blocks_per_step).cache()
    masked = in_memory.repeat(8).map(lambda chunk: collator(chunk, epoch=chunk["epoch"]))
    rates = measure_rates(
        {
            "ours": make_ours(write_shards(folder, blocks, size), material, size),
            "recipe": make_recipe(folder, material, size),
            "masked": masked.rebatch(size.blocks_per_step),
        },
        size,
    )
    floor = median(rates["masked"])
    return Row(
        unit="tokens/s",
        ours=rates["ours"],
        peer=rates["recipe"],
        higher_is_better=True,
        notes=[
            f"masking alone, from memory, {show(floor)}, ours is {median(rates['ours']) / floor:.0%} of it"
        ],
    )


def write_shards(folder: Path, blocks: PackedBlocks, size: Size) -> ShardedBlocks:
    """The material's blocks as `tfmlm prepare` would write them."""
    columns: Columns = blocks.table.with_format("numpy")[:]
    shards = tuple(
        write_shard(
            str(folder),
            f"train-{index:05d}.tfrecord",
            [{name: column[index::_NUM_SHARDS] for name, column in columns.items()}],
        )
        for index in range(_NUM_SHARDS)
    )
    return ShardedBlocks(str(folder), shards, size.block_size, with_words=False)
