"""What is accepted and makes no sense is said, or refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tests.finished import Finished
from tests.tiny import ALL_TINY_CONFIGS, TINY_CONFIGS, make_tiny
from tests.tiny_run import Command
from tfmlm.cli.main import main
from tfmlm.config import Config, ExportConfig, ModelConfig, TokenizerConfig
from tfmlm.config.load import dump_config
from tfmlm.data.masking import MaskableVocabulary
from tfmlm.export.saved_model import export_saved_model
from tfmlm.inference.fill import load_predictor
from tfmlm.run import run
from tfmlm.training.model_folder import save_model_folder
from tfmlm.training.setup import set_up


@pytest.mark.parametrize("value", ["0", "0.0", "-0.1", "1.01"])
@pytest.mark.parametrize("key", ["masking.rate", "masking.evaluation_rate"])
def test_a_rate_masks_something(key: str, value: str, command: Command) -> None:
    exit_code, said = command("train", f"{key}={value}")
    assert exit_code == 2
    assert f"{key} is" in said
    assert "it must be more than 0 and at most 1" in said


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"warmup_steps": 8}, "the run has 8 steps, so the rate never reaches 5e-05"),
        ({"warmup_steps": 10_000}, "optimizer.warmup_steps is 10000"),
        ({"learning_rate": 1e-10}, "the learning rate is 1e-10 at most"),
        ({"warmup_steps": 10**7}, "the learning rate is 4e-11 at most"),
        ({"learning_rate": 10.0, "weight_decay": 0.1}, "a step leaves nothing of the weights"),
        ({"layer_decay": 1e-6}, "the lowest layers a learning rate of 5e-17"),
        ({"layer_decay": 0.0}, "the lowest layers a learning rate of 0"),
        ({"layer_decay": 0.5}, None),
        ({"warmup_steps": 7}, None),
        ({}, None),
    ],
)
def test_a_rate_that_is_never_reached_or_moves_nothing_is_noted(
    fields: dict[str, float], says: str | None, config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    notes = set_up(replace(config, optimizer=replace(config.optimizer, **fields))).notes
    about_rates = [note for note in notes if "rate" in note and "masks" not in note]
    assert [says in note for note in about_rates].count(True) == 1 if says else not about_rates
    assert all(note in caplog.messages for note in about_rates)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (
            ["masking.mask_fraction=0", "masking.random_fraction=0"],
            "would see every word that it is to",
        ),
        (
            ["model.config.hidden_dropout_prob=1.0"],
            "hidden_dropout_prob is 1.0; it must be 0 or more",
        ),
        (["model.config.attention_probs_dropout_prob=-0.5"], "attention_probs_dropout_prob is -0.5"),
    ],
)
def test_a_run_that_could_learn_nothing_is_refused(
    overrides: list[str], says: str, command: Command, tmp_path: Path
) -> None:
    exit_code, said = command("train", *overrides)
    assert exit_code == 2
    assert says in said
    assert not (tmp_path / "run" / "logs").exists()


@pytest.mark.parametrize(
    "fields",
    [
        {"model_type": "longformer", "attention_window": 5},
        {"model_type": "longformer", "attention_window": 0},
        {"model_type": "longformer", "attention_window": [4]},
        {"model_type": "bert", "hidden_size": 33},
        {"model_type": "bert", "hidden_act": "gello"},
        {"model_type": "bert", "num_attention_heads": 0},
        {"model_type": "convbert", "num_groups": 3},
        {"model_type": "deberta", "relative_attention": True, "num_attention_heads": 1},
        {"model_type": "electra", "embedding_size": "wide"},
        {"model_type": "esm", "position_embedding_type": "none"},
    ],
)
def test_fields_that_make_no_model_are_one_line_before_step_1(
    fields: dict[str, object], config: Config, command: Command, tmp_path: Path
) -> None:
    common = ALL_TINY_CONFIGS[str(fields["model_type"])]
    config = replace(config, model=ModelConfig(config=common | fields))
    (tmp_path / "config.yaml").write_text(dump_config(config))
    exit_code, said = command("train")
    assert exit_code == 2, said
    assert said.startswith(("tfmlm: model.config", "tfmlm: type"))
    assert not (tmp_path / "run" / "logs").exists()


def test_a_new_tokenizer_under_pretrained_embeddings_is_noted(
    config: Config, word_run: Finished, word_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    pretrained = ModelConfig(name_or_path=str(word_run.model_dir))

    def notes(tokenizer: TokenizerConfig) -> list[str]:
        setup = set_up(replace(config, model=pretrained, tokenizer=tokenizer))
        return [note for note in setup.notes if "the tokenizer is not that of" in note]

    assert not notes(TokenizerConfig())
    word_tokenizer.save_pretrained(tmp_path / "same")
    assert not notes(TokenizerConfig(name_or_path=str(tmp_path / "same")))
    (note,) = notes(TokenizerConfig(train_vocab_size=90))
    assert "of its words start as other words' embeddings" in note
    # Of as many words, in another order.
    fields = json.loads(word_tokenizer.backend_tokenizer.to_str())
    words = fields["model"]["vocab"]
    plain = [word for word, token_id in words.items() if token_id > 4]
    words.update(zip(plain, sorted((words[word] for word in plain), reverse=True), strict=True))
    shutil.copytree(tmp_path / "same", tmp_path / "other")
    (tmp_path / "other" / "tokenizer.json").write_text(json.dumps(fields))
    assert len(notes(TokenizerConfig(name_or_path=str(tmp_path / "other")))) == 1


def test_the_saved_tokenizer_truncates_to_what_the_model_takes(config: Config) -> None:
    model_dir = run(config).result.model_dir
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    assert tokenizer.model_max_length == 72
    assert len(tokenizer("name " * 500, truncation=True)["input_ids"]) == 72


# === Tokenizers ===


def make_with_gaps() -> PreTrainedTokenizerFast:
    """Words whose ids leave out every other number, in no order."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "return", "the", "name", "size", "of", "."]
    vocabulary = {word: 2 * number + 7 * (number % 2) for number, word in enumerate(words)}
    return make_tokenizer(vocabulary)


def make_tokenizer(vocabulary: dict[str, int], pattern: str | None = None) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    if pattern:
        split = pre_tokenizers.Split(Regex(pattern), "isolated")
        backend.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.BertPreTokenizer()])
    backend.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", special_tokens=[(word, vocabulary[word]) for word in ("[CLS]", "[SEP]")]
    )
    roles = ("pad", "unk", "cls", "sep", "mask")
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, **{f"{role}_token": f"[{role.upper()}]" for role in roles}
    )


def of_tokenizer(config: Config, tokenizer: PreTrainedTokenizerFast, folder: Path) -> Config:
    tokenizer.save_pretrained(folder)
    Path(config.data.train_files[0]).write_text(
        "return the name of the size .\nthe size of the name .\n" * 60
    )
    return replace(config, tokenizer=TokenizerConfig(name_or_path=str(folder)))


def test_ids_may_have_gaps(config: Config, tmp_path: Path) -> None:
    """From training to the export: the highest id counts, not how many there are."""
    tokenizer = make_with_gaps()
    highest = max(tokenizer.get_vocab().values())
    assert highest + 1 > len(tokenizer)
    assert set(MaskableVocabulary.from_tokenizer(tokenizer).random_ids) == {
        token_id for word, token_id in tokenizer.get_vocab().items() if not word.startswith("[")
    }
    config = of_tokenizer(config, tokenizer, tmp_path / "tokenizer")
    config = replace(config, export=ExportConfig(dir=str(tmp_path / "exports")))
    result = run(config).result
    fields = json.loads(Path(result.model_dir, "config.json").read_text())
    assert fields["vocab_size"] == highest + 1
    (from_model,), (from_export,) = (
        load_predictor(str(path), 5)(["the [MASK] of ."])
        for path in (result.model_dir, result.saved_model_dir)
    )
    assert [each["token"] for each in from_model[0]] == [each["token"] for each in from_export[0]]


@pytest.mark.parametrize("token", ["a\x00b", "\x00", "name\x00"])
def test_a_token_with_nul_leaves_the_text_signature_out_or_is_as_in_the_tokenizer(
    token: str, tmp_path: Path
) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "name", token]
    tokenizer = make_tokenizer({word: number for number, word in enumerate(words)})
    model = make_tiny("bert", **TINY_CONFIGS["bert"] | {"vocab_size": len(words), "num_hidden_layers": 1})
    save_model_folder(model, tokenizer, tmp_path / "model", {})
    export = export_saved_model(tmp_path / "model", ExportConfig(dir=str(tmp_path / "exports")), "nul")
    loaded = tf.saved_model.load(str(export.path))
    if "text" not in loaded.signatures:
        assert "takes ids and no texts" in " ".join(export.notes)
        return
    text = f"{token} [MASK] name"
    ids = tokenizer(text, return_tensors="np")["input_ids"].astype(np.int32)
    by_ids = loaded.signatures["ids"](input_ids=ids, attention_mask=np.ones_like(ids))
    by_text = loaded.signatures["text"](texts=tf.constant([text]))
    np.testing.assert_array_equal(by_text["positions"], by_ids["positions"])
    np.testing.assert_allclose(by_text["scores"], by_ids["scores"], atol=1e-6)


def test_a_panic_of_the_tokenizer_is_one_line(
    config: Config, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A regular expression that gives up on a text brings down the tokenizers library, which is of Rust."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "return", "the", "name", "size", "of", "."]
    tokenizer = make_tokenizer({word: number for number, word in enumerate(words)}, r"(x+x+)+y")
    config = of_tokenizer(config, tokenizer, tmp_path / "tokenizer")
    Path(config.data.train_files[0]).write_text(("return the name\n" * 60) + "x" * 5000 + "\n")
    (tmp_path / "config.yaml").write_text(dump_config(config))
    assert main(["train", str(tmp_path / "config.yaml")]) == 2
    said = capfd.readouterr().err
    assert "Traceback" not in said
    assert said.splitlines()[-1].startswith("tfmlm: tokenizer fails on a text (")
