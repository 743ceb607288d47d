"""What a model's files lack, hold beside it or hold wrongly is told where they are read, to every command."""

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from transformers import BertConfig, PreTrainedTokenizerFast, TFBertModel, TFPreTrainedModel

from tests.finished import Finished
from tests.tiny import ALL_TINY_CONFIGS, PAD_IS_ONE
from tests.training.test_model import configure
from tests.training.test_model_folder import make_random
from tfmlm.cli.main import main
from tfmlm.errors import UserError
from tfmlm.training.model import load_model_folder, make_model
from tfmlm.training.model_folder import save_model_folder
from tfmlm.training.weights import name_output_bias

Tensors = dict[str, NDArray]


@dataclass(frozen=True)
class Saved:
    """A model of random weights, its tokenizer and its folder."""

    model: TFPreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    folder: Path

    @property
    def encoder(self) -> str:
        return f"{self.model.base_model_prefix}."

    def change(self, change: Callable[[Tensors], object]) -> None:
        file = self.folder / "model.safetensors"
        tensors = load_file(file)
        change(tensors)
        save_file(tensors, file, metadata={"format": "pt"})

    def logits(self, model: TFPreTrainedModel) -> NDArray[np.float32]:
        ids = np.array(self.tokenizer(["Return the name.", "Load"], padding=True)["input_ids"], np.int32)
        return model({"input_ids": ids, "attention_mask": np.ones_like(ids)}).logits.numpy()

    def refusal(self) -> str:
        with pytest.raises(UserError) as refused:
            load_model_folder(self.folder)
        assert "\n" not in str(refused.value)
        return str(refused.value)


@pytest.fixture(params=ALL_TINY_CONFIGS)
def saved(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    word_tokenizer: PreTrainedTokenizerFast,
    byte_tokenizer: PreTrainedTokenizerFast,
) -> Saved:
    """Of every architecture."""
    tokenizer = byte_tokenizer if request.param in PAD_IS_ONE else word_tokenizer
    model = make_random(request.param, vocab_size=len(tokenizer))
    save_model_folder(model, tokenizer, tmp_path / "model", {})
    return Saved(model, tokenizer, tmp_path / "model")


def test_every_kind_of_wrong_tensor_is_named(saved: Saved) -> None:
    """A tensor, drawn for each kind, of whatever part of the model."""
    whole = load_file(saved.folder / "model.safetensors")
    trained = sorted(name for name in whole if not name.endswith(("inv_freq", "embed_positions.weight")))
    trained = [
        name for name in trained if name != "predictions.decoder.bias"
    ]  # ALBERT's, under its second name
    rng = random.Random(saved.model.config.model_type)

    def refuse(change: Callable[[Tensors, str], object]) -> None:
        name = rng.choice(trained)
        saved.change(lambda tensors: (tensors.update(whole), change(tensors, name)))
        assert name in saved.refusal()

    def put(value: float) -> Callable[[Tensors, str], object]:
        def change(tensors: Tensors, name: str) -> None:
            tensors[name] = tensors[name].copy()
            tensors[name].flat[rng.randrange(tensors[name].size)] = value

        return change

    for value in (np.nan, np.inf, -np.inf, 3e38, -1e30):
        refuse(put(value))
    refuse(lambda tensors, name: tensors.update({name: tensors[name].view(np.int32)}))
    refuse(lambda tensors, name: tensors.update({name: tensors[name].astype(np.float64) * 1e300}))
    refuse(lambda tensors, name: tensors.update({name: np.concatenate([tensors[name], tensors[name]])}))


def test_a_tensor_that_is_missing_is_named(saved: Saved) -> None:
    """Each of the head, and some of the encoder; ALBERT's bias stands under two names."""
    whole = load_file(saved.folder / "model.safetensors")
    biases = {"predictions.bias", "predictions.decoder.bias"} & whole.keys()
    head = [name for name in whole if not name.startswith(saved.encoder) and name not in biases]
    computed = ("inv_freq", "embed_positions.weight")
    encoder = [name for name in whole if name.startswith(saved.encoder) and not name.endswith(computed)]
    drawn = random.Random(saved.model.config.model_type).sample(sorted(encoder), 3)
    for names in [*({name} for name in head + drawn), *([biases] * bool(biases)), set(head) | biases]:
        kept = {name: values for name, values in whole.items() if name not in names}
        saved.change(lambda tensors, kept=kept: (tensors.clear(), tensors.update(kept)))
        refusal = saved.refusal()
        assert all(name in refusal for name in names - {"predictions.decoder.bias"})


def test_surplus_tensors_are_refused_for_answers_and_noted_in_training(saved: Saved) -> None:
    layer = {f"{saved.encoder}encoder.layer.77.dense.weight": np.zeros((4, 4), np.float32)}
    saved.change(lambda tensors: tensors.update(layer))
    assert next(iter(layer)) in saved.refusal()
    _, diagnosis = make_model(configure(saved.folder), saved.tokenizer)
    assert diagnosis == ([], list(layer))


def test_what_belongs_to_other_tasks_is_left_out(saved: Saved) -> None:
    others = {
        f"{saved.encoder}pooler.dense.weight": np.zeros((4, 4), np.float32),
        f"{saved.encoder}embeddings.position_ids": np.arange(8)[np.newaxis],
        "cls.seq_relationship.weight": np.zeros((2, 4), np.float32),
        "classifier.bias": np.zeros(2, np.float32),
    }
    # LayoutLM's has a pooler, in PyTorch too.
    saved.change(lambda tensors: tensors.update(others | tensors))
    again, _ = load_model_folder(saved.folder)
    np.testing.assert_array_equal(saved.logits(again), saved.logits(saved.model))


HEADS = {
    "bert": ("cls.predictions.", "bert.embeddings.word_embeddings.weight"),
    "roberta": ("lm_head.", "roberta.embeddings.word_embeddings.weight"),
}
"""Beginning of the names of the head, and the input embeddings."""


@pytest.mark.parametrize("saved", HEADS, indirect=True)
def test_the_bias_of_the_output_is_read_under_its_decoders_name(saved: Saved) -> None:
    head, _ = HEADS[saved.model.config.model_type]
    saved.change(lambda tensors: tensors.update({f"{head}decoder.bias": tensors.pop(f"{head}bias")}))
    again, _ = load_model_folder(saved.folder)
    np.testing.assert_array_equal(saved.logits(again), saved.logits(saved.model))


@pytest.mark.parametrize("saved", HEADS, indirect=True)
def test_a_copy_of_a_tied_weight_is_no_surplus_and_another_decoder_is(saved: Saved) -> None:
    head, embeddings = HEADS[saved.model.config.model_type]
    decoder = f"{head}decoder.weight"
    saved.change(
        lambda tensors: tensors.update(
            {decoder: tensors[embeddings].copy(), f"{head}decoder.bias": tensors[f"{head}bias"].copy()}
        )
    )
    again, _ = load_model_folder(saved.folder)
    np.testing.assert_array_equal(saved.logits(again), saved.logits(saved.model))
    saved.change(lambda tensors: tensors.update({decoder: tensors[decoder] + 0.1}))
    assert decoder in saved.refusal()
    saved.change(
        lambda tensors: (
            tensors.pop(decoder),
            tensors.update({f"{head}decoder.bias": tensors[f"{head}bias"] + 1}),
        )
    )
    assert f"{head}decoder.bias" in saved.refusal()


@pytest.mark.parametrize("saved", ["bert"], indirect=True)
def test_names_of_the_first_bert_are_read(saved: Saved) -> None:
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}

    def rename(tensors: Tensors) -> None:
        for name in list(tensors):
            for ours, theirs in old.items():
                if name.endswith(ours):
                    tensors[name.replace(ours, theirs)] = tensors.pop(name)

    saved.change(rename)
    again, _ = load_model_folder(saved.folder)
    np.testing.assert_array_equal(saved.logits(again), saved.logits(saved.model))


# === h5 ===


def save_h5(saved: Saved) -> Path:
    """The same model in a file of TensorFlow's alone."""
    (saved.folder / "model.safetensors").unlink()
    saved.model.save_pretrained(saved.folder, safe_serialization=False)
    return saved.folder / "tf_model.h5"


def test_h5_is_read_whole_and_a_missing_tensor_is_named(saved: Saved) -> None:
    file = save_h5(saved)
    again, _ = load_model_folder(saved.folder)
    np.testing.assert_array_equal(saved.logits(again), saved.logits(saved.model))
    with h5py.File(file, "a") as opened:
        paths: list[str] = []
        opened.visititems(lambda path, item: paths.append(path) if isinstance(item, h5py.Dataset) else None)
        dropped = max(path for path in paths if "layer" in path)
        del opened[dropped]
    assert "lack 1 tensors of the " in saved.refusal()


@pytest.mark.parametrize("saved", ["bert"], indirect=True)
def test_an_h5_in_shards_is_read(saved: Saved) -> None:
    (saved.folder / "model.safetensors").unlink()
    saved.model.save_pretrained(saved.folder, safe_serialization=False, max_shard_size="20KB")
    assert (saved.folder / "tf_model.h5.index.json").exists()
    again, _ = load_model_folder(saved.folder)
    np.testing.assert_array_equal(saved.logits(again), saved.logits(saved.model))


@pytest.mark.parametrize("saved", ["distilbert", "roberta", "electra"], indirect=True)
def test_the_h5_of_another_architecture_is_refused(saved: Saved) -> None:
    save_h5(saved)
    config = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    BertConfig(vocab_size=len(saved.tokenizer), **config).save_pretrained(saved.folder)
    assert "they belong to another model or architecture" in saved.refusal()


@pytest.mark.parametrize("saved", ["bert"], indirect=True)
def test_the_h5_of_an_encoder_gets_a_head_with_the_tokens_frequencies(saved: Saved) -> None:
    (saved.folder / "model.safetensors").unlink()
    encoder = TFBertModel(BertConfig.from_pretrained(saved.folder))
    encoder.build_in_name_scope()
    encoder.save_pretrained(saved.folder, safe_serialization=False)
    model, diagnosis = make_model(configure(saved.folder), saved.tokenizer)
    assert name_output_bias(model) <= set(diagnosis.new)
    assert all(name.startswith("cls.predictions.") for name in diagnosis.new)
    assert "cls.predictions.bias" in saved.refusal()


@pytest.mark.parametrize("saved", ["bert"], indirect=True)
@pytest.mark.parametrize("damage", [b"", b"no h5", None])
def test_a_damaged_h5_is_called_damaged(saved: Saved, damage: bytes | None) -> None:
    file = save_h5(saved)
    file.write_bytes(file.read_bytes()[:4000] if damage is None else damage)
    assert "tf_model.h5' cannot be read" in saved.refusal()


@pytest.mark.parametrize("saved", ["bert"], indirect=True)
@pytest.mark.parametrize(
    "index", ["", "[]", '{"weight_map": {"a": "../secret"}}', '{"weight_map": {"a": "gone.safetensors"}}']
)
def test_an_index_names_files_beside_it(saved: Saved, index: str) -> None:
    (saved.folder / "model.safetensors").unlink()
    (saved.folder / "model.safetensors.index.json").write_text(index)
    assert "model.safetensors.index.json" in saved.refusal()


# === Every command ===


@pytest.fixture
def damaged(word_run: Finished, tmp_path: Path) -> Callable[[Callable[[Tensors], object]], Path]:
    """The model folder of a run, after a change."""

    def change(how: Callable[[Tensors], object]) -> Path:
        shutil.rmtree(tmp_path / "model", ignore_errors=True)
        shutil.copytree(word_run.model_dir, tmp_path / "model")
        tensors = load_file(tmp_path / "model" / "model.safetensors")
        how(tensors)
        save_file(tensors, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"})
        return tmp_path / "model"

    return change


CHANGES: dict[str, tuple[Callable[[Tensors], object], str]] = {
    "no head": (
        lambda tensors: [tensors.pop(name) for name in list(tensors) if name.startswith("cls.")],
        "cls.predictions.transform.dense.weight",
    ),
    "a part of the head": (
        lambda tensors: tensors.pop("cls.predictions.transform.LayerNorm.bias"),
        "cls.predictions.transform.LayerNorm.bias",
    ),
    "a surplus layer": (
        lambda tensors: tensors.update({"bert.encoder.layer.9.output.dense.bias": np.zeros(32, np.float32)}),
        "bert.encoder.layer.9.output.dense.bias",
    ),
    "not a number": (
        lambda tensors: tensors.update({"cls.predictions.bias": tensors["cls.predictions.bias"] * np.nan}),
        "cls.predictions.bias",
    ),
    "integers": (
        lambda tensors: tensors.update(
            {"cls.predictions.bias": tensors["cls.predictions.bias"].view(np.int32)}
        ),
        "cls.predictions.bias",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_no_command_answers_noise(
    change: str,
    damaged: Callable[[Callable[[Tensors], object]], Path],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    how, name = CHANGES[change]
    model_dir = damaged(how)
    for command in (
        ["predict", str(model_dir), "Return the [MASK]."],
        ["predict", str(model_dir), "Return the [MASK].", "--targets", "name"],
        ["score", str(model_dir), "Return the name."],
        ["export", str(model_dir), f"export.dir={tmp_path}/exports"],
        ["evaluate", str(model_dir)],
    ):
        capfd.readouterr()
        assert main(command) == 2, command
        printed = capfd.readouterr()
        assert name in printed.err.splitlines()[-1], command
        assert not printed.out
    assert not (tmp_path / "exports").exists()


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(
    word_run: Finished, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(word_run.model_dir, tmp_path / "model")
    file = tmp_path / "model" / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["zebra"] = max(vocabulary.values()) + 5  # with a gap, too
    file.write_text(json.dumps(tokenizer))
    for command in (
        ["predict", str(tmp_path / "model"), "the zebra [MASK]"],
        ["predict", str(tmp_path / "model"), "the [MASK]", "--targets", "zebra"],
        ["score", str(tmp_path / "model"), "the zebra"],
        ["export", str(tmp_path / "model"), f"export.dir={tmp_path}/exports"],
    ):
        assert main(command) == 2, command
        assert "and the model only" in capfd.readouterr().err.splitlines()[-1]
