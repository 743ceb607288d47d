"""PyTorch reads what we write and we read what it writes, with the same logits.

Only where a Python with PyTorch is named, of an environment of its own; `make test-pytorch` makes one:

    TFMLM_PYTORCH_PYTHON=/path/to/python pytest tests/training/test_pytorch.py

Beside one fixed configuration of every architecture, some are drawn: widths, positions, options, and the
tokenizer with its padding. TFMLM_PYTORCH_DRAWS says how many, TFMLM_PYTORCH_SEED which.
"""

import json
import os
import random
import subprocess
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file
from transformers import PreTrainedTokenizerFast, TFPreTrainedModel

from tests.tiny import ALL_TINY_CONFIGS, PAD_IS_ONE, SENTENCES
from tests.training.drawn import draw_fields
from tests.training.test_model_folder import NAMES, make_random
from tfmlm.config import Config, DataConfig, ModelConfig, TokenizerConfig
from tfmlm.data.tokenizer_training import train_tokenizer
from tfmlm.errors import UserError
from tfmlm.training.architectures import SUPPORTED, max_block_size
from tfmlm.training.model import load_model_folder, make_model
from tfmlm.training.model_folder import save_model_folder

PYTHON = os.environ.get("TFMLM_PYTORCH_PYTHON", "")
NUM_DRAWS = int(os.environ.get("TFMLM_PYTORCH_DRAWS", "4"))
SEED = os.environ.get("TFMLM_PYTORCH_SEED", "0")

pytestmark = pytest.mark.skipif(
    not PYTHON, reason="TFMLM_PYTORCH_PYTHON names no Python with torch and transformers 5"
)

TOLERANCE = 1e-5
"""Of the logits, and of the largest one where that is over 1."""

SHARDED = "bert-sharded"
ALGORITHMS = ("wordpiece", "byte_bpe", "unigram")
DRAWN = [f"{model_type}.{number}" for model_type in SUPPORTED for number in range(NUM_DRAWS)]
ALL = [*ALL_TINY_CONFIGS, SHARDED, *DRAWN]
TEXTS = [*SENTENCES[:3], "Ünïcode  and   spaces, {mask} too."]


def make_inputs(
    model: TFPreTrainedModel, tokenizer: PreTrainedTokenizerFast, rng: random.Random
) -> dict[str, NDArray[np.int32]]:
    """Rows of ids of any length that the model takes, masks among them, the last one padded."""
    words = sorted(set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids))
    longest = max_block_size(model.config)
    length = rng.choice([longest, rng.randint(4, longest)])
    rows = [[rng.choice([*words, tokenizer.mask_token_id]) for _ in range(length)] for _ in range(3)]
    input_ids = np.array(rows, np.int32)
    attention_mask = np.ones_like(input_ids)
    attention_mask[2, length // 2 :] = 0
    input_ids[2, length // 2 :] = tokenizer.pad_token_id
    return {"input_ids": input_ids, "attention_mask": attention_mask}


def draw(name: str) -> tuple[TFPreTrainedModel, PreTrainedTokenizerFast]:
    """A model as a run makes it, with random weights, and the tokenizer that the run trains for it."""
    model_type = name.partition(".")[0]
    rng = random.Random(f"{SEED} {name}")
    while True:
        fields = {"model_type": model_type} | draw_fields(model_type, rng)
        algorithm = rng.choice(ALGORITHMS)
        tokenizer = train_tokenizer(
            [SENTENCES],
            TokenizerConfig(train_vocab_size=rng.randint(280, 320), algorithm=algorithm),
            model_type,
        )
        try:
            config = Config(data=DataConfig(block_size=8), model=ModelConfig(config=fields))
            model, _ = make_model(config, tokenizer)
        except UserError as refused:
            print(f"{name}: {refused}")
            continue
        print(name, algorithm, fields)
        noise = np.random.default_rng(crc32(name.encode()))
        for weight in model.trainable_weights:
            weight.assign_add(noise.normal(scale=0.1, size=weight.shape).astype(np.float32))
        return model, tokenizer


def name_difference(
    ours: NDArray[np.float32], theirs: NDArray[np.float32], attended: NDArray[np.bool_]
) -> float:
    """Largest difference of attended logits, as a share of the largest logit if that is over 1."""
    return float(np.abs(ours - theirs)[attended].max() / max(1.0, np.abs(theirs)[attended].max()))


@contextmanager
def noting_failure(path: Path) -> Iterator[None]:
    """One that cannot be computed must not hide how the others do."""
    try:
        yield
    except Exception:  # noqa: BLE001 the test of this name raises it
        Path(f"{path}.failed").write_text(traceback.format_exc())


def assert_none_failed(exchanged: Path, name: str) -> None:
    for part in ("ours", "theirs"):
        failed = exchanged / part / f"{name}.failed"
        assert not failed.exists(), failed.read_text()


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

    def write(
        name: str, model: TFPreTrainedModel, tokenizer: PreTrainedTokenizerFast, **options: int
    ) -> None:
        inputs = make_inputs(model, tokenizer, random.Random(name))
        save_model_folder(model, tokenizer, root / "ours" / name, {}, **options)
        np.save(root / "ours" / f"{name}.tensorflow.npy", model(inputs).logits.numpy())
        texts = [text.format(mask=tokenizer.mask_token) for text in TEXTS]
        (root / "ours" / f"{name}.ids.json").write_text(
            json.dumps([tokenizer.mask_token, tokenizer(texts)["input_ids"]])
        )
        np.savez(root / "inputs" / f"{name}.npz", texts=texts, **inputs)

    for model_type in ALL_TINY_CONFIGS:
        tokenizer = byte_tokenizer if model_type in PAD_IS_ONE else word_tokenizer
        write(model_type, make_random(model_type, vocab_size=len(tokenizer)), tokenizer)
    sharded = make_random("bert", vocab_size=len(word_tokenizer))
    write(SHARDED, sharded, word_tokenizer, max_shard_bytes=20_000)
    for name in DRAWN:
        model, tokenizer = draw(name)
        with noting_failure(root / "ours" / name):
            write(name, model, tokenizer)

    script = Path(__file__).with_name("pytorch_side.py")
    done = subprocess.run([PYTHON, str(script), str(root)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return root


@pytest.mark.parametrize("name", ALL)
def test_pytorch_reads_ours(name: str, exchanged: Path) -> None:
    assert_none_failed(exchanged, name)
    found = json.loads((exchanged / "ours" / f"{name}.json").read_text())
    assert found["problems"] == {}
    assert found["dtype"] == "torch.float32"
    config = json.loads((exchanged / "ours" / name / "config.json").read_text())
    assert [found["class"]] == config["architectures"]
    theirs = np.load(exchanged / "ours" / f"{name}.npy")
    ours = np.load(exchanged / "ours" / f"{name}.tensorflow.npy")
    attended = np.load(exchanged / "inputs" / f"{name}.npz")["attention_mask"] == 1
    difference = name_difference(ours, theirs, attended)
    print(f"{name}: PyTorch from ours, largest difference {difference:.2e}")
    assert difference < TOLERANCE


@pytest.mark.parametrize("name", ALL)
def test_pytorchs_tokenizer_splits_texts_as_ours(name: str, exchanged: Path) -> None:
    assert_none_failed(exchanged, name)
    found = json.loads((exchanged / "ours" / f"{name}.json").read_text())
    expected = json.loads((exchanged / "ours" / f"{name}.ids.json").read_text())
    assert [found["mask_token"], found["texts_as_ids"]] == expected


@pytest.mark.parametrize("name", ALL)
def test_we_read_pytorchs(name: str, exchanged: Path) -> None:
    assert_none_failed(exchanged, name)
    folder = exchanged / "theirs" / name
    for path in (exchanged / "ours" / name).glob("*token*"):
        (folder / path.name).write_bytes(path.read_bytes())
    model, _ = load_model_folder(folder)
    theirs = np.load(exchanged / "theirs" / f"{name}.npy")
    inputs = dict(np.load(exchanged / "inputs" / f"{name}.npz"))
    attended = inputs["attention_mask"] == 1
    del inputs["texts"]
    difference = name_difference(model(inputs).logits.numpy(), theirs, attended)
    print(f"{name}: ours from PyTorch, largest difference {difference:.2e}")
    assert difference < TOLERANCE


@pytest.mark.parametrize("model_type", ALL_TINY_CONFIGS)
def test_the_table_of_names_is_pytorchs(model_type: str, exchanged: Path) -> None:
    weights = load_file(exchanged / "theirs" / model_type / "model.safetensors")
    num_words = json.loads((exchanged / "ours" / model_type / "config.json").read_text())["vocab_size"]
    shapes = {
        # ESM's, as the first BERT had them.
        name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias"): [
            60 if size == num_words else size for size in values.shape
        ]
        for name, values in weights.items()
        if not name.endswith(".inv_freq")
    }
    assert NAMES[model_type] == shapes
