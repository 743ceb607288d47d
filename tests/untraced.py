"""Exports without the tracing of their functions, which is what takes long."""

from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

Signatures = dict[str, Any]
"""The functions of an export, by signature."""


def save_untraced(module: tf.Module, folder: str, signatures: Signatures) -> None:
    """As `tf.saved_model.save`, but the graph has nothing in it."""
    empty = SavedModel(meta_graphs=[MetaGraphDef()])
    Path(folder, "saved_model.pb").write_bytes(empty.SerializeToString())
