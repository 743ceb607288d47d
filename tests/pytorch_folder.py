"""Writes a model folder as the Hub holds it: PyTorch's names and shapes, and no TensorFlow weights."""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from transformers import PreTrainedTokenizerFast, RobertaConfig

from tests.tiny import TINY_CONFIGS


def make_pytorch_weights(config: RobertaConfig) -> dict[str, NDArray[np.float32]]:
    """Random weights under the names that PyTorch's RobertaForMaskedLM has."""
    rng = np.random.default_rng(0)
    hidden, inner = config.hidden_size, config.intermediate_size

    def normal(*shape: int) -> NDArray[np.float32]:
        return rng.normal(scale=0.02, size=shape).astype(np.float32)

    def linear(name: str, num_outputs: int, num_inputs: int) -> dict[str, NDArray[np.float32]]:
        return {f"{name}.weight": normal(num_outputs, num_inputs), f"{name}.bias": normal(num_outputs)}

    def norm(name: str) -> dict[str, NDArray[np.float32]]:
        return {f"{name}.weight": 1 + normal(hidden), f"{name}.bias": normal(hidden)}

    weights = {
        "roberta.embeddings.word_embeddings.weight": normal(config.vocab_size, hidden),
        "roberta.embeddings.position_embeddings.weight": normal(config.max_position_embeddings, hidden),
        "roberta.embeddings.token_type_embeddings.weight": normal(1, hidden),
        "lm_head.bias": normal(config.vocab_size),
        **norm("roberta.embeddings.LayerNorm"),
        **linear("lm_head.dense", hidden, hidden),
        **norm("lm_head.layer_norm"),
    }
    for number in range(config.num_hidden_layers):
        layer = f"roberta.encoder.layer.{number}"
        for part in ("query", "key", "value"):
            weights |= linear(f"{layer}.attention.self.{part}", hidden, hidden)
        weights |= linear(f"{layer}.attention.output.dense", hidden, hidden)
        weights |= norm(f"{layer}.attention.output.LayerNorm")
        weights |= linear(f"{layer}.intermediate.dense", inner, hidden)
        weights |= linear(f"{layer}.output.dense", hidden, inner)
        weights |= norm(f"{layer}.output.LayerNorm")
    return weights


def write_hub_folder(folder: Path, tokenizer: PreTrainedTokenizerFast) -> dict[str, NDArray[np.float32]]:
    """Writes config.json, model.safetensors, vocab.json and merges.txt, as distilroberta-base has them."""
    config = RobertaConfig(
        vocab_size=len(tokenizer),
        type_vocab_size=1,
        architectures=["RobertaForMaskedLM"],
        **TINY_CONFIGS["roberta"],
    )
    folder.mkdir()
    config.to_json_file(folder / "config.json", use_diff=True)
    weights = make_pytorch_weights(config)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False), encoding="utf-8")
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    return weights


def write_eli5_rows(path: Path, texts: list[str]) -> None:
    """JSON lines in the shape of ELI5: each question has several answers, as lists side by side."""
    with path.open("w", encoding="utf-8") as file:
        for number in range(0, len(texts) - 1, 2):
            answers = texts[number : number + 2]
            row = {
                "q_id": str(number),
                "title": f"Why {number}?",
                "answers": {"a_id": ["a", "b"], "text": answers, "score": [3, 1]},
            }
            file.write(json.dumps(row) + "\n")
