"""Every architecture goes the whole way (train, evaluate, export, predict) or is refused before step 1."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from transformers import TF_MODEL_FOR_MASKED_LM_MAPPING, AutoConfig, PreTrainedTokenizerFast

from tests.tiny import (
    ALL_TINY_CONFIGS,
    OTHER_TINY_CONFIGS,
    PAD_IS_ONE,
    TINY_CONFIGS,
    make_tiny,
    with_one_layer,
)
from tests.tiny_run import Command
from tests.training.test_model import change_config
from tests.training.whole_way import assert_resumes_to_the_bit, difference_of_answers, make_run_config
from tfmlm.config import Config, ModelConfig
from tfmlm.config.load import dump_config
from tfmlm.errors import UserError
from tfmlm.inference.fill import load_predictor
from tfmlm.inference.score import load_scorer
from tfmlm.run import evaluate_folder, run
from tfmlm.run_folder import RUN_CONFIG_NAME
from tfmlm.training.architectures import SUPPORTED, check_architecture
from tfmlm.training.model_folder import save_model_folder


@pytest.fixture
def model_dir(tmp_path: Path, config: Config, word_tokenizer: PreTrainedTokenizerFast) -> Path:
    """A tiny BERT as a run leaves it."""
    model = make_tiny("bert", **TINY_CONFIGS["bert"] | {"vocab_size": len(word_tokenizer)})
    texts = {RUN_CONFIG_NAME: dump_config(config)}
    save_model_folder(model, word_tokenizer, tmp_path / "model", texts)
    return tmp_path / "model"


@pytest.mark.long
@pytest.mark.parametrize("model_type", ALL_TINY_CONFIGS)
def test_goes_the_whole_way(
    model_type: str,
    tmp_path: Path,
    word_tokenizer: PreTrainedTokenizerFast,
    byte_tokenizer: PreTrainedTokenizerFast,
) -> None:
    tokenizer = byte_tokenizer if model_type in PAD_IS_ONE else word_tokenizer
    config = make_run_config(model_type, tokenizer, tmp_path, with_one_layer(model_type))
    (sample,) = config.run.sample_texts
    finished = run(config)

    result = finished.result
    assert result.steps == 3
    assert result.tokens == 3 * 4 * 32
    assert np.isfinite([result.perplexity, result.initial_perplexity]).all()
    assert result.perplexity != result.initial_perplexity
    assert json.loads((tmp_path / "run" / "result.json").read_text()) == asdict(result)
    says_all = f"{model_type}: logits are computed at every position" in result.notes
    assert says_all == (model_type in OTHER_TINY_CONFIGS)

    evaluated = evaluate_folder(result.model_dir, [])
    assert f"{evaluated.perplexity:.6g}" == f"{result.perplexity:.6g}"

    # The run has filled its sample with the model folder.
    from_model = [candidates[:3] for candidates in finished.samples[sample]]
    (from_export,) = load_predictor(str(result.saved_model_dir), top_k=3)([sample])
    assert [len(candidates) for candidates in from_model] == [3, 3]
    assert difference_of_answers(from_model, from_export) < 1e-5

    (score,) = load_scorer(result.model_dir)(["Return the name."])
    assert score["tokens"] > 3
    assert np.isfinite(score["score"])


@pytest.mark.long
@pytest.mark.parametrize("model_type", ["deberta", "deberta-v2", "mobilebert"])
def test_resumed_is_the_same_to_the_last_bit(
    model_type: str, tmp_path: Path, word_tokenizer: PreTrainedTokenizerFast
) -> None:
    """With dropout, of which DeBERTa has a class of its own; MobileBERT's embeddings are tied here."""
    config = make_run_config(model_type, word_tokenizer, tmp_path, with_one_layer(model_type))
    assert_resumes_to_the_bit(config, tmp_path)


@pytest.mark.parametrize("model_type", ["flaubert", "xlm"])
def test_layers_that_cannot_be_told_apart_have_one_rate(
    model_type: str, tmp_path: Path, config: Config, command: Command
) -> None:
    fields = {"model_type": model_type} | OTHER_TINY_CONFIGS[model_type]
    (tmp_path / "config.yaml").write_text(dump_config(replace(config, model=ModelConfig(config=fields))))
    exit_code, said = command("train", "optimizer.layer_decay=0.9")
    assert exit_code == 2
    assert "the layers of this model type cannot be told apart by their names" in said


CONFIGS = ALL_TINY_CONFIGS


def test_what_is_supported_is_what_is_tested() -> None:
    assert set(SUPPORTED) == set(CONFIGS)


MODEL_TYPES = sorted(config.model_type for config in TF_MODEL_FOR_MASKED_LM_MAPPING)
"""Whatever transformers has a head for."""

REFUSED = [model_type for model_type in MODEL_TYPES if model_type not in CONFIGS]


@pytest.mark.parametrize("model_type", REFUSED)
def test_another_architecture_is_refused_before_the_first_step(
    model_type: str, tmp_path: Path, config: Config, command: Command
) -> None:
    of_this_type = replace(config, model=ModelConfig(config={"model_type": model_type}))
    (tmp_path / "config.yaml").write_text(dump_config(of_this_type))
    Path(config.data.train_files[0]).unlink()
    exit_code, said = command("train")
    assert exit_code == 2
    # Before the text is looked for, which is not there.
    assert said.startswith(f"tfmlm: model type {model_type!r} is not supported: ")
    assert "use one of albert, bert, " in said
    assert not (tmp_path / "run" / "logs").exists()


@pytest.mark.parametrize("model_type", REFUSED)
def test_another_architecture_is_not_exported(
    model_type: str, model_dir: Path, tmp_path: Path, command: Command
) -> None:
    """Not even one that an older version has trained."""
    AutoConfig.for_model(model_type).save_pretrained(model_dir)
    exit_code, said = command("export", f"export.dir={tmp_path}/exports", on=model_dir)
    assert exit_code == 2
    assert said.startswith(f"tfmlm: model type {model_type!r} is not supported: ")
    assert not (tmp_path / "exports").exists()


WRONG_FIELDS: list[tuple[str, str, object]] = [
    *((model_type, "is_decoder", True) for model_type in SUPPORTED),
    *((model_type, "pruned_heads", {"0": [0]}) for model_type in SUPPORTED),
    *(
        (model_type, "position_embedding_type", "relative_key")
        for model_type in ("albert", "bert", "camembert", "electra", "roberta", "xlm-roberta")
    ),
    *((model_type, "tie_word_embeddings", model_type == "rembert") for model_type in SUPPORTED),
    ("bert", "quantization_config", {"quant_method": "bitsandbytes", "load_in_8bit": True}),
    ("deberta", "legacy", False),
    ("deberta-v2", "legacy", False),
    ("deberta", "talking_head", True),
    ("esm", "position_embedding_type", "relative_key"),
    ("esm", "is_folding_model", True),
    ("flaubert", "layerdrop", 0.1),
    ("flaubert", "asm", True),
    ("flaubert", "causal", True),
    ("flaubert", "is_encoder", False),
    ("mpnet", "relative_attention_num_buckets", 16),
    ("xlm", "sinusoidal_embeddings", True),
]
"""Fields that TensorFlow or PyTorch ignores, or cannot compute with."""


@pytest.mark.parametrize(("model_type", "name", "value"), WRONG_FIELDS)
def test_a_field_that_makes_another_model_is_refused(model_type: str, name: str, value: object) -> None:
    config = AutoConfig.for_model(model_type, **CONFIGS[model_type])
    check_architecture(config)
    setattr(config, name, value)
    with pytest.raises(
        UserError, match=r"^model\.config\.\w+ is [^\n]+, and [^\n]+; use a \S+ in which [^\n]+$"
    ):
        check_architecture(config)


def test_such_a_field_is_refused_of_new_and_of_pretrained_models(
    model_dir: Path, tmp_path: Path, command: Command
) -> None:
    says = 'tfmlm: model.config.position_embedding_type is "relative_key", and TensorFlow has absolute'
    field = "model.config.position_embedding_type=relative_key"
    change_config(model_dir, position_embedding_type="relative_key")
    for arguments in ([field], ["model.config={}", f"model.name_or_path={model_dir}"]):
        exit_code, said = command("train", *arguments)
        assert exit_code == 2
        assert said.startswith(says)
        assert not (tmp_path / "run" / "logs").exists()
    exit_code, said = command("export", on=model_dir)
    assert exit_code == 2
    assert said.startswith(says)
