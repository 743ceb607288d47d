"""Every architecture through train, evaluate, predict, score, export, resume, and to PyTorch and back.

    TFMLM_PYTORCH_PYTHON=/path/to/python python -m tests.training.whole_way docs/architectures.md

writes the table of the documentation; `make architectures` does.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import TF_MODEL_FOR_MASKED_LM_MAPPING, PreTrainedTokenizerFast

from tests.tiny import ALL_TINY_CONFIGS, SENTENCES
from tests.tiny_run import PowerCutError, assert_same_weights, cut_after, in_folder
from tfmlm.config import (
    Config,
    DataConfig,
    ExportConfig,
    ModelConfig,
    RunConfig,
    TokenizerConfig,
    TrainConfig,
)
from tfmlm.data.tokenizer_training import train_tokenizer
from tfmlm.data.tokenizers import save_tokenizer_folder
from tfmlm.errors import UserError
from tfmlm.inference.fill import load_predictor
from tfmlm.inference.score import load_scorer
from tfmlm.results import Candidate
from tfmlm.run import evaluate_folder, run
from tfmlm.training.model import load_model_folder


def make_run_config(
    model_type: str, tokenizer: PreTrainedTokenizerFast, folder: Path, fields: dict[str, Any]
) -> Config:
    """Three steps with dropout on the sentences of the tests, and an export without texts."""
    save_tokenizer_folder(tokenizer, folder / "tokenizer")
    texts = folder / "texts.txt"
    texts.write_text("\n".join(SENTENCES * 4), encoding="utf-8")
    mask = tokenizer.mask_token
    return Config(
        run=RunConfig(
            name=model_type,
            output_dir=str(folder / "run"),
            sample_texts=[f"Return the first {mask} of the {mask} array."],
        ),
        data=DataConfig(source="text", train_files=[str(texts)], block_size=32),
        tokenizer=TokenizerConfig(name_or_path=str(folder / "tokenizer")),
        model=ModelConfig(config={"model_type": model_type} | fields),
        train=TrainConfig(max_steps=3, per_replica_batch_size=4),
        # Texts in the graph depend on the tokenizer alone, and those of finished runs take them.
        export=ExportConfig(dir=str(folder / "exports"), text_signature="off"),
    )


def difference_of_answers(first: list[list[Candidate]], second: list[list[Candidate]]) -> float:
    """Largest difference of the scores; infinite where the words differ."""
    pairs = [pair for masks in zip(first, second, strict=True) for pair in zip(*masks, strict=False)]
    if any(ours["token"] != theirs["token"] for ours, theirs in pairs):
        return float("inf")
    return max(abs(ours["score"] - theirs["score"]) for ours, theirs in pairs)


def assert_resumes_to_the_bit(config: Config, folder: Path) -> None:
    """A run cut after its checkpoint ends with the bits of one that was not cut."""
    config = replace(
        config,
        run=replace(config.run, sample_texts=[]),
        train=replace(config.train, max_steps=4, checkpoint_every_steps=2),
        export=replace(config.export, enabled=False),
    )
    run(in_folder(config, folder / "whole"))
    with pytest.MonkeyPatch.context() as patch:
        cut_after(3, patch)
        with pytest.raises(PowerCutError):
            run(in_folder(config, folder / "resumed"))
    run(in_folder(config, folder / "resumed"))
    assert_same_weights(folder / "whole", folder / "resumed")


# === The table ===

STEPS = (
    *("train", "evaluate", "predict", "score", "export", "predict from the export", "resume"),
    "PyTorch, both ways",
)


def walk(model_type: str, folder: Path, python: str) -> Iterator[str]:
    """What each of `STEPS` came to, in order."""
    tokenizer = train_tokenizer([SENTENCES], TokenizerConfig(train_vocab_size=300), model_type)
    config = make_run_config(model_type, tokenizer, folder, ALL_TINY_CONFIGS[model_type])
    config = replace(config, train=replace(config.train, max_steps=8))
    (sample,) = config.run.sample_texts
    finished = run(config)
    result = finished.result
    yield f"{result.initial_perplexity:.2f} to {result.perplexity:.2f}"
    evaluated = evaluate_folder(result.model_dir, [])
    yield "the same" if evaluated.perplexity == result.perplexity else f"{evaluated.perplexity:.6f}"
    from_model = load_predictor(result.model_dir, top_k=5)([sample])[0]
    yield f"{len(from_model)} masks"
    (score,) = load_scorer(result.model_dir)(["Return the name."])
    yield f"{score['score']:.2f}"
    assert result.saved_model_dir
    yield "yes"
    from_export = load_predictor(result.saved_model_dir, top_k=5)([sample])[0]
    yield f"{difference_of_answers(from_model, from_export):.0e}"
    assert_resumes_to_the_bit(config, folder)
    yield "the same bits"
    yield " and ".join(f"{value:.0e}" for value in exchange(Path(result.model_dir), folder, python))


def exchange(model_dir: Path, folder: Path, python: str) -> tuple[float, float]:
    """Largest difference of logits: PyTorch with our weights, and TensorFlow with PyTorch's."""
    for part in ("ours", "theirs", "inputs"):
        (folder / part).mkdir()
    shutil.copytree(model_dir, folder / "ours" / "model")
    model, tokenizer = load_model_folder(model_dir)
    inputs = dict(tokenizer(SENTENCES[:8], padding=True, return_tensors="np"))
    inputs = {name: inputs[name].astype(np.int32) for name in ("input_ids", "attention_mask")}
    np.savez(folder / "inputs" / "model.npz", texts=SENTENCES[:1], **inputs)
    script = Path(__file__).with_name("pytorch_side.py")
    subprocess.run([python, str(script), str(folder)], check=True, capture_output=True)
    found = json.loads((folder / "ours" / "model.json").read_text())
    assert found["problems"] == {}, found["problems"]
    for path in model_dir.glob("*token*"):
        shutil.copy(path, folder / "theirs" / "model")
    attended = inputs["attention_mask"] == 1
    theirs, _ = load_model_folder(folder / "theirs" / "model")
    differences = [
        float(np.abs(ours(inputs).logits.numpy() - np.load(folder / f"{part}.npy"))[attended].max())
        for ours, part in ((model, "ours/model"), (theirs, "theirs/model"))
    ]
    return differences[0], differences[1]


_TEXT = """# Architectures

Every type for which transformers has a TensorFlow masked-LM class, in a tiny configuration with dropout.
A figure is a perplexity before and after eight steps, a score, or the largest difference: of probabilities
from the export to those of the model folder, and of PyTorch's logits (transformers 5) to TensorFlow's with
the same weights, ours there and PyTorch's here. `make architectures` writes this table; `make test-pytorch`
draws further configurations.

"""


def make_table(python: str) -> str:
    """The page, in Markdown."""
    model_types = sorted({config.model_type for config in TF_MODEL_FOR_MASKED_LM_MAPPING})
    rows = [f"| type | {' | '.join(STEPS)} |", "|" + " --- |" * (len(STEPS) + 1)]
    for model_type in model_types:
        if model_type not in ALL_TINY_CONFIGS:
            rows.append(f"| {model_type} | {_read_refusal(model_type)} |" + " |" * (len(STEPS) - 1))
            continue
        with tempfile.TemporaryDirectory() as folder:
            cells = list(_until_it_fails(walk(model_type, Path(folder), python)))
        rows.append(f"| {model_type} | {' | '.join(cells + [''] * (len(STEPS) - len(cells)))} |")
        print(rows[-1], file=sys.stderr, flush=True)
    return _TEXT + "\n".join(rows) + "\n"


def _until_it_fails(steps: Iterator[str]) -> Iterator[str]:
    try:
        yield from steps
    except Exception as error:  # noqa: BLE001 the table says what failed
        yield f"fails: {type(error).__name__}: {str(error).splitlines()[0][:80]}"


def _read_refusal(model_type: str) -> str:
    with pytest.raises(UserError) as refused:
        run(Config(model=ModelConfig(config={"model_type": model_type}), data=DataConfig(source="text")))
    return "refused before step 1: " + str(refused.value).partition(": ")[2].partition(";")[0]


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(make_table(os.environ["TFMLM_PYTORCH_PYTHON"]), encoding="utf-8")
