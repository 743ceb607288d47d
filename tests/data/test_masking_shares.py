"""Masks come in the promised shares, and independently, on a million tokens."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from tests.data.blocks import (
    MASK,
    UNK,
    VOCABULARY,
    Arrays,
    apply_collator,
    make_blocks,
    make_collator,
)
from tfmlm.data.masking import IGNORE_LABEL

SMALLEST_P_VALUE = 1e-3
"""The seeds are fixed, so a test passes always or never."""


@pytest.fixture(scope="module", params=[0, 1, 2**40])
def million_masked(request: pytest.FixtureRequest) -> Arrays:
    blocks = make_blocks(np.full((4096, 256), UNK))
    return apply_collator(make_collator(seed=request.param), blocks)


def test_the_share_of_chosen_tokens_is_the_rate(million_masked: Arrays) -> None:
    chosen = million_masked["labels"] != IGNORE_LABEL
    observed = [chosen.sum(), (~chosen).sum()]
    expected = [0.15 * chosen.size, 0.85 * chosen.size]
    assert stats.chisquare(observed, expected).pvalue > SMALLEST_P_VALUE


def test_chosen_tokens_are_masked_replaced_and_kept_80_10_10(million_masked: Arrays) -> None:
    chosen = million_masked["labels"] != IGNORE_LABEL
    shown = million_masked["input_ids"][chosen]
    observed = [(shown == MASK).sum(), (shown > MASK).sum(), (shown == UNK).sum()]
    assert sum(observed) == chosen.sum()
    expected = np.array([0.8, 0.1, 0.1]) * chosen.sum()
    assert stats.chisquare(observed, expected).pvalue > SMALLEST_P_VALUE


def test_random_words_are_uniform(million_masked: Arrays) -> None:
    shown = million_masked["input_ids"]
    counts = np.bincount(shown[shown > MASK], minlength=37)[VOCABULARY.random_ids]
    assert counts.sum() > 14_000
    assert stats.chisquare(counts).pvalue > SMALLEST_P_VALUE


def test_no_position_and_no_example_is_preferred(million_masked: Arrays) -> None:
    chosen = million_masked["labels"] != IGNORE_LABEL
    for axis in (0, 1):
        counts = chosen.sum(axis=axis)
        # The variance of a binomial count is smaller than a Poisson's, which `chisquare` takes it for.
        statistic = ((counts - counts.mean()) ** 2).sum() / (chosen.shape[axis] * 0.15 * 0.85)
        assert SMALLEST_P_VALUE < stats.chi2.cdf(statistic, len(counts) - 1) < 1 - SMALLEST_P_VALUE


def test_neighbours_examples_epochs_and_seeds_are_independent() -> None:
    blocks = make_blocks(np.full((1024, 128), UNK))

    def choose(epoch: int, seed: int) -> NDArray:
        return apply_collator(make_collator(rate=0.5, seed=seed), blocks, epoch)["labels"] != IGNORE_LABEL

    first = choose(epoch=0, seed=0)
    pairs = {
        "next position": (first[:, :-1], first[:, 1:]),
        "next example": (first[:-1], first[1:]),
        "next epoch": (first, choose(epoch=1, seed=0)),
        "next seed": (first, choose(epoch=0, seed=1)),
        # With one sum for a key, example 1 of epoch 0 would get the masks of example 0 of epoch 1.
        "epoch for example": (first[1:], choose(epoch=1, seed=0)[:-1]),
        "seed for epoch": (choose(epoch=1, seed=0), choose(epoch=0, seed=1)),
    }
    for name, (left, right) in pairs.items():
        table = np.histogram2d(left.ravel(), right.ravel(), bins=2)[0]
        assert stats.chi2_contingency(table).pvalue > SMALLEST_P_VALUE, name
