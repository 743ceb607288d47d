"""PyTorch reads what we write and we read what it writes, with the same logits.

Only where a Python with PyTorch is named, of an environment of its own; `make test-pytorch` makes one:

    TFMLM_PYTORCH_PYTHON=/path/to/python pytest tests/training/test_pytorch.py
"""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from transformers import PreTrainedTokenizerFast

from tests.tiny import ALL_TINY_CONFIGS, PAD_IS_ONE, SENTENCES, make_tiny
from tests.training.test_model_folder import NAMES, compute_logits, make_random, make_rows
from tfmlm.config import TokenizerConfig
from tfmlm.data.tokenizer_training import train_tokenizer
from tfmlm.training.model import load_model_folder
from tfmlm.training.model_folder import save_model_folder

PYTHON = os.environ.get("TFMLM_PYTORCH_PYTHON", "")

pytestmark = pytest.mark.skipif(
    not PYTHON, reason="TFMLM_PYTORCH_PYTHON names no Python with torch and transformers 5"
)

TOLERANCE = 1e-4
SHARDED = "bert-sharded"
TRAINED_TOKENIZERS = {
    f"tokenizer-{algorithm}": algorithm for algorithm in ("wordpiece", "byte_bpe", "unigram")
}
TEXTS = [*SENTENCES[:3], "Ünïcode  and   spaces, {mask} too."]


@pytest.fixture(scope="module")
def exchanged(
    tmp_path_factory: pytest.TempPathFactory,
    word_tokenizer: PreTrainedTokenizerFast,
    byte_tokenizer: PreTrainedTokenizerFast,
) -> Path:
    """Folders of both sides and PyTorch's logits on each; it is started once, since it takes seconds."""
    root = tmp_path_factory.mktemp("exchanged")
    for part in ("ours", "theirs", "inputs"):
        (root / part).mkdir()

    def write(name: str, model_type: str, tokenizer: PreTrainedTokenizerFast, **options: int) -> None:
        model = make_random(model_type)
        save_model_folder(model, tokenizer, root / "ours" / name, {}, **options)
        np.save(root / "ours" / f"{name}.tensorflow.npy", compute_logits(model))
        texts = [text.format(mask=tokenizer.mask_token) for text in TEXTS]
        ids = tokenizer(texts)["input_ids"]
        (root / "ours" / f"{name}.ids.json").write_text(json.dumps([tokenizer.mask_token, ids]))
        np.savez(root / "inputs" / f"{name}.npz", texts=texts, **make_rows(model_type))

    for model_type in ALL_TINY_CONFIGS:
        write(model_type, model_type, byte_tokenizer if model_type in PAD_IS_ONE else word_tokenizer)
        config = make_tiny(model_type, **ALL_TINY_CONFIGS[model_type]).config
        (root / "theirs" / f"{model_type}.config.json").write_text(json.dumps(config.to_dict()))
    write(SHARDED, "bert", word_tokenizer, max_shard_bytes=20_000)
    for name, algorithm in TRAINED_TOKENIZERS.items():
        tokenizer = train_tokenizer([SENTENCES], TokenizerConfig(train_vocab_size=300, algorithm=algorithm))
        write(name, "bert", tokenizer)

    script = Path(__file__).with_name("pytorch_side.py")
    done = subprocess.run([PYTHON, str(script), str(root)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return root


@pytest.mark.parametrize("name", [*ALL_TINY_CONFIGS, SHARDED])
def test_pytorch_reads_ours(name: str, exchanged: Path) -> None:
    found = json.loads((exchanged / "ours" / f"{name}.json").read_text())
    assert found["problems"] == {}
    assert found["dtype"] == "torch.float32"
    config = json.loads((exchanged / "ours" / name / "config.json").read_text())
    assert [found["class"]] == config["architectures"]
    theirs = np.load(exchanged / "ours" / f"{name}.npy")
    ours = np.load(exchanged / "ours" / f"{name}.tensorflow.npy")
    attended = np.load(exchanged / "inputs" / f"{name}.npz")["attention_mask"] == 1
    difference = np.abs(theirs - ours)[attended].max()
    print(f"{name}: PyTorch from ours, largest difference {difference:.2e}")
    assert difference < TOLERANCE


@pytest.mark.parametrize("name", [*ALL_TINY_CONFIGS, *TRAINED_TOKENIZERS])
def test_pytorchs_tokenizer_splits_texts_as_ours(name: str, exchanged: Path) -> None:
    found = json.loads((exchanged / "ours" / f"{name}.json").read_text())
    expected = json.loads((exchanged / "ours" / f"{name}.ids.json").read_text())
    assert [found["mask_token"], found["texts_as_ids"]] == expected


@pytest.mark.parametrize("model_type", ALL_TINY_CONFIGS)
def test_we_read_pytorchs(
    model_type: str,
    exchanged: Path,
    word_tokenizer: PreTrainedTokenizerFast,
    byte_tokenizer: PreTrainedTokenizerFast,
) -> None:
    folder = exchanged / "theirs" / model_type
    (byte_tokenizer if model_type in PAD_IS_ONE else word_tokenizer).save_pretrained(folder)
    model, _ = load_model_folder(folder)
    theirs = np.load(exchanged / "theirs" / f"{model_type}.npy")
    ours = compute_logits(model)
    attended = make_rows(model_type)["attention_mask"] == 1
    difference = np.abs(theirs - ours)[attended].max()
    print(f"{model_type}: ours from PyTorch, largest difference {difference:.2e}")
    assert difference < TOLERANCE


@pytest.mark.parametrize("model_type", ALL_TINY_CONFIGS)
def test_the_table_of_names_is_pytorchs(model_type: str, exchanged: Path) -> None:
    weights = load_file(exchanged / "theirs" / model_type / "model.safetensors")
    assert NAMES[model_type] == {name: list(values.shape) for name, values in weights.items()}
