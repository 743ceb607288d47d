"""Row: tokens a second from texts to blocks, in one process."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from benchmarks.material import TEXT, open_material
from benchmarks.measure import Row, Size, alternate, show
from benchmarks.recipe import map_and_group
from tfmlm.data.blocks import write_blocks
from tfmlm.data.packing import BlockFormat, pack_texts
from tfmlm.library_logging import quieten_libraries


def measure(folder: Path, size: Size) -> Row:
    """Ours: `pack_texts` into a file. The recipe: `map` and group. The floor: the Rust tokenizer alone."""
    quieten_libraries()  # and turns the cache of `map` off
    material = open_material(folder, size)
    batches = [batch[TEXT] for batch in material.texts.iter(1000)]
    tokenizer = make_raw_tokenizer(material.tokenizer)
    num_tokens = sum(len(encoding) for batch in batches for encoding in tokenizer.encode_batch_fast(batch))

    def run_raw() -> None:
        for batch in batches:
            tokenizer.encode_batch_fast(batch)

    def run_ours() -> None:
        texts = (batch[TEXT] for batch in material.texts.iter(1000))
        block_format = BlockFormat(size.block_size, material.tokenizer.pad_token_id)
        with tempfile.TemporaryDirectory() as target:
            write_blocks(pack_texts(texts, material.tokenizer, block_format), Path(target, "blocks.arrow"))

    def run_recipe() -> None:
        map_and_group(material.guide_texts, material.tokenizer, size.block_size)

    rates = alternate(
        {
            "ours": lambda: num_tokens / time_call(run_ours),
            "recipe": lambda: num_tokens / time_call(run_recipe),
            "raw": lambda: num_tokens / time_call(run_raw),
        },
        size.num_repeats,
    )
    raw = median(rates["raw"])
    return Row(
        unit="tokens/s",
        ours=rates["ours"],
        peer=rates["recipe"],
        higher_is_better=True,
        notes=[
            f"raw tokenizer {show(raw)}, ours is {median(rates['ours']) / raw:.0%} of it",
            f"{len(material.texts):,} texts, {num_tokens:,} tokens",
        ],
    )


def make_raw_tokenizer(tokenizer: PreTrainedTokenizerFast) -> Tokenizer:
    """The Rust tokenizer, which cuts and pads nothing."""
    raw = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    raw.no_truncation()
    raw.no_padding()
    return raw


def time_call(run: Callable[[], None]) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
