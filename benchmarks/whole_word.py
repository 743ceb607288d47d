"""Row: what whole-word masking costs the pipeline, against plain masking of the same blocks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from benchmarks.material import open_material, pack
from benchmarks.measure import Row, Size
from benchmarks.pipeline import make_ours, measure_rates
from tfmlm.data.blocks import PackedBlocks
from tfmlm.library_logging import quieten_libraries


def measure(folder: Path, size: Size) -> Row:
    """Ours: whole words. The peer: the project's own plain masking."""
    quieten_libraries()
    material = open_material(folder, size)
    with_words = pack(material.texts, material.tokenizer, size, folder / "words.arrow", with_words=True)
    whole_word = replace(material.config.masking, whole_word=True)
    rates = measure_rates(
        {
            "ours": make_ours(PackedBlocks(with_words.table), material, size, whole_word),
            "plain": make_ours(PackedBlocks(material.blocks), material, size),
        },
        size,
    )
    return Row(
        unit="tokens/s",
        ours=rates["ours"],
        peer=rates["plain"],
        higher_is_better=True,
        notes=["the peer is plain masking"],
    )
