"""A sequence of texts that is read from its source on every pass, so that its size does not matter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from tfmlm.data.files import BadRow


@dataclass(frozen=True)
class TextStream:
    """Texts in a fixed order, none of them blank.

    Attributes:
        num_parts: files or shards that can be read apart; in turn they are the whole.
        read_part: reads one of them, in batches.
        fingerprint: a hash of everything that decides which texts come; it may read the whole source.
        bad_rows: rows that were left out of the parts read so far, by file.
    """

    num_parts: int
    read_part: Callable[[int], Iterator[list[str]]]
    fingerprint: Callable[[], str]
    bad_rows: dict[str, BadRow] = field(default_factory=dict)

    def __iter__(self) -> Iterator[list[str]]:
        """Batches of texts, no batch empty."""
        for part in range(self.num_parts):
            yield from filter(None, self.read_part(part))

    def select(self, choose: Callable[[list[str]], list[str]], name: str) -> TextStream:
        """The texts that `choose` keeps of each batch; `name` tells the choice apart in the fingerprint."""
        return replace(
            self,
            read_part=lambda part: map(choose, self.read_part(part)),
            fingerprint=lambda: f"{self.fingerprint()} {name}",
        )

    def take(self, num_texts: int) -> TextStream:
        """The first texts, in one part."""
        return replace(
            self,
            num_parts=1,
            read_part=lambda _: self._read_first(num_texts),
            fingerprint=lambda: f"{self.fingerprint()} first {num_texts}",
        )

    def keep_in_memory(self) -> TextStream:
        """The same texts, read once and kept."""
        batches = list(self)
        return replace(self, num_parts=1, read_part=lambda _: iter(batches))

    def _read_first(self, num_texts: int) -> Iterator[list[str]]:
        missing = num_texts
        for batch in self:
            yield batch[:missing]
            missing -= len(batch)
            if missing <= 0:
                return
