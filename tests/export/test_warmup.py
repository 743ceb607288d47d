"""Batches as TensorFlow Serving forms them from the requests of several clients."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog
from transformers import PreTrainedTokenizerFast

from tests.finished import Finished
from tfmlm.data.tokenizers import load_tokenizer
from tfmlm.export.saved_model import TOKENIZER_DIR
from tfmlm.export.warmup import WARMUP_FILE, make_samples

SHORT, LONG = [0, 4, 9, 2], [0, 9, 8, 7, 4, 9, 4, 2]
"""Token ids; 4 is <mask> and 1 is <pad>."""

Fill = Callable[[list[list[int]], list[list[int]]], dict[str, NDArray[Any]]]


@pytest.fixture(scope="module")
def fill(byte_run: Finished) -> Fill:
    """The signature `ids`, from rows of token ids and of attention masks."""
    loaded = tf.saved_model.load(str(byte_run.version))

    def run(input_ids: list[list[int]], attention_mask: list[list[int]]) -> dict[str, NDArray[Any]]:
        outputs = loaded.signatures["ids"](
            input_ids=tf.constant(input_ids, tf.int32), attention_mask=tf.constant(attention_mask, tf.int32)
        )
        return {name: value.numpy() for name, value in outputs.items()}

    return run


def pad(row: list[int], value: int) -> list[int]:
    return row + [value] * (len(LONG) - len(row))


def test_requests_of_one_length_are_answered_the_same_together(fill: Fill) -> None:
    short = pad(SHORT, 1), pad([1] * len(SHORT), 0)
    long = LONG, [1] * len(LONG)
    # Three rows become four, the next allowed size: the server repeats a row and drops its answer.
    ids, masks = zip(short, long, short, short, strict=True)
    together = fill(list(ids), list(masks))
    for row, request in enumerate((short, long)):
        alone = fill([request[0]], [request[1]])
        num_masks = alone["positions"].shape[1]
        for name, value in alone.items():
            mine = together[name][row, :num_masks]
            if value.dtype == np.float32:
                np.testing.assert_allclose(mine, value[0], atol=1e-6)
            else:
                np.testing.assert_array_equal(mine, value[0])
    # A client may get more masks than its text has; they are marked.
    assert together["positions"][0].tolist() == [1, -1]


def test_the_servers_own_padding_changes_no_answer(fill: Fill) -> None:
    """`pad_variable_length_inputs` repeats an input's first value: 0 = <s>, and 1 = "no padding"."""
    expected = fill([SHORT], [[1] * len(SHORT)])
    for tail in ([], [1, 1]):  # the client's own padding stands before the server's
        row, mask = [*SHORT, *tail], [1] * len(SHORT) + [0] * len(tail)
        padded = fill([pad(row, SHORT[0])], [mask + [1] * (len(LONG) - len(row))])
        np.testing.assert_allclose(padded["scores"], expected["scores"], rtol=1e-5)
        np.testing.assert_array_equal(padded["token_ids"], expected["token_ids"])


def read_requests(version: Path) -> list[PredictRequest]:
    records = tf.data.TFRecordDataset(str(version / WARMUP_FILE)).as_numpy_iterator()
    logs = [PredictionLog.FromString(record) for record in records]
    assert all(log.WhichOneof("log_type") == "predict_log" for log in logs)
    return [log.predict_log.request for log in logs]


def read_inputs(request: PredictRequest) -> dict[str, tf.Tensor]:
    return {name: tf.constant(tf.make_ndarray(value)) for name, value in request.inputs.items()}


@pytest.fixture(scope="module")
def versions(byte_run: Finished, word_run: Finished) -> list[Path]:
    """Exports of a RoBERTa and of a BERT."""
    return [byte_run.version, word_run.version]


def test_requests_cover_every_signature_and_run(versions: list[Path]) -> None:
    for version in versions:
        loaded = tf.saved_model.load(str(version))
        requests = read_requests(version)
        assert 0 < len(requests) <= 1000  # TensorFlow Serving refuses to load a version with more
        seen = set()
        for request in requests:
            assert request.model_spec.name == version.parent.name
            signature = loaded.signatures[request.model_spec.signature_name]
            inputs = read_inputs(request)
            specs = signature.structured_input_signature[1]
            assert {name: value.dtype for name, value in inputs.items()} == {
                name: spec.dtype for name, spec in specs.items()
            }
            (num_rows,) = {value.shape[0] for value in inputs.values()}
            for name, value in signature(**inputs).items():
                assert value.shape[0] == num_rows, name
            seen.add((request.model_spec.signature_name, num_rows))
        once = {name for name in loaded.signatures if name.endswith("_int64")}
        rows = {name: (1,) if name in once else (1, 8) for name in loaded.signatures}
        assert seen == {(name, num_rows) for name in rows for num_rows in rows[name]}


def test_requests_have_one_mask_a_row_and_reach_the_models_length(versions: list[Path]) -> None:
    for version in versions:
        tokenizer = load_tokenizer(version / TOKENIZER_DIR)
        lengths = set()
        for request in read_requests(version):
            inputs = read_inputs(request)
            if "texts" in inputs:
                texts = [text.decode() for text in inputs["texts"].numpy()]
                input_ids = np.array(tokenizer(texts)["input_ids"])
            else:
                input_ids = inputs["input_ids"].numpy()
                assert inputs["attention_mask"].numpy().all()
            assert ((input_ids == tokenizer.mask_token_id).sum(axis=1) == 1).all()
            lengths.add(input_ids.shape[1])
        short, long = sorted(lengths)
        assert short <= 16
        assert tokenizer.model_max_length - 8 < long <= tokenizer.model_max_length


@pytest.mark.parametrize("max_length", [3, 12, 70, 512])
def test_samples_fit_short_and_long_models(max_length: int, byte_tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer = copy.deepcopy(byte_tokenizer)
    tokenizer.model_max_length = max_length
    short, long = make_samples(tokenizer)
    assert len(short.input_ids) <= min(max_length, 16)
    assert max_length - 8 < len(long.input_ids) <= max_length
