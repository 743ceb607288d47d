"""How TensorFlow Serving joins the requests of several clients into one batch, told in the export itself."""

from __future__ import annotations

from pathlib import Path

BATCHING_FILE = "batching_params.pbtxt"
"""Where TensorFlow Serving looks in a version, if it runs with --enable_per_model_batching_parameters."""

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
