"""Signatures: their inputs and outputs, and a check that arrays fit."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tfmlm.preview.status import invalid

Arrays = dict[str, NDArray[Any]]
"""Arrays by name; strings are `bytes` in object arrays."""

MAX_RANK = 32
"""Dimensions of an input; NumPy has 64 at most."""


@dataclass(frozen=True)
class TensorSpec:
    """One input or output.

    Attributes:
        name: name in the signature.
        dtype: NumPy's dtype, `object` for strings.
        type_name: TensorFlow's name of it, such as `string`.
        shape: sizes, None where any will do; None for any rank.
    """

    name: str
    dtype: np.dtype[Any]
    type_name: str
    shape: tuple[int | None, ...] | None

    def fits(self, shape: tuple[int, ...]) -> bool:
        """True for the shape of an array that may be given."""
        if self.shape is None:
            return True
        return len(shape) == len(self.shape) and all(
            wanted is None or wanted == size for wanted, size in zip(self.shape, shape, strict=True)
        )

    @property
    def is_batch(self) -> bool:
        """True if dimension 0 is free, as that of a batch is."""
        return bool(self.shape) and self.shape is not None and self.shape[0] is None

    def describe_shape(self) -> str:
        """Such as [?,128]."""
        if self.shape is None:
            return "of any rank"
        return "[" + ",".join("?" if size is None else str(size) for size in self.shape) + "]"


@dataclass(frozen=True)
class Signature:
    """A function of a SavedModel.

    Attributes:
        name: its name.
        method_name: such as `tensorflow/serving/predict`.
        inputs: what it takes, by name.
        outputs: what it gives, by name.
        call: runs it.
    """

    name: str
    method_name: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    call: Callable[[Arrays], Arrays]

    @property
    def is_batched(self) -> bool:
        """True if dimension 0 of everything is the batch, so that requests can be run together."""
        specs = (*self.inputs.values(), *self.outputs.values())
        return bool(self.inputs) and all(spec.is_batch for spec in specs)

    def check(self, arrays: Arrays, max_texts: int, max_answer_values: int) -> None:
        """Refuses arrays that the signature does not take.

        Args:
            arrays: all inputs, of the right dtypes.
            max_texts: largest dimension 0.
            max_answer_values: most values in the answer.

        Raises:
            ServingError: a shape does not fit, the arrays are empty or unlike, or there is too much.
        """
        for name, array in arrays.items():
            spec = self.inputs[name]
            shape = f"[{','.join(map(str, array.shape))}]"
            if not spec.fits(array.shape):
                raise invalid(f"input {name} has shape {shape}, expected {spec.describe_shape()}")
            if array.size == 0:
                raise invalid(f"input {name} has no values: its shape is {shape}")
            if spec.is_batch and len(array) > max_texts:
                raise invalid(f"the request has {len(array)} texts; at most {max_texts} are taken at once")
        if self.is_batched and len({len(array) for array in arrays.values()}) > 1:
            sizes = ", ".join(f"{name} {len(array)}" for name, array in arrays.items())
            raise invalid(f"the inputs have different batch sizes: {sizes}")
        values = self.count_answer_values(arrays)
        if values > max_answer_values:
            raise invalid(
                f"the answer could have {values} values; at most {max_answer_values} are given at once, "
                "send less in one request"
            )

    def count_answer_values(self, arrays: Arrays) -> int:
        """Values in the answer at most, where a free dimension is at most as long as a row of the input."""
        num_rows = max((len(array) for array in arrays.values() if array.ndim), default=1)
        length = max((math.prod(array.shape[1:]) for array in arrays.values()), default=1)
        count = 0
        for spec in self.outputs.values():
            sizes = [length if size is None else size for size in (spec.shape or ())[1:]]
            count += num_rows * math.prod(sizes)
        return count
