"""Files that TensorFlow Serving reads when it loads an export: sample requests, and how to join requests.

Without the requests the first client of each signature waits until the graph is optimized and memory is
allocated. https://www.tensorflow.org/tfx/serving/saved_model_warmup
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog, PredictLog
from transformers import PreTrainedTokenizerFast

from tfmlm.export_layout import BATCHING_FILE, WARMUP_FILE

# === Warm-up requests ===


_NUM_ROWS = (1, 8)
_SHORT_LENGTH = 16  # tokens
_WORD = " text"


@dataclass(frozen=True)
class Sample:
    """A text as clients send it.

    Attributes:
        text: with one mask.
        input_ids: its token ids, special tokens included.
    """

    text: str
    input_ids: Sequence[int]


def make_samples(tokenizer: PreTrainedTokenizerFast) -> list[Sample]:
    """A short text, and one as long as the model takes, which `tokenizer.model_max_length` says."""
    longest = tokenizer.model_max_length
    return [_make_sample(tokenizer, length) for length in (min(_SHORT_LENGTH, longest), longest)]


def _make_sample(tokenizer: PreTrainedTokenizerFast, max_length: int) -> Sample:
    none, one = (len(tokenizer(tokenizer.mask_token + word)["input_ids"]) for word in ("", _WORD))
    text = tokenizer.mask_token + _WORD * ((max_length - none) // (one - none))
    return Sample(text, tokenizer(text)["input_ids"])


def write_warmup_requests(folder: Path, name: str, samples: Sequence[Sample]) -> Path:
    """Writes requests for every signature of an export: each sample, in 1 and in 8 rows; int64 ids once.

    Args:
        folder: a SavedModel whose signatures take `texts` string [N], or `input_ids` and `attention_mask`
            integer [N, L]; beside them maybe `top_k` int32 [N], and `targets` string or `target_ids` int32
            [N, T].
        name: of the model in the requests, as the server will know it.
        samples: from the shortest to the longest.

    Returns:
        The file: a TFRecord of `PredictionLog`, of which the server takes 1000 at most.
    """
    path = folder / WARMUP_FILE
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for request in _make_requests(folder, name, samples):
            writer.write(PredictionLog(predict_log=PredictLog(request=request)).SerializeToString())
    return path


def _make_requests(folder: Path, name: str, samples: Sequence[Sample]) -> Iterator[PredictRequest]:
    for signature_name, signature in sorted(_read_signatures(folder).items()):
        for sample in samples:
            for num_rows in _NUM_ROWS:
                is_first = num_rows == _NUM_ROWS[0] and sample is samples[0]
                # It calls the int32 signature, which is warm already.
                if signature_name.endswith("_int64") and not is_first:
                    continue
                # Logits of 8 texts with 512 tokens and 50,000 words are 0.8 GB: too much to ask for at load.
                if num_rows > 1 and "logits" in signature.outputs and sample is not samples[0]:
                    continue
                request = PredictRequest()
                request.model_spec.name = name
                request.model_spec.signature_name = signature_name
                for input_name, values in _make_inputs(sample, num_rows).items():
                    if input_name in signature.inputs:
                        dtype = signature.inputs[input_name].dtype
                        request.inputs[input_name].CopyFrom(tf.make_tensor_proto(values, dtype))
                yield request


def _make_inputs(sample: Sample, num_rows: int) -> dict[str, Any]:
    input_ids = np.tile(np.asarray(sample.input_ids, np.int64), (num_rows, 1))
    return {
        "texts": [sample.text] * num_rows,
        "input_ids": input_ids,
        "attention_mask": np.ones_like(input_ids),
        "top_k": [1] * num_rows,
        "targets": [[""]] * num_rows,
        "target_ids": [[-1]] * num_rows,
    }


def _read_signatures(folder: Path) -> dict[str, SignatureDef]:
    saved_model = SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    (meta_graph,) = saved_model.meta_graphs
    # Not a signature of the model: TensorFlow adds it to initialize tables and other resources.
    return {
        name: signature
        for name, signature in meta_graph.signature_def.items()
        if name != "__saved_model_init_op"
    }


# === Batching parameters ===


_PARAMETERS = """\
# BatchingParameters of TensorFlow Serving. The number of threads is the server's: --batching_parameters_file.
max_batch_size { value: 32 }
batch_timeout_micros { value: 2000 }
max_enqueued_batches { value: 64 }
allowed_batch_sizes: [1, 2, 4, 8, 16, 32]
# Rows of unequal length are padded with their request's first value, which the signatures leave out again.
pad_variable_length_inputs: true
"""


def write_batching_parameters(folder: Path) -> Path:
    """Writes the file into a version. A server that reads it batches no model that has none.

    Texts of any length are batched together, and so are rows of ids: see `leave_out_server_padding`.
    """
    path = folder / BATCHING_FILE
    path.write_text(_PARAMETERS, encoding="utf-8")
    return path
