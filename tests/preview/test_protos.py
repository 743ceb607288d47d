"""A tensor message may claim any shape: it is an array of it, or refused."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import predict_pb2

from tfmlm.preview.protos import read_predict_inputs
from tfmlm.preview.signatures import Signature, TensorSpec
from tfmlm.preview.status import Code, ServingError

SHAPES = [None, (), (None,), (None, None), (None, 2), (None, None, None)]
MAX_VALUES = 2**20


def read(tensor: tensor_pb2.TensorProto, shape: tuple[int | None, ...] | None) -> np.ndarray:
    spec = TensorSpec("x", np.dtype(np.int32), "int32", shape)
    request = predict_pb2.PredictRequest()
    request.inputs["x"].CopyFrom(tensor)
    signature = Signature("s", "predict", {"x": spec}, {}, lambda arrays: arrays)
    return read_predict_inputs(request, signature, MAX_VALUES)["x"]


sizes = st.sampled_from([0, 1, 1, 2, 3, 2**20, 2**31, 2**32, 2**62, 2**63 - 1])
any_sizes = sizes | st.sampled_from([-1, -(2**63)])


@example(shape=None, claimed=[0, 2**62], values=[], in_bytes=False)
@example(shape=(None, None), claimed=[2**62, 0], values=[1], in_bytes=True)
@given(
    shape=st.sampled_from(SHAPES),
    claimed=st.lists(any_sizes, max_size=4)
    | st.lists(sizes, max_size=3)
    | st.lists(sizes, min_size=30, max_size=70),
    values=st.lists(st.integers(-9, 9), max_size=3),
    in_bytes=st.booleans(),
)
def test_any_shape(
    shape: tuple[int | None, ...] | None, claimed: list[int], values: list[int], in_bytes: bool
) -> None:
    tensor = tensor_pb2.TensorProto(dtype=types_pb2.DT_INT32)
    for size in claimed:
        tensor.tensor_shape.dim.add(size=size)
    if in_bytes:
        tensor.tensor_content = np.array(values, np.int32).tobytes()
    else:
        tensor.int_val.extend(values)
    try:
        read_shape: tuple[int, ...] | None = read(tensor, shape).shape
    except ServingError as error:
        read_shape, code, message = None, error.code, error.message
    if read_shape is None:
        assert code is Code.INVALID_ARGUMENT
        assert len(message) < 600
    else:
        assert read_shape == tuple(claimed)


@pytest.mark.parametrize("rank", [33, 65, 1000, 100_000])
@pytest.mark.parametrize("size", [0, 1, 2**62])
def test_many_dimensions_are_refused_before_they_are_multiplied(rank: int, size: int) -> None:
    tensor = tensor_pb2.TensorProto(dtype=types_pb2.DT_INT32, int_val=[1])
    tensor.tensor_shape.dim.extend([tensor.tensor_shape.Dim(size=size)] * rank)
    with pytest.raises(ServingError, match=f"has {rank} dimensions; at most 32"):
        read(tensor, None)
