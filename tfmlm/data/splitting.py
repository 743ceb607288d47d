"""Which texts are used and which are held out: a choice by a hash of what a text says.

So the choice is the same in whatever order, and on however many machines, the texts are read, and equal
texts never lie on both sides.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import xxhash

from tfmlm.config import DataConfig
from tfmlm.data.sources import open_training_texts, open_validation_texts
from tfmlm.data.text_stream import TextStream
from tfmlm.errors import UserError

_EVERY_HASH = 2**64


class Texts(NamedTuple):
    """The texts to train on, those held out, and how they were told apart."""

    train: TextStream
    validation: TextStream
    split: TextSplit


@dataclass(frozen=True)
class TextSplit:
    """Divides texts by two hashes, each uniform in [0, 2**64).

    Attributes:
        seed: of the hashes.
        used_below: a text is used if its first hash is below.
        held_out_below: a used text is held out if its second hash is below.
    """

    seed: int
    used_below: int = _EVERY_HASH
    held_out_below: int = 0

    def choose_training(self, texts: list[str]) -> list[str]:
        """The texts of a batch to train on."""
        return [text for text in self.choose_used(texts) if self.second_hash(text) >= self.held_out_below]

    def choose_held_out(self, texts: list[str]) -> list[str]:
        """The held-out texts of a batch."""
        return [text for text in self.choose_used(texts) if self.second_hash(text) < self.held_out_below]

    def choose_used(self, texts: list[str]) -> list[str]:
        """Both kinds."""
        if self.used_below == _EVERY_HASH:
            return texts
        return [text for text in texts if self.first_hash(text) < self.used_below]

    def first_hash(self, text: str) -> int:
        """Decides whether a text is used."""
        return xxhash.xxh3_64_intdigest(text.encode(), seed=2 * self.seed % 2**64)

    def second_hash(self, text: str) -> int:
        """Decides whether a used text is held out."""
        return xxhash.xxh3_64_intdigest(text.encode(), seed=(2 * self.seed + 1) % 2**64)


def load_texts(data: DataConfig, seed: int, split: TextSplit | None = None) -> Texts:
    """Opens the configured texts and holds some out.

    Args:
        data: the source.
        seed: chooses the texts of `data.max_rows` and the held-out ones.
        split: a choice made before, which saves a pass over the texts.

    Raises:
        UserError: a file, column or dataset is missing or holds no text; the message names it.
    """
    texts, validation = open_training_texts(data), open_validation_texts(data)
    if data.streaming and data.max_rows:
        texts = texts.take(data.max_rows)
    split = split or choose_split(texts, data, seed, holds_out=validation is None)
    return Texts(
        train=texts.select(split.choose_training, f"training {split}"),
        validation=validation or texts.select(split.choose_held_out, f"held out {split}"),
        split=split,
    )


def choose_split(texts: TextStream, data: DataConfig, seed: int, holds_out: bool) -> TextSplit:
    """Sets the two limits so that `data.max_rows` and `data.validation_fraction` hold.

    The number of held-out texts is near the fraction, not exact, and at least one.
    """
    split = TextSplit(seed)
    if data.max_rows and not data.streaming:
        split = replace(split, used_below=_find_limit(map(split.first_hash, _flatten(texts)), data.max_rows))
    if not holds_out:
        if next(iter(texts), None) is None:
            raise UserError(_describe_nothing(texts, data))
        return split
    split = replace(split, held_out_below=int(data.validation_fraction * _EVERY_HASH))

    num_texts = num_held_out = 0
    smallest = largest = None
    for text in _flatten(map(split.choose_used, texts)):
        value = split.second_hash(text)
        num_texts += 1
        num_held_out += value < split.held_out_below
        smallest, largest = min(value, smallest or value), max(value, largest or value)
        if 0 < num_held_out < num_texts:
            return split
    if num_texts == 0:
        raise UserError(_describe_nothing(texts, data))
    if smallest is None or smallest == largest:
        same = ", all the same" if num_texts > 1 else ""
        raise UserError(
            f"data.source {data.source!r} holds {num_texts} text{'s' * (num_texts > 1)}{same}; at least 2 "
            "are needed to hold one out; give more text or name data.validation_files"
        )
    if num_held_out:
        raise UserError(
            f"data.validation_fraction {data.validation_fraction} of {num_texts} texts leaves none to train "
            "on; give more text or a smaller fraction"
        )
    return replace(split, held_out_below=smallest + 1)


def _find_limit(hashes: Iterable[int], num_texts: int) -> int:
    """The limit that at most `num_texts` of the hashes are below."""
    values = np.fromiter(hashes, np.uint64)
    return int(np.partition(values, num_texts)[num_texts]) if num_texts < len(values) else _EVERY_HASH


def _flatten(batches: Iterable[list[str]]) -> Iterable[str]:
    return (text for batch in batches for text in batch)


def _describe_nothing(texts: TextStream, data: DataConfig) -> str:
    bad_row = next(iter(texts.bad_rows.values()), None)
    why = f"; the first row left out is {bad_row}" if bad_row else ""
    return f"data.source {data.source!r} holds no text in column {data.text_column!r}{why}"
