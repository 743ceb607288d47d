"""Blocks of a stream by column, compared and counted."""

from collections import Counter

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tfmlm.config import Config, DataConfig

BLOCK_SIZE = 16
WINDOW = 50

Rows = dict[str, NDArray]


def change(config: Config, **settings: object) -> Config:
    return Config(**(vars(config) | {"data": DataConfig(**(vars(config.data) | settings))}))


def read(chunks: tf.data.Dataset) -> Rows:
    """All blocks of a dataset, by column."""
    columns = list(chunks.as_numpy_iterator())
    return {name: np.concatenate([chunk[name] for chunk in columns]) for name in columns[0]}


def assert_same(left: Rows, right: Rows) -> None:
    assert left.keys() == right.keys()
    for name, column in left.items():
        np.testing.assert_array_equal(column, right[name], err_msg=name)
        assert column.dtype == right[name].dtype


def select_epoch(rows: Rows, epoch: int) -> Rows:
    return {name: column[rows["epoch"] == epoch] for name, column in rows.items()}


def count_rows(rows: Rows) -> Counter[tuple[object, ...]]:
    names = sorted(rows.keys() - {"epoch"})
    return Counter(zip(*([tuple(np.ravel(row)) for row in rows[name]] for name in names), strict=True))
