"""Chooses the pieces that would save a text the most tokens, for a vocabulary to grow by.

Every candidate is a run of neighbouring tokens inside one word. The one that saves the most is joined
wherever it stands, all that this changes is counted anew, and so on: byte-pair encoding (Sennrich et al.
2016, https://arxiv.org/abs/1508.07909) that begins with a tokenizer's own tokens, and joins more than two.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

Word = tuple[str, ...]
"""A word as its tokens."""

_FEWEST_PLACES = 2
"""In which a piece must stand: what stands once is learned from nothing else."""

_LONGEST_PIECE = 40
"""Characters; what is longer is a line of signs, or a hash."""


class Run(NamedTuple):
    """Neighbouring tokens that become one.

    Attributes:
        tokens: those of the vocabulary so far, earlier choices included.
        piece: the new entry.
    """

    tokens: tuple[str, ...]
    piece: str


def choose_runs(
    words: Mapping[Word, int],
    join: Callable[[tuple[str, ...]], str],
    most: int,
    longest: int,
    excluded: Collection[str],
) -> list[Run]:
    """The runs that save the most tokens, the best first; of equals, the first in the order of the alphabet.

    Args:
        words: how often each word stands in the text.
        join: what tokens are as one entry.
        most: runs to choose.
        longest: tokens of a run.
        excluded: entries that may not be chosen.
    """
    return _Choice(words, join, longest, excluded).choose(most)


class _Choice:
    """The words as they are cut so far, and what each candidate would save."""

    def __init__(
        self,
        words: Mapping[Word, int],
        join: Callable[[tuple[str, ...]], str],
        longest: int,
        excluded: Collection[str],
    ) -> None:
        self._words = list(words)
        self._counts = list(words.values())
        self._join = join
        self._longest = longest
        self._excluded = excluded
        self._saved: Counter[Run] = Counter()
        # Words that a candidate has stood in; some no longer hold it.
        self._holders: defaultdict[Run, set[int]] = defaultdict(set)
        for number in range(len(self._words)):
            self._count(number, 1)
        self._queue = [(-saved, run) for run, saved in self._saved.items()]
        heapq.heapify(self._queue)

    def choose(self, most: int) -> list[Run]:
        chosen: list[Run] = []
        pieces: set[str] = set()
        while self._queue and len(chosen) < most:
            saved, run = heapq.heappop(self._queue)
            if self._saved[run] != -saved:  # an earlier choice has taken some of it, or added to it
                continue
            if -saved < _FEWEST_PLACES * (len(run.tokens) - 1) or run.piece in pieces:
                continue
            chosen.append(run)
            pieces.add(run.piece)
            self._replace(run)
        return chosen

    def _replace(self, run: Run) -> None:
        """Joins the run wherever it stands."""
        touched: set[Run] = set()
        for number in sorted(self._holders.pop(run)):
            touched |= self._count(number, -1)
            self._words[number] = _join_run(self._words[number], run)
            touched |= self._count(number, 1)
        for other in touched:
            if self._saved[other] > 0:
                heapq.heappush(self._queue, (-self._saved[other], other))

    def _count(self, number: int, sign: int) -> set[Run]:
        """Adds what the runs of a word would save, or takes it away; returns these runs."""
        word, count = self._words[number], self._counts[number]
        runs = set()
        for start in range(len(word) - 1):
            for end in range(start + 2, min(start + self._longest, len(word)) + 1):
                tokens = word[start:end]
                piece = self._join(tokens)
                if len(piece) > _LONGEST_PIECE:
                    break
                if piece in self._excluded:
                    continue
                run = Run(tokens, piece)
                self._saved[run] += sign * count * (len(tokens) - 1)
                if sign > 0:
                    self._holders[run].add(number)
                runs.add(run)
        return runs


def _join_run(word: Word, run: Run) -> Word:
    """The word with each run as one token, from the left."""
    joined: list[str] = []
    place = 0
    while place < len(word):
        if word[place : place + len(run.tokens)] == run.tokens:
            joined.append(run.piece)
            place += len(run.tokens)
        else:
            joined.append(word[place])
            place += 1
    return tuple(joined)
