"""Texts packed into a file of blocks, as a run has them."""

from pathlib import Path

from transformers import PreTrainedTokenizerFast

from tfmlm.data.blocks import PackedBlocks, open_blocks, write_blocks
from tfmlm.data.packing import BlockFormat, pack_texts


def pack(
    texts: list[str],
    tokenizer: PreTrainedTokenizerFast,
    block_size: int,
    path: Path,
    with_words: bool = False,
) -> PackedBlocks:
    block_format = BlockFormat(block_size, tokenizer.pad_token_id, with_words)
    write_blocks(pack_texts([texts], tokenizer, block_format), path)
    return open_blocks(path)
