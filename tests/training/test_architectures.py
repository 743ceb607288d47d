"""Every architecture goes the whole way: train, evaluate, export, predict."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from tests.tiny import PAD_IS_ONE, TINY_CONFIGS, with_one_layer
from tfmlm.config import (
    Config,
    DataConfig,
    ExportConfig,
    ModelConfig,
    RunConfig,
    TokenizerConfig,
    TrainConfig,
)
from tfmlm.export.predict import load_predictor
from tfmlm.run import evaluate_folder, run


@pytest.mark.long
@pytest.mark.parametrize("model_type", TINY_CONFIGS)
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
        export=ExportConfig(dir=str(tmp_path / "exports")),
    )
    finished = run(config)

    result = finished.result
    assert result.steps == 3
    assert result.tokens == 3 * 4 * 32
    assert np.isfinite([result.perplexity, result.initial_perplexity]).all()
    assert result.perplexity != result.initial_perplexity
    assert json.loads((tmp_path / "run" / "result.json").read_text()) == asdict(result)

    evaluated = evaluate_folder(Path(result.model_dir), [])
    assert f"{evaluated.perplexity:.6g}" == f"{result.perplexity:.6g}"

    from_model, from_export = (
        load_predictor(str(path), top_k=3)([sample])[0] for path in (result.model_dir, result.saved_model_dir)
    )
    assert [len(candidates) for candidates in from_model] == [3, 3]
    for ours, exported in zip(from_model, from_export, strict=True):
        assert [c["token"] for c in ours] == [c["token"] for c in exported]
        np.testing.assert_allclose([c["score"] for c in ours], [c["score"] for c in exported], atol=1e-5)
    assert finished.samples[sample][0][:3] == from_model[0]


@pytest.mark.long
def test_another_architecture_trains_with_all_logits_and_says_so(
    tmp_path: Path, text_file: Path, word_tokenizer: PreTrainedTokenizerFast
) -> None:
    word_tokenizer.save_pretrained(tmp_path / "tokenizer")
    fields = with_one_layer("bert") | {"embedding_size": 16}
    config = Config(
        run=RunConfig(output_dir=str(tmp_path / "run")),
        data=DataConfig(source="text", train_files=[str(text_file)], block_size=32),
        tokenizer=TokenizerConfig(name_or_path=str(tmp_path / "tokenizer")),
        model=ModelConfig(config={"model_type": "roformer"} | fields),
        train=TrainConfig(max_steps=2, per_replica_batch_size=4),
        export=ExportConfig(enabled=False),
    )
    result = run(config).result
    assert np.isfinite(result.perplexity)
    assert "roformer: logits are computed at every position" in result.notes
