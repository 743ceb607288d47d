"""Folders of models that are not read here are told by what they hold."""

import json
from pathlib import Path

import pytest

from tfmlm.errors import UserError
from tfmlm.model_layouts import describe_folder, describe_layout, refuse_pointer

LAYOUTS = {
    "pickled": (["config.json", "pytorch_model.bin"], "opening a pickle can run code"),
    "pickled shards": (["config.json", "pytorch_model.bin.index.json", "a.bin"], "opening a pickle"),
    "Flax": (["config.json", "flax_model.msgpack", "tokenizer.json"], "from_flax=True"),
    "PEFT": (["adapter_config.json", "adapter_model.safetensors"], "merge it into its base model"),
    "TF1": (
        ["bert_config.json", "bert_model.ckpt.data-00000-of-00001", "bert_model.ckpt.index", "vocab.txt"],
        "Google's TensorFlow 1",
    ),
    "TF1 of a step": (["checkpoint", "model.ckpt-20.index", "model.ckpt-20.meta"], "TensorFlow 1"),
    "KerasHub": (
        ["config.json", "metadata.json", "model.weights.h5", "tokenizer.json"],
        "preset of KerasHub",
    ),
    "Keras": (["model.keras"], "Keras model"),
    "SavedModel": (["saved_model.pb", "variables/variables.index"], "SavedModel"),
    "an export": (["1/saved_model.pb"], "SavedModel"),
    "ONNX": (["config.json", "onnx/model.onnx"], "ONNX"),
    "GGUF": (["config.json", "model-q8.gguf"], "GGUF"),
    "OpenVINO": (["config.json", "openvino_model.xml", "openvino_model.bin"], "OpenVINO"),
    "old sentence-transformers": (
        ["modules.json", "0_Transformer/config.json", "0_Transformer/pytorch_model.bin", "1_Pooling/a"],
        "sentence-transformers, and its model is in the folder '0_Transformer'",
    ),
    "a run": (
        ["config.yaml", "model/config.json", "model/model.safetensors"],
        "its model is in the folder 'model'",
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_is_told_by_its_names(name: str) -> None:
    names, says = LAYOUTS[name]
    assert says in (describe_layout(names) or "")
    for weights in ("model.safetensors", "model.safetensors.index.json", "tf_model.h5"):
        assert describe_layout([*names, weights]) is None


@pytest.mark.parametrize("names", [[], ["config.json"], ["a/config.json", "b/config.json"], ["notes.txt"]])
def test_nothing_is_told_where_nothing_tells(names: list[str]) -> None:
    assert describe_layout(names) is None


def test_the_base_model_of_an_adapter_is_named(tmp_path: Path) -> None:
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps({"base_model_name_or_path": "google/b"}))
    assert "merge it into its base model 'google/b' once" in (describe_folder(tmp_path) or "")
    for content in ("{", "[]", "{}", '{"base_model_name_or_path": 3}'):
        file.write_text(content)
        assert "merge it into its base model once" in (describe_folder(tmp_path) or "")


def test_a_pointer_is_told_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"")
    refuse_pointer(file, "model 'a'")
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(UserError, match=r"model 'a': model\.safetensors is a pointer of Git LFS"):
        refuse_pointer(file, "model 'a'")
