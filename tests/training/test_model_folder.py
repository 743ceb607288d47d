"""Weights under PyTorch's names: written, read back, and compared with what PyTorch itself writes."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from transformers import AutoTokenizer, PreTrainedTokenizerFast, TFAutoModelForMaskedLM, TFPreTrainedModel

from tests.tiny import ALL_TINY_CONFIGS, PAD_IS_ONE, TINY_CONFIGS, make_tiny
from tests.training.test_model import configure
from tests.waiting import wait_until
from tfmlm.errors import UserError
from tfmlm.training.model import load_model_folder, make_model
from tfmlm.training.model_folder import save_model_folder
from tfmlm.training.weights import write_weights

NAMES: dict[str, dict[str, list[int]]] = json.loads(
    Path(__file__).with_name("pytorch_names.json").read_text(encoding="utf-8")
)
"""Names and shapes in the file that PyTorch's `save_pretrained` writes for a model of `make_random`."""

ALSO_FOR_TENSORFLOW = {"albert": {"predictions.decoder.bias": [60]}}
"""Names that PyTorch ties and leaves out, and TensorFlow's own loader wants."""


def make_random(model_type: str, **fields: object) -> TFPreTrainedModel:
    """A tiny model all of whose weights differ from their initial zeros and ones."""
    model = make_tiny(model_type, **ALL_TINY_CONFIGS[model_type] | fields)
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
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


def save(model: TFPreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path, **options: int) -> Path:
    save_model_folder(model, tokenizer, folder, {}, **options)
    return folder


def read_shapes(file: Path) -> dict[str, list[int]]:
    return {name: list(values.shape) for name, values in load_file(file).items()}


@pytest.mark.parametrize("model_type", ALL_TINY_CONFIGS)
def test_names_and_shapes_are_pytorchs(model_type: str, tmp_path: Path) -> None:
    write_weights(make_random(model_type), tmp_path)
    written = {
        name: shape
        for name, shape in read_shapes(tmp_path / "model.safetensors").items()
        if not name.endswith(".inv_freq")  # of ESM, computed, and under another name in PyTorch's file
    }
    also = ALSO_FOR_TENSORFLOW.get(model_type, {})
    assert written == NAMES[model_type] | also
    with safe_open(tmp_path / "model.safetensors", framework="np") as file:
        assert file.metadata() == {"format": "pt"}


PYTORCH_WORDS = {"kernel": "weight", "embeddings": "weight", "gamma": "weight", "beta": "bias"}


def name_by_hand(name: str) -> str:
    """`tf_bert_for_masked_lm/mlm___cls/x/layer_._0/kernel:0` is PyTorch's `cls.x.layer.0.weight`."""
    path = name.removesuffix(":0").replace("mlm___cls", "cls").replace("_._", "/")
    *parts, last = path.split("/")[1:]
    return ".".join([*parts, PYTORCH_WORDS.get(last, last)])


@pytest.mark.parametrize("model_type", TINY_CONFIGS)
def test_values_are_the_models(model_type: str, tmp_path: Path) -> None:
    """Square matrices too, whose shape does not tell whether they were transposed."""
    model = make_random(model_type)
    write_weights(model, tmp_path)
    written = load_file(tmp_path / "model.safetensors")
    expected = {
        name_by_hand(weight.name): weight.numpy().T if "/kernel:" in weight.name else weight.numpy()
        for weight in model.weights
    }
    if model_type == "albert":  # TensorFlow adds only the decoder's bias, and PyTorch only the other
        expected["predictions.bias"] = expected["predictions.decoder.bias"]
    if model_type == "mpnet":  # an untrained pooler, which PyTorch has not
        expected = {name: values for name, values in expected.items() if "pooler" not in name}
    assert written.keys() == expected.keys()
    for name, values in written.items():
        assert values.dtype == np.float32
        np.testing.assert_array_equal(values, expected[name], err_msg=name)


@pytest.mark.parametrize("model_type", ALL_TINY_CONFIGS)
def test_ours_and_the_stock_loader_read_it_with_the_same_logits(
    model_type: str,
    tmp_path: Path,
    word_tokenizer: PreTrainedTokenizerFast,
    byte_tokenizer: PreTrainedTokenizerFast,
) -> None:
    tokenizer = byte_tokenizer if model_type in PAD_IS_ONE else word_tokenizer
    model = make_random(model_type, vocab_size=len(tokenizer))
    folder = save(model, tokenizer, tmp_path / "model")
    again, _ = load_model_folder(folder)
    stock, info = TFAutoModelForMaskedLM.from_pretrained(folder, output_loading_info=True)
    # TensorFlow's ESM makes positions that it does not use, and PyTorch's does not.
    assert set(info["missing_keys"]) <= {"esm.embeddings.position_embeddings.weight"}
    expected = compute_logits(model)
    np.testing.assert_array_equal(compute_logits(again), expected)
    np.testing.assert_array_equal(compute_logits(stock), expected)


def test_large_weights_are_split_and_read_again(
    tmp_path: Path, word_tokenizer: PreTrainedTokenizerFast
) -> None:
    model = make_random("albert", vocab_size=len(word_tokenizer))
    folder = save(model, word_tokenizer, tmp_path / "model", max_shard_bytes=10_000)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 3
    assert shards[0].name == f"model-00001-of-{len(shards):05d}.safetensors"
    assert not (folder / "model.safetensors").exists()
    assert set(index["weight_map"].values()) == {path.name for path in shards}
    whole = {}
    for path in shards:
        with safe_open(path, framework="np") as file:
            assert file.metadata() == {"format": "pt"}
        weights = load_file(path)
        assert all(index["weight_map"][name] == path.name for name in weights)
        size = sum(values.nbytes for values in weights.values())
        assert size <= 10_000 or len(weights) == 1
        whole |= weights
    assert whole.keys() >= NAMES["albert"].keys()
    assert index["metadata"]["total_size"] == sum(values.nbytes for values in whole.values())
    np.testing.assert_array_equal(compute_logits(load_model_folder(folder)[0]), compute_logits(model))
    stock = TFAutoModelForMaskedLM.from_pretrained(folder)
    np.testing.assert_array_equal(compute_logits(stock), compute_logits(model))


@pytest.mark.parametrize("kept", ["predictions.bias", "predictions.decoder.bias"])
def test_alberts_bias_under_one_name_is_no_new_head(
    kept: str, tmp_path: Path, word_tokenizer: PreTrainedTokenizerFast
) -> None:
    """PyTorch leaves one of the two tied names out, and TensorFlow's own loader starts it from zero."""
    model = make_random("albert", vocab_size=len(word_tokenizer))
    folder = save(model, word_tokenizer, tmp_path / "model")
    file = folder / "model.safetensors"
    biases = {"predictions.bias", "predictions.decoder.bias"}
    weights = {name: values for name, values in load_file(file).items() if name not in biases - {kept}}
    save_file(weights, file, metadata={"format": "pt"})
    again, diagnosis = make_model(configure(folder), word_tokenizer)
    assert diagnosis == ([], [])
    np.testing.assert_array_equal(compute_logits(again), compute_logits(model))
    stock = TFAutoModelForMaskedLM.from_pretrained(folder)
    is_whole = np.array_equal(compute_logits(stock), compute_logits(model))
    assert is_whole == (kept == "predictions.decoder.bias")


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_weights_are_read_as_float32(
    dtype: type, tmp_path: Path, word_tokenizer: PreTrainedTokenizerFast
) -> None:
    model = make_random("bert", vocab_size=len(word_tokenizer))
    for weight in model.weights:
        weight.assign(weight.numpy().astype(dtype).astype(np.float32))
    folder = save(model, word_tokenizer, tmp_path / "model")
    file = folder / "model.safetensors"
    halves = {name: values.astype(dtype) for name, values in load_file(file).items()}
    save_file(halves, file, metadata={"format": "pt"})
    again, _ = load_model_folder(folder)
    assert all(weight.dtype == tf.float32 for weight in again.weights)
    np.testing.assert_array_equal(compute_logits(again), compute_logits(model))


@pytest.mark.parametrize("is_sharded", [False, True])
def test_folders_with_tensorflows_names_are_still_read(
    is_sharded: bool, tmp_path: Path, word_tokenizer: PreTrainedTokenizerFast
) -> None:
    model = make_random("bert", vocab_size=len(word_tokenizer))
    model.save_pretrained(tmp_path, safe_serialization=True, max_shard_size=20_000 if is_sharded else "5GB")
    word_tokenizer.save_pretrained(tmp_path)
    np.testing.assert_array_equal(compute_logits(load_model_folder(tmp_path)[0]), compute_logits(model))


COMMON = {
    "config.json",
    "model.safetensors",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
}


def save_random(
    folder: Path, tokenizer: PreTrainedTokenizerFast, model_type: str = "bert", **fields: object
) -> None:
    model = make_tiny(model_type, **TINY_CONFIGS[model_type] | {"vocab_size": len(tokenizer)} | fields)
    save_model_folder(model, tokenizer, folder, {"note.txt": "one"})


def test_holds_weights_configuration_tokenizer_and_texts(
    tmp_path: Path, word_tokenizer: PreTrainedTokenizerFast
) -> None:
    save_random(tmp_path / "model", word_tokenizer)
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
        save_random(tmp_path / "model", word_tokenizer)
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
    save_random(tmp_path / "model", word_tokenizer, model_type)
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
    save_random(tmp_path / "first", word_tokenizer)
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
    save_random(tmp_path / "model", word_tokenizer)
    (tmp_path / "model" / "model-00001-of-00002.safetensors").write_bytes(b"of a larger model")
    (tmp_path / ".model").mkdir()
    (tmp_path / ".model" / "half").write_text("left by a process that was killed")
    save_random(tmp_path / "model", word_tokenizer, num_hidden_layers=1)
    assert load_model_folder(tmp_path / "model")[0].config.num_hidden_layers == 1
    assert {path.name for path in (tmp_path / "model").iterdir()} == COMMON | {"vocab.txt", "note.txt"}
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("fills_with", ["weights", "tokenizer"])
def test_a_full_disk_is_one_line_and_the_older_folder_stays(
    fills_with: str, small_disk: Path, word_tokenizer: PreTrainedTokenizerFast
) -> None:
    save_random(small_disk / "model", word_tokenizer)
    before = {path.name: path.read_bytes() for path in (small_disk / "model").iterdir()}
    num_layers = 2
    if fills_with == "weights":
        num_layers = 200
    else:  # room for the weights, and some bytes more
        needed = sum(len(before[name]) for name in ("model.safetensors", "config.json"))
        leave_room(small_disk, needed + 3 * 4096)
    with pytest.raises(UserError) as caught:
        save_random(small_disk / "model", word_tokenizer, num_hidden_layers=num_layers)
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
from tests.tiny import make_tiny
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
