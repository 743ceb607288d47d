"""The model folder: what is in it, and that there is never a part of one."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tests.tiny import TINY_CONFIGS
from tests.tiny_model import make_tiny
from tests.waiting import wait_until
from tfmlm.errors import UserError
from tfmlm.training.model import load_model_folder
from tfmlm.training.model_folder import save_model_folder

COMMON = {
    "config.json",
    "model.safetensors",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
}


def save(
    folder: Path, tokenizer: PreTrainedTokenizerFast, model_type: str = "bert", **fields: object
) -> None:
    model = make_tiny(model_type, **TINY_CONFIGS[model_type] | {"vocab_size": len(tokenizer)} | fields)
    save_model_folder(model, tokenizer, folder, {"note.txt": "one"})


def test_holds_weights_configuration_tokenizer_and_texts(
    tmp_path: Path, word_tokenizer: PreTrainedTokenizerFast
) -> None:
    save(tmp_path / "model", word_tokenizer)
    assert {path.name for path in (tmp_path / "model").iterdir()} == COMMON | {"vocab.txt", "note.txt"}
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model" / "note.txt").read_text() == "one"
    again = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert again("Return the name.")["input_ids"] == word_tokenizer("Return the name.")["input_ids"]


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_the_umask_decides_who_may_read_the_files(
    umask: int, tmp_path: Path, word_tokenizer: PreTrainedTokenizerFast
) -> None:
    before = os.umask(umask)
    try:
        save(tmp_path / "model", word_tokenizer)
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "model").iterdir()}
    assert modes == dict.fromkeys(modes, 0o666 & ~umask)


@pytest.mark.parametrize(
    ("model_type", "architecture"),
    [
        ("albert", "AlbertForMaskedLM"),
        ("bert", "BertForMaskedLM"),
        ("camembert", "CamembertForMaskedLM"),
        ("distilbert", "DistilBertForMaskedLM"),
        ("electra", "ElectraForMaskedLM"),
        ("mpnet", "MPNetForMaskedLM"),
        ("roberta", "RobertaForMaskedLM"),
        ("xlm-roberta", "XLMRobertaForMaskedLM"),
    ],
)
def test_the_configuration_names_pytorchs_class(
    model_type: str, architecture: str, tmp_path: Path, word_tokenizer: PreTrainedTokenizerFast
) -> None:
    save(tmp_path / "model", word_tokenizer, model_type)
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["architectures"] == [architecture]
    assert config["model_type"] == model_type
    assert config["torch_dtype"] == "float32"
    assert config.get("tie_word_embeddings", True) is True
    assert config["vocab_size"] == len(word_tokenizer)


@pytest.mark.parametrize("key", ["torch_dtype", "dtype"])  # of transformers 4 and 5
def test_the_precision_of_the_weights_before_and_their_place_are_forgotten(
    key: str, tmp_path: Path, word_tokenizer: PreTrainedTokenizerFast
) -> None:
    save(tmp_path / "first", word_tokenizer)
    file = tmp_path / "first" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: "float16"}))
    model, tokenizer = load_model_folder(tmp_path / "first")
    save_model_folder(model, tokenizer, tmp_path / "second", {})
    text = (tmp_path / "second" / "config.json").read_text()
    assert json.loads(text)["torch_dtype"] == "float32"
    assert "float16" not in text
    for path in (tmp_path / "second").glob("*.json"):
        assert str(tmp_path) not in path.read_text(), path.name


def test_replaces_an_older_folder_with_all_its_files(
    tmp_path: Path, word_tokenizer: PreTrainedTokenizerFast
) -> None:
    save(tmp_path / "model", word_tokenizer)
    (tmp_path / "model" / "model-00001-of-00002.safetensors").write_bytes(b"of a larger model")
    (tmp_path / ".model").mkdir()
    (tmp_path / ".model" / "half").write_text("left by a process that was killed")
    save(tmp_path / "model", word_tokenizer, num_hidden_layers=1)
    assert load_model_folder(tmp_path / "model")[0].config.num_hidden_layers == 1
    assert {path.name for path in (tmp_path / "model").iterdir()} == COMMON | {"vocab.txt", "note.txt"}
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("fills_with", ["weights", "tokenizer"])
def test_a_full_disk_is_one_line_and_the_older_folder_stays(
    fills_with: str, small_disk: Path, word_tokenizer: PreTrainedTokenizerFast
) -> None:
    save(small_disk / "model", word_tokenizer)
    before = {path.name: path.read_bytes() for path in (small_disk / "model").iterdir()}
    num_layers = 2
    if fills_with == "weights":
        num_layers = 200
    else:  # room for the weights, and some bytes more
        needed = sum(len(before[name]) for name in ("model.safetensors", "config.json"))
        leave_room(small_disk, needed + 3 * 4096)
    with pytest.raises(UserError) as caught:
        save(small_disk / "model", word_tokenizer, num_hidden_layers=num_layers)
    assert "No space left" in str(caught.value)
    assert "make room" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert {path.name: path.read_bytes() for path in (small_disk / "model").iterdir()} == before
    assert not (small_disk / ".model").exists()


def leave_room(folder: Path, num_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    (folder / "filler").write_bytes(bytes(free - num_bytes))


SAVE_AGAIN_AND_AGAIN = """
import sys
from pathlib import Path
import tensorflow as tf
from tests.tiny_model import make_tiny
from tests.tiny import TINY_CONFIGS
from tfmlm.data.tokenizers import load_tokenizer
from tfmlm.training.model_folder import save_model_folder
model = make_tiny("bert", **TINY_CONFIGS["bert"])
tokenizer = load_tokenizer(sys.argv[1])
for number in range(5_000):
    for weight in model.weights:
        weight.assign(tf.fill(weight.shape, float(number)))
    save_model_folder(model, tokenizer, Path(sys.argv[2]), {"number.txt": str(number)}, 50_000)
"""


@pytest.mark.long
def test_stopped_at_any_moment_the_folder_is_whole_or_the_older_one_lies_beside(
    tmp_path: Path, word_tokenizer: PreTrainedTokenizerFast
) -> None:
    """A stopped process leaves on the disk what a killed one would, and goes on to the next moment."""
    word_tokenizer.save_pretrained(tmp_path / "tokenizer")
    folder = tmp_path / "run" / "model"
    process = subprocess.Popen([sys.executable, "-c", SAVE_AGAIN_AND_AGAIN, tmp_path / "tokenizer", folder])
    try:
        wait_until(lambda: folder.exists() or process.poll() is not None)
        moments = random.Random(0)
        seen = set()
        unfinished = 0
        for _ in range(80):
            time.sleep(moments.uniform(0, 0.05))
            process.send_signal(signal.SIGSTOP)
            os.waitpid(process.pid, os.WUNTRACED)
            seen.add(read_number(folder if folder.exists() else folder.with_name(".model.old")))
            unfinished += folder.with_name(".model").exists()
            process.send_signal(signal.SIGCONT)
    finally:
        process.kill()
        process.wait()
    assert len(seen) > 10
    assert unfinished > 10


def read_number(folder: Path) -> int:
    """The number that every file of the folder agrees on."""
    number = int((folder / "number.txt").read_text())
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    weights = {}
    for name in set(index["weight_map"].values()):
        weights |= load_file(folder / name)
    assert weights.keys() == index["weight_map"].keys()
    assert all(np.all(values == number) for values in weights.values())
    assert json.loads((folder / "tokenizer.json").read_text())["model"]
    assert json.loads((folder / "config.json").read_text())["architectures"]
    return number
