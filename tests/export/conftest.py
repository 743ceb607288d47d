"""Exports without the tracing of their functions, which is what takes long."""

from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

GRAPH = SavedModel(meta_graphs=[MetaGraphDef()])

Saved = dict[str, Any]
"""The functions of the last export, by signature."""


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> Saved:
    """Writes a graph of nothing, and notes what would be in it."""
    functions: Saved = {}

    def save(module: tf.Module, folder: str, signatures: Saved) -> None:
        functions.clear()
        functions.update(signatures)
        Path(folder, "saved_model.pb").write_bytes(GRAPH.SerializeToString())

    monkeypatch.setattr(tf.saved_model, "save", save)
    return functions
