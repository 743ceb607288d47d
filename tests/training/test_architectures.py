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
    TRAINED_ONLY_TINY_CONFIGS,
    make_tiny,
    with_one_layer,
)
from tests.tiny_run import Command
from tests.training.test_model import change_config
from tfmlm.config import (
    Config,
    DataConfig,
    ExportConfig,
    ModelConfig,
    RunConfig,
    TokenizerConfig,
    TrainConfig,
)
from tfmlm.config.load import dump_config
from tfmlm.errors import UserError
from tfmlm.inference.fill import load_predictor
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
def test_trains_evaluates_exports_and_predicts(
    model_type: str,
    tmp_path: Path,
    text_file: Path,
    word_tokenizer: PreTrainedTokenizerFast,
    byte_tokenizer: PreTrainedTokenizerFast,
) -> None:
    tokenizer = byte_tokenizer if model_type in PAD_IS_ONE else word_tokenizer
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    sample = f"Return the first {tokenizer.mask_token} of the {tokenizer.mask_token} array."
    config = Config(
        run=RunConfig(name=model_type, output_dir=str(tmp_path / "run"), sample_texts=[sample]),
        data=DataConfig(source="text", train_files=[str(text_file)], block_size=32),
        tokenizer=TokenizerConfig(name_or_path=str(tmp_path / "tokenizer")),
        model=ModelConfig(config={"model_type": model_type} | with_one_layer(model_type)),
        train=TrainConfig(max_steps=3, per_replica_batch_size=4),
        # Texts in the graph depend on the tokenizer alone, and those of finished runs take them.
        export=ExportConfig(dir=str(tmp_path / "exports"), text_signature="off"),
    )
    finished = run(config)

    result = finished.result
    assert result.steps == 3
    assert result.tokens == 3 * 4 * 32
    assert np.isfinite([result.perplexity, result.initial_perplexity]).all()
    assert result.perplexity != result.initial_perplexity
    assert json.loads((tmp_path / "run" / "result.json").read_text()) == asdict(result)
    says_all = f"{model_type}: logits are computed at every position" in result.notes
    assert says_all == (model_type in OTHER_TINY_CONFIGS)

    evaluated = evaluate_folder(Path(result.model_dir), [])
    assert f"{evaluated.perplexity:.6g}" == f"{result.perplexity:.6g}"

    # The run has filled its sample with the model folder.
    from_model = [candidates[:3] for candidates in finished.samples[sample]]
    (from_export,) = load_predictor(str(result.saved_model_dir), top_k=3)([sample])
    assert [len(candidates) for candidates in from_model] == [3, 3]
    for ours, exported in zip(from_model, from_export, strict=True):
        assert [c["token"] for c in ours] == [c["token"] for c in exported]
        np.testing.assert_allclose([c["score"] for c in ours], [c["score"] for c in exported], atol=1e-5)


@pytest.mark.filterwarnings("ignore:The initializer TruncatedNormal is unseeded")
@pytest.mark.long
@pytest.mark.parametrize("model_type", TRAINED_ONLY_TINY_CONFIGS)
def test_what_is_trained_only_is_saved_and_evaluated(
    model_type: str, tmp_path: Path, config: Config, command: Command
) -> None:
    fields = {"model_type": model_type} | TRAINED_ONLY_TINY_CONFIGS[model_type] | {"num_hidden_layers": 1}
    config = replace(config, model=ModelConfig(config=fields), train=replace(config.train, max_steps=2))
    result = run(config).result
    evaluated = evaluate_folder(Path(result.model_dir), [])
    assert f"{evaluated.perplexity:.6g}" == f"{result.perplexity:.6g}"
    for name, *more in (("predict", "a [MASK]"), ("score", "a"), ("export",)):
        exit_code, said = command(name, *more, on=Path(result.model_dir))
        assert exit_code == 2
        assert said.startswith(
            f"tfmlm: model type {model_type!r} can be trained and evaluated, and not be asked"
        )


@pytest.mark.parametrize("asked", ["export.enabled=true", "run.sample_texts=['a [MASK]']"])
@pytest.mark.parametrize("model_type", TRAINED_ONLY_TINY_CONFIGS)
def test_what_is_trained_only_is_refused_before_the_first_step_where_more_is_asked(
    model_type: str, asked: str, tmp_path: Path, config: Config, command: Command
) -> None:
    fields = {"model_type": model_type} | TRAINED_ONLY_TINY_CONFIGS[model_type] | {"num_hidden_layers": 1}
    (tmp_path / "config.yaml").write_text(dump_config(replace(config, model=ModelConfig(config=fields))))
    exit_code, said = command("train", asked)
    assert exit_code == 2
    assert said.startswith(f"tfmlm: {asked.partition('=')[0]} asks for an export or answers, and model type")
    assert not (tmp_path / "run" / "logs").exists()


@pytest.mark.parametrize("model_type", ["flaubert", "xlm"])
def test_layers_that_cannot_be_told_apart_have_one_rate(
    model_type: str, tmp_path: Path, config: Config, command: Command
) -> None:
    fields = {"model_type": model_type} | OTHER_TINY_CONFIGS[model_type]
    (tmp_path / "config.yaml").write_text(dump_config(replace(config, model=ModelConfig(config=fields))))
    exit_code, said = command("train", "optimizer.layer_decay=0.9")
    assert exit_code == 2
    assert "the layers of this model type cannot be told apart by their names" in said


CONFIGS = ALL_TINY_CONFIGS | TRAINED_ONLY_TINY_CONFIGS


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
    ("deberta-v2", "relative_attention", True),
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


def test_deberta_with_shared_keys_is_not_refused() -> None:
    check_architecture(AutoConfig.for_model("deberta-v2", relative_attention=True, share_att_key=True))


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
