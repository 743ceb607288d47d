"""Weights under PyTorch's names: written, read back, and compared with what PyTorch itself writes."""

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from transformers import PreTrainedTokenizerFast, TFAutoModelForMaskedLM, TFPreTrainedModel

from tests.tiny import ALL_TINY_CONFIGS, PAD_IS_ONE, TINY_CONFIGS
from tests.tiny_model import make_tiny
from tests.training.test_model import configure
from tfmlm.training.model import load_model_folder, make_model
from tfmlm.training.model_folder import save_model_folder, write_weights

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


def save(model: TFPreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path, **options: int) -> Path:
    save_model_folder(model, tokenizer, folder, {}, **options)
    return folder


def read_shapes(file: Path) -> dict[str, list[int]]:
    return {name: list(values.shape) for name, values in load_file(file).items()}


@pytest.mark.parametrize("model_type", ALL_TINY_CONFIGS)
def test_names_and_shapes_are_pytorchs(model_type: str, tmp_path: Path) -> None:
    write_weights(make_random(model_type), tmp_path)
    written = read_shapes(tmp_path / "model.safetensors")
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
    model = make_random(model_type)
    folder = save(model, byte_tokenizer if model_type in PAD_IS_ONE else word_tokenizer, tmp_path / "model")
    again, _ = load_model_folder(folder)
    stock, info = TFAutoModelForMaskedLM.from_pretrained(folder, output_loading_info=True)
    assert info["missing_keys"] == []
    expected = compute_logits(model)
    np.testing.assert_array_equal(compute_logits(again), expected)
    np.testing.assert_array_equal(compute_logits(stock), expected)


def test_large_weights_are_split_and_read_again(
    tmp_path: Path, word_tokenizer: PreTrainedTokenizerFast
) -> None:
    model = make_random("albert")
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
    assert {name: list(values.shape) for name, values in whole.items()}.items() >= NAMES["albert"].items()
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
    again, has_new_head = make_model(configure(folder), word_tokenizer)
    assert not has_new_head
    np.testing.assert_array_equal(compute_logits(again), compute_logits(model))
    stock = TFAutoModelForMaskedLM.from_pretrained(folder)
    is_whole = np.array_equal(compute_logits(stock), compute_logits(model))
    assert is_whole == (kept == "predictions.decoder.bias")


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_weights_are_read_as_float32(
    dtype: type, tmp_path: Path, word_tokenizer: PreTrainedTokenizerFast
) -> None:
    model = make_random("bert")
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
    model = make_random("bert")
    model.save_pretrained(tmp_path, safe_serialization=True, max_shard_size=20_000 if is_sharded else "5GB")
    word_tokenizer.save_pretrained(tmp_path)
    np.testing.assert_array_equal(compute_logits(load_model_folder(tmp_path)[0]), compute_logits(model))
