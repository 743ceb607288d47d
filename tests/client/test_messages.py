"""Our messages and those of TensorFlow Serving read each other's bytes, in one process."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import predict_pb2

from tfmlm.client import messages
from tfmlm.client.messages import make_tensor, read_tensor
from tfmlm.errors import UserError

PAIRS = [
    (messages.PredictRequest, predict_pb2.PredictRequest),
    (messages.PredictResponse, predict_pb2.PredictResponse),
]


def compare_fields(ours: object, theirs: object, seen: set[str]) -> None:
    """Every field of ours has the name, number and kind of theirs, all the way down."""
    if ours.full_name in seen:
        return
    seen.add(ours.full_name)
    assert ours.full_name == theirs.full_name
    for field in ours.fields:
        other = theirs.fields_by_name[field.name]
        assert (field.number, field.is_repeated) == (other.number, other.is_repeated)
        if field.name != "dtype":  # an enum there, of which a number has the same bytes
            assert field.type == other.type
        if field.message_type:
            compare_fields(field.message_type, other.message_type, seen)


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_fields_are_theirs(ours: type, theirs: type) -> None:
    seen: set[str] = set()
    compare_fields(ours.DESCRIPTOR, theirs.DESCRIPTOR, seen)
    assert "tensorflow.TensorShapeProto.Dim" in seen


@pytest.mark.parametrize("version", [{"version": 7}, {"label": "stable"}, {}])
def test_a_request_goes_both_ways(version: dict[str, object]) -> None:
    request = messages.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "tiny", "ids"
    if "version" in version:
        request.model_spec.version.value = 7
    if "label" in version:
        request.model_spec.version_label = "stable"
    request.inputs["texts"].CopyFrom(make_tensor(["a [MASK]", "größer", ""]))
    request.inputs["input_ids"].CopyFrom(make_tensor([[1, 2, 3], [4, 5, -1]]))
    request.inputs["top_k"].CopyFrom(make_tensor([3, 0]))
    request.inputs["targets"].CopyFrom(make_tensor([["a", "b", "é"], ["", "c", "d"]]))

    theirs = predict_pb2.PredictRequest.FromString(request.SerializeToString())
    assert (theirs.model_spec.name, theirs.model_spec.signature_name) == ("tiny", "ids")
    assert theirs.model_spec.WhichOneof("version_choice") == (
        {"version": "version", "label": "version_label"}[next(iter(version))] if version else None
    )
    assert theirs.model_spec.version.value == version.get("version", 0)
    assert tf.make_ndarray(theirs.inputs["texts"]).tolist() == [b"a [MASK]", "größer".encode(), b""]
    np.testing.assert_array_equal(tf.make_ndarray(theirs.inputs["input_ids"]), [[1, 2, 3], [4, 5, -1]])
    assert tf.make_ndarray(theirs.inputs["input_ids"]).dtype == np.int32
    assert tf.make_ndarray(theirs.inputs["top_k"]).tolist() == [3, 0]
    words = [[word.decode() for word in row] for row in tf.make_ndarray(theirs.inputs["targets"])]
    assert words == [["a", "b", "é"], ["", "c", "d"]]

    # What ours lacks is kept, so the bytes come back whole.
    theirs.output_filter.append("scores")
    back = messages.PredictRequest.FromString(theirs.SerializeToString())
    assert predict_pb2.PredictRequest.FromString(back.SerializeToString()) == theirs


VALUES = [
    np.array([[[0.5, -1.25], [3e-8, 1.0]]], np.float32),
    np.array([[1, -1], [2, 2**31 - 1]], np.int32),
    np.array([[1, -(2**40)]], np.int64),
    np.array([[["a", " b"], ["größer", ""]]], object),
    np.zeros([2, 0, 5], np.float32),
    np.zeros([0, 3], np.int32),
    np.zeros([3, 2], np.float32),
    np.full([3, 2], 7, np.int32),
    np.float32(2.5),
]


@pytest.mark.parametrize("values", VALUES, ids=str)
def test_tensors_are_read_from_fields_and_from_bytes(values: np.ndarray) -> None:
    real = tf.make_tensor_proto(values)
    assert bool(real.tensor_content) == (values.dtype != object and values.size > 1)
    assert read_tensor(messages.TensorProto.FromString(real.SerializeToString())) == values.tolist()
    if values.dtype == object:
        return
    fields = tensor_pb2.TensorProto(dtype=real.dtype, tensor_shape=real.tensor_shape)
    name = {"float32": "float_val", "int32": "int_val", "int64": "int64_val"}[str(values.dtype)]
    getattr(fields, name).extend(values.reshape(-1).tolist())
    assert read_tensor(messages.TensorProto.FromString(fields.SerializeToString())) == values.tolist()
    # TensorFlow leaves out equal values at the end, and zeros altogether.
    flat = values.reshape(-1).tolist()
    if flat and set(flat) == {flat[0]}:
        del getattr(fields, name)[bool(flat[0]) :]
        assert read_tensor(messages.TensorProto.FromString(fields.SerializeToString())) == values.tolist()


@pytest.mark.parametrize(
    ("tensor", "says"),
    [
        (tensor_pb2.TensorProto(dtype=2), "dtype 2"),
        (tensor_pb2.TensorProto(dtype=1, tensor_content=b"123"), "3 bytes"),
        (tensor_pb2.TensorProto(dtype=7, tensor_content=b"123"), "3 bytes"),
        (tensor_pb2.TensorProto(dtype=1, float_val=[1.0, 2.0]), r"2 values for a tensor of shape \[\]"),
    ],
)
def test_a_tensor_that_makes_no_sense_is_refused(tensor: tensor_pb2.TensorProto, says: str) -> None:
    with pytest.raises(UserError, match=says):
        read_tensor(messages.TensorProto.FromString(tensor.SerializeToString()))
