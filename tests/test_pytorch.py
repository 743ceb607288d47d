"""PyTorch reads what we write and we read what it writes, with the same logits.

Only with PyTorch, in an environment of its own, which `make test-pytorch` makes:

    TFMLM_PYTORCH_PYTHON=/path/to/python pytest tests/test_pytorch.py
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file
from transformers import PreTrainedTokenizerFast, TFAutoModelForMaskedLM

from tests.test_heads import make_tiny
from tests.test_weights import NAMES, compute_logits, make_random, make_rows
from tests.tiny import PAD_IS_ONE, SENTENCES, TINY_CONFIGS
from tfmlm.config import TokenizerConfig
from tfmlm.data.tokenizer_training import train_tokenizer
from tfmlm.training.model import load_model_folder
from tfmlm.training.model_folder import save_model_folder

PYTHON = os.environ.get("TFMLM_PYTORCH_PYTHON", "")
SCRIPT = Path(__file__).with_name("pytorch_side.py")

pytestmark = pytest.mark.skipif(
    not PYTHON, reason="TFMLM_PYTORCH_PYTHON names no Python with torch and transformers 5"
)

TOLERANCE = 1e-4
