"""Loading and making models."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from transformers import AutoConfig, BertConfig, PreTrainedTokenizerFast, TFBertModel, ViTConfig

from tests.tiny import OTHER_TINY_CONFIGS, SENTENCES, TINY_CONFIGS, make_tiny, write_hub_folder
from tfmlm.config import Config, DataConfig, ModelConfig, TokenizerConfig
from tfmlm.data.tokenizer_training import train_tokenizer
from tfmlm.data.tokenizers import PADS_AT_ONE
from tfmlm.errors import UserError
from tfmlm.training.architectures import max_block_size
from tfmlm.training.model import _check_tokenizer, load_model_folder, make_model, set_output_bias
from tfmlm.training.model_folder import save_model_folder
from tfmlm.training.weights import name_output_bias


def configure(name_or_path: object = None, block_size: int = 32, **fields: object) -> Config:
    return Config(
        data=DataConfig(block_size=block_size),
        model=ModelConfig(name_or_path=str(name_or_path) if name_or_path else None, config=fields),
    )


@pytest.fixture
def hub_folder(tmp_path: Path, byte_tokenizer: PreTrainedTokenizerFast) -> Path:
    write_hub_folder(tmp_path / "hub", byte_tokenizer)
    return tmp_path / "hub"


def test_pytorch_keyed_weights_arrive_whole(tmp_path: Path, byte_tokenizer: PreTrainedTokenizerFast) -> None:
    weights = write_hub_folder(tmp_path / "hub", byte_tokenizer)
    model, diagnosis = make_model(configure(tmp_path / "hub"), byte_tokenizer)
    assert diagnosis == ([], [])
    encoder = model.roberta
    np.testing.assert_array_equal(
        encoder.embeddings.weight, weights["roberta.embeddings.word_embeddings.weight"]
    )
    np.testing.assert_array_equal(
        encoder.encoder.layer[1].intermediate.dense.kernel,
        weights["roberta.encoder.layer.1.intermediate.dense.weight"].T,
    )
    np.testing.assert_array_equal(model.lm_head.bias, weights["lm_head.bias"])
    assert len(model.weights) == len(weights)


def test_fields_replace_those_of_the_pretrained_configuration(
    hub_folder: Path, byte_tokenizer: PreTrainedTokenizerFast
) -> None:
    model, _ = make_model(configure(hub_folder, hidden_dropout_prob=0.25), byte_tokenizer)
    assert model.config.hidden_dropout_prob == 0.25


def test_an_encoder_without_a_head_gets_a_new_one(
    tmp_path: Path, word_tokenizer: PreTrainedTokenizerFast
) -> None:
    whole = make_tiny("bert", **TINY_CONFIGS["bert"] | {"vocab_size": len(word_tokenizer)})
    whole.save_pretrained(tmp_path, safe_serialization=True)
    weights = load_file(tmp_path / "model.safetensors")
    encoder = {name: value for name, value in weights.items() if "mlm" not in name}
    assert len(encoder) < len(weights)
    save_file(encoder, tmp_path / "model.safetensors", metadata={"format": "tf"})
    model, diagnosis = make_model(configure(tmp_path), word_tokenizer)
    assert name_output_bias(model) <= set(diagnosis.new)


def test_a_pytorch_encoder_alone_arrives_whole_and_gets_a_new_head(
    tmp_path: Path, word_tokenizer: PreTrainedTokenizerFast
) -> None:
    """As `BertModel.save_pretrained` writes it: without the prefix `bert.`."""
    whole = make_tiny("bert", **TINY_CONFIGS["bert"] | {"vocab_size": len(word_tokenizer)})
    save_model_folder(whole, word_tokenizer, tmp_path / "model", {})
    file = tmp_path / "model" / "model.safetensors"
    weights = {
        name.removeprefix("bert."): values
        for name, values in load_file(file).items()
        if name.startswith("bert.")
    }
    save_file(weights, file, metadata={"format": "pt"})
    model, diagnosis = make_model(configure(tmp_path / "model"), word_tokenizer)
    assert name_output_bias(model) <= set(diagnosis.new)
    for first, second in zip(whole.bert.weights, model.bert.weights, strict=True):
        np.testing.assert_array_equal(first, second, err_msg=first.name)


def test_the_new_heads_bias_is_the_log_frequency_without_padding() -> None:
    from datasets import Dataset

    from tfmlm.data.blocks import PackedBlocks

    model = make_tiny("bert", **TINY_CONFIGS["bert"])
    columns = {
        "input_ids": [[7, 7, 7, 8, 0, 0]] * 10,
        "num_tokens": [4] * 10,
        "example_id": list(range(10)),
    }
    set_output_bias(model, PackedBlocks(Dataset.from_dict(columns)))
    bias = model.mlm.predictions.bias.numpy()
    assert np.exp(bias).sum() == pytest.approx(1.0, rel=1e-5)
    assert bias[7] - bias[8] == pytest.approx(np.log(31 / 11), rel=1e-5)
    assert bias[9] == bias[10] == bias.min()


# === A head that is missing ===


def drop_tensors(folder: Path, dropped: set[str]) -> None:
    file = folder / "model.safetensors"
    kept = {name: values for name, values in load_file(file).items() if name not in dropped}
    save_file(kept, file, metadata={"format": "pt"})


@pytest.mark.parametrize("is_safe", [True, False], ids=["safetensors", "h5"])
def test_an_encoder_with_tensorflows_names_does_not_answer_and_gets_a_new_head_in_training(
    is_safe: bool, tmp_path: Path, word_tokenizer: PreTrainedTokenizerFast
) -> None:
    config = BertConfig(**TINY_CONFIGS["bert"], vocab_size=len(word_tokenizer))
    encoder = TFBertModel(config)
    encoder.build_in_name_scope()
    encoder.save_pretrained(tmp_path, safe_serialization=is_safe)
    word_tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"lack 5 tensors of the masked-LM head \(cls.predictions.bias, "):
        load_model_folder(tmp_path)
    model, diagnosis = make_model(configure(tmp_path), word_tokenizer)
    assert name_output_bias(model) <= set(diagnosis.new)
    for first, second in zip(encoder.bert.embeddings.weights, model.bert.embeddings.weights, strict=True):
        np.testing.assert_array_equal(first, second)


def test_weights_of_another_architecture_in_h5_are_refused(
    tmp_path: Path, word_tokenizer: PreTrainedTokenizerFast
) -> None:
    other = make_tiny("distilbert", **TINY_CONFIGS["distilbert"] | {"vocab_size": len(word_tokenizer)})
    other.save_pretrained(tmp_path, safe_serialization=False)
    BertConfig(**TINY_CONFIGS["bert"], vocab_size=len(word_tokenizer)).save_pretrained(tmp_path)
    word_tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="they belong to another model or architecture"):
        load_model_folder(tmp_path)


def test_a_part_of_a_head_is_trained_on_with_the_rest_as_it_is(
    tmp_path: Path, word_tokenizer: PreTrainedTokenizerFast
) -> None:
    whole = make_tiny("bert", **TINY_CONFIGS["bert"] | {"vocab_size": len(word_tokenizer)})
    save_model_folder(whole, word_tokenizer, tmp_path / "model", {})
    drop_tensors(tmp_path / "model", {"cls.predictions.transform.dense.bias"})
    model, diagnosis = make_model(configure(tmp_path / "model"), word_tokenizer)
    assert diagnosis == (["cls.predictions.transform.dense.bias"], [])
    assert not name_output_bias(model) & set(diagnosis.new)


# === Where padding stands ===


PADDING_FIXED = sorted(PADS_AT_ONE)


@pytest.mark.parametrize("algorithm", ["wordpiece", "byte_bpe", "unigram"])
@pytest.mark.parametrize("model_type", PADDING_FIXED)
def test_a_trained_tokenizer_pads_where_the_model_does(model_type: str, algorithm: str) -> None:
    config = TokenizerConfig(train_vocab_size=300, algorithm=algorithm)
    tokenizer = train_tokenizer([SENTENCES], config, model_type)
    assert tokenizer.pad_token_id == 1
    assert sorted(tokenizer.all_special_ids) == [0, 1, 2, 3, 4]
    assert tokenizer("Return")["input_ids"][0] == tokenizer.cls_token_id
    _check_tokenizer(AutoConfig.for_model(model_type, pad_token_id=1), tokenizer)


@pytest.mark.parametrize("model_type", PADDING_FIXED)
def test_padding_elsewhere_is_refused(
    model_type: str, word_tokenizer: PreTrainedTokenizerFast, byte_tokenizer: PreTrainedTokenizerFast
) -> None:
    at_one = AutoConfig.for_model(model_type, pad_token_id=1)
    with pytest.raises(UserError, match=r"takes token 1 for padding, and \[PAD\] is 0; "):
        _check_tokenizer(at_one, word_tokenizer)
    at_zero = AutoConfig.for_model(model_type, pad_token_id=0)
    with pytest.raises(UserError, match=r"and pad_token_id of its config.json is 0; "):
        _check_tokenizer(at_zero, byte_tokenizer)


def test_the_position_of_the_padding_is_told_before_training_and_before_an_answer(
    hub_folder: Path, word_tokenizer: PreTrainedTokenizerFast
) -> None:
    word_tokenizer.save_pretrained(hub_folder)
    (hub_folder / "vocab.json").unlink(missing_ok=True)
    for load in (
        lambda: make_model(configure(hub_folder), word_tokenizer),
        lambda: load_model_folder(hub_folder),
        lambda: make_model(configure(model_type="roberta", **TINY_CONFIGS["roberta"]), word_tokenizer),
    ):
        with pytest.raises(UserError, match="takes token 1 for padding"):
            load()


@pytest.mark.parametrize("model_type", ["flaubert", "xlm"])
def test_a_new_model_without_an_attention_mask_takes_the_tokenizers_padding_for_padding(
    model_type: str, word_tokenizer: PreTrainedTokenizerFast
) -> None:
    fields = OTHER_TINY_CONFIGS[model_type].copy()
    del fields["pad_index"]
    model, _ = make_model(configure(model_type=model_type, **fields), word_tokenizer)
    # Three, for with one the only [CLS], which their own default takes for padding, makes up for it.
    ids = np.array([word_tokenizer("Return the name.")["input_ids"] + [word_tokenizer.pad_token_id] * 3])
    is_token = (ids != word_tokenizer.pad_token_id).astype(np.int32)
    with_mask = model(ids, attention_mask=is_token).logits
    np.testing.assert_allclose(model(ids).logits[is_token == 1], with_mask[is_token == 1], atol=1e-6)


@pytest.mark.parametrize("model_type", ["longformer", "roberta-prelayernorm"])
def test_positions_count_from_the_one_after_padding(model_type: str) -> None:
    assert max_block_size(AutoConfig.for_model(model_type, max_position_embeddings=72)) == 70


@pytest.mark.parametrize("model_type", TINY_CONFIGS)
def test_the_longest_block_runs_and_one_more_does_not_fit(model_type: str) -> None:
    model = make_tiny(model_type, **TINY_CONFIGS[model_type])
    longest = max_block_size(model.config)
    model(np.full((1, longest), 7, np.int32))
    embeddings = model.get_input_embeddings()
    positions = getattr(embeddings, "position_embeddings", None)
    num_positions = 72 if positions is None else positions.shape[0]
    offset = 2 if model_type in {"camembert", "mpnet", "roberta", "xlm-roberta"} else 0
    assert longest == num_positions - offset


def test_an_export_knows_the_models_length(hub_folder: Path) -> None:
    _, tokenizer = load_model_folder(hub_folder)
    assert tokenizer.model_max_length == 70


def test_code_that_a_known_model_brings_is_not_run(
    tmp_path: Path,
    hub_folder: Path,
    byte_tokenizer: PreTrainedTokenizerFast,
    caplog: pytest.LogCaptureFixture,
) -> None:
    classes = {
        name: f"own.{name}" for name in ("AutoConfig", "AutoModelForMaskedLM", "TFAutoModelForMaskedLM")
    }
    change_config(hub_folder, auto_map=classes)
    (hub_folder / "own.py").write_text("raise SystemExit('this code must not run')\n")
    model, tokenizer = load_model_folder(hub_folder)
    assert type(model).__name__ == "TFRobertaForMaskedLM"
    assert "code of its own (auto_map), which is not run: roberta is the library's" in caplog.text
    save_model_folder(model, tokenizer, tmp_path / "saved", {})
    assert "auto_map" not in (tmp_path / "saved" / "config.json").read_text()


def put_in_hub_cache(folder: Path, name: str) -> None:
    """As `huggingface_hub` has it after a download; the tests are offline."""
    repository = Path(os.environ["HF_HOME"], "hub", f"models--{name.replace('/', '--')}")
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    shutil.copytree(folder, repository / "snapshots" / ("0" * 40))


def test_split_weights_are_read_from_the_hub(tmp_path: Path, word_tokenizer: PreTrainedTokenizerFast) -> None:
    model = make_tiny("bert", **TINY_CONFIGS["bert"] | {"vocab_size": len(word_tokenizer)})
    save_model_folder(model, word_tokenizer, tmp_path / "model", {}, max_shard_bytes=20_000)
    put_in_hub_cache(tmp_path / "model", "someone/split")
    again, _ = load_model_folder("someone/split")
    for first, second in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(first, second, err_msg=first.name)


def test_pickled_weights_are_not_read_from_the_hub(tmp_path: Path) -> None:
    BertConfig().save_pretrained(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    put_in_hub_cache(tmp_path, "someone/pickled")
    with pytest.raises(
        UserError, match=r"^model 'someone/pickled' has no weights .*; pickled PyTorch weights are not read"
    ):
        load_model_folder("someone/pickled")


def change_config(folder: Path, **fields: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def write_folders_without_a_model(folder: Path) -> None:
    """No weights; pickled ones; a model that is code of its own."""
    no_weights = folder / "no_weights"
    no_weights.mkdir()
    BertConfig().save_pretrained(no_weights)
    pickled = folder / "pickled"
    shutil.copytree(no_weights, pickled)
    (pickled / "pytorch_model.bin").write_bytes(b"")
    coded = folder / "coded"
    coded.mkdir()
    (coded / "model.safetensors").write_bytes(b"")
    auto_map = {"AutoConfig": "own.OwnConfig", "AutoModelForMaskedLM": "own.OwnModel"}
    (coded / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": auto_map}))
    (coded / "own.py").write_text("raise SystemExit('this code must not run')\n")


def write_folders_that_do_not_fit(folder: Path, hub_folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """Weights and configurations that are whole, or nearly, and not of each other; `bert` is whole."""
    bert = folder / "bert"
    make_tiny("bert", **TINY_CONFIGS["bert"]).save_pretrained(bert, safe_serialization=True)
    for name in ("untied", "vision", "other", "broken"):
        shutil.copytree(hub_folder, folder / name)
    change_config(folder / "untied", tie_word_embeddings=False)
    ViTConfig().save_pretrained(folder / "vision")
    shutil.copy(bert / "model.safetensors", folder / "other")
    (folder / "broken" / "model.safetensors").write_bytes(b"not safetensors")
    other_architecture = folder / "other_architecture"
    shutil.copytree(bert, other_architecture)
    shutil.copy(hub_folder / "model.safetensors", other_architecture)
    other_in_parts = folder / "other_in_parts"
    roberta = make_tiny("roberta", **TINY_CONFIGS["roberta"])
    save_model_folder(roberta, tokenizer, other_in_parts, {}, max_shard_bytes=20_000)
    shutil.copy(bert / "config.json", other_in_parts)


BAD_FOLDERS = {
    "nowhere/x": "is not a folder",
    "": "has no config.json",
    "no_weights": "has no weights",
    "pickled": "has no weights (model.safetensors or tf_model.h5); pickled PyTorch weights are not",
    "coded": "needs code of its own (auto_map), which is never run",
    "untied": "tie_word_embeddings is false",
    "vision": "'vit' has no TensorFlow masked-LM head",
    "other": "tensors of the encoder",
    "other_architecture": "tensors of the encoder",
    "other_in_parts": "tensors of the encoder",
    "broken": "cannot be read",
    "bert": "use the model's own tokenizer",
}
"""What is said of each folder."""


def test_bad_models_are_named_in_one_line(
    tmp_path: Path, hub_folder: Path, byte_tokenizer: PreTrainedTokenizerFast
) -> None:
    write_folders_without_a_model(tmp_path)
    write_folders_that_do_not_fit(tmp_path, hub_folder, byte_tokenizer)
    scratch = TINY_CONFIGS["bert"]
    cases = [
        *((configure(tmp_path / name), expected) for name, expected in BAD_FOLDERS.items()),
        (configure("nobody/nothing"), "cannot be loaded"),
        (configure("package:no_such_package/model"), "is not installed"),
        (configure(hub_folder, block_size=71), "over the model's maximum of 70"),
        (configure(hub_folder, hiden_size=3), "did you mean 'hidden_size'"),
        (configure(model_type="brt"), "did you mean 'bert'"),
        (configure(model_type="vit"), "has no TensorFlow masked-LM head"),
        (configure(model_type="bert", block_size=100, **scratch), "over the model's maximum of 72"),
    ]
    for config, expected in cases:
        with pytest.raises(UserError) as caught:
            make_model(config, byte_tokenizer)
        assert expected in str(caught.value), config.model
        assert "\n" not in str(caught.value)
