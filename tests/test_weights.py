"""Weights under PyTorch's names: written, read back, and compared with the names that PyTorch itself writes."""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from transformers import PreTrainedTokenizerFast, TFAutoModelForMaskedLM, TFPreTrainedModel

from tests.test_heads import make_tiny
from tests.tiny import PAD_IS_ONE, TINY_CONFIGS
from tfmlm.training.model import load_model_folder
from tfmlm.training.weights import write_weights

NAMES: dict[str, dict[str, list[int]]] = json.loads(
    Path(__file__).with_name("pytorch_names.json").read_text(encoding="utf-8")
)
"""Names and shapes in the file that PyTorch's `save_pretrained` writes for a model of `make_random`."""

ALSO_FOR_TENSORFLOW = {"albert": {"predictions.decoder.bias"}}
"""Names that PyTorch ties and leaves out, and TensorFlow's own loader wants."""


def make_random(model_type: str, seed: int = 0) -> TFPreTrainedModel:
    """A tiny model all of whose weights differ from their initial zeros and ones."""
    model = make_tiny(model_type, **TINY_CONFIGS[model_type])
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        weight.assign_add(rng.normal(scale=0.1, size=weight.shape).astype(np.float32))
    return model


def make_rows(model_type: str) -> dict[str, NDArray[np.int32]]:
    """Three rows of ids, the last one padded."""
    input_ids = np.random.default_rng(1).integers(5, 60, (3, 16), np.int32)
    attention_mask = np.ones_like(input_ids)
    attention_mask[2, 9:] = 0
    input_ids[2, 9:] = int(model_type in PAD_IS_ONE)
    return {"input_ids": input_ids, "attention_mask": attention_mask}


def compute_logits(model: TFPreTrainedModel) -> NDArray[np.float32]:
    return model(make_rows(model.config.model_type)).logits.numpy()
