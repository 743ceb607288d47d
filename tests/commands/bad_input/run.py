"""Mistakes in a run folder, and in what is done with a trained model."""

import shutil
from pathlib import Path

from safetensors.numpy import load_file, save_file

from tests.commands.bad_input.arrange import then, write
from tests.commands.bad_input.case import CONFIG, TRAIN, Arrange, Case


def begin_run(more: str = "", checkpoint: str = "of-another-run") -> Arrange:
    def arrange(folder: Path) -> None:
        write(f"run/checkpoints/{checkpoint}/state.index", "nothing")(folder)
        write("run/config.yaml", CONFIG.format(folder=folder) + more)(folder)

    return arrange


def put_tokenizer(name: str) -> Arrange:
    return lambda folder: shutil.copytree(folder / "tokens", folder / name)


def keep_config(folder: Path) -> None:
    """So that the model folder counts as one of a run."""
    write("model/run_config.yaml", CONFIG.format(folder=folder))(folder)


RUNS = [
    Case("a folder below a file", f"{TRAIN} run.output_dir={{folder}}/texts.txt/run", "cannot be written"),
    Case("a folder in use", f"{TRAIN} run.output_dir={{folder}}/model", "is not empty and holds no run"),
    Case(
        "another run",
        TRAIN,
        "another configuration (optimizer.learning_rate)",
        begin_run("optimizer: {learning_rate: 0.5}\n"),
    ),
    Case(
        "a checkpoint that is damaged",
        TRAIN,
        "remove the folder to start anew",
        begin_run(checkpoint="step-00000001"),
    ),
    Case("a run that must not resume", f"{TRAIN} train.resume=never", "train.resume is never", begin_run()),
    Case(
        "a result that is none",
        TRAIN,
        "result.json' cannot be read",
        then(begin_run(), write("run/result.json", "[]")),
    ),
    Case(
        "a run with a damaged configuration",
        TRAIN,
        "not valid YAML",
        then(begin_run(), write("run/config.yaml", "{")),
    ),
    Case("no run to evaluate", "evaluate {folder}", "is no finished run"),
    Case(
        "a damaged configuration beside the model",
        "evaluate {folder}/model",
        "not valid YAML",
        write("model/run_config.yaml", "["),
    ),
    Case("no run to push", "push {folder}", "is no finished run"),
]

HEAD_NAMES = ("lm_head.bias", "lm_head.dense", "lm_head.layer_norm")


def drop_head(folder: Path) -> None:
    """As an encoder is saved that was trained for something else."""
    file = folder / "model" / "model.safetensors"
    weights = {name: values for name, values in load_file(file).items() if not name.startswith(HEAD_NAMES)}
    save_file(weights, file, metadata={"format": "pt"})


NO_HEAD = "lack 5 tensors of the masked-LM head (lm_head."

PREDICT_AND_EXPORT = [
    Case("a model without a head", "predict {folder}/model a\u00a0<mask>", NO_HEAD, drop_head),
    Case("targets for it", "predict {folder}/model a\u00a0<mask> --targets=a", NO_HEAD, drop_head),
    Case("scores of it", "score {folder}/model a", NO_HEAD, drop_head),
    Case("an export of it", "export {folder}/model", NO_HEAD, then(keep_config, drop_head)),
    Case("an evaluation of it", "evaluate {folder}/model", NO_HEAD, then(keep_config, drop_head)),
    Case("no model", "predict {folder}/nowhere/x a\u00a0<mask>", "is not a folder"),
    Case("a text without a mask", "predict {folder}/model no\u00a0mask", "has no mask; write <mask>"),
    Case(
        "a text that is too long",
        "predict {folder}/model <mask>" + "\u00a0a" * 100,
        "the model takes 70; shorten it",
    ),
    Case("no candidates", "predict {folder}/model <mask> --top-k 0", "--top-k is 0; it must be 1 or more"),
    Case(
        "a SavedModel that is none",
        "predict {folder}/saved <mask>",
        "saved",
        write("saved/1/saved_model.pb", "nothing"),
    ),
    Case(
        "words for a SavedModel that is none",
        "predict {folder}/saved <mask> --targets list",
        "is no export of tfmlm, or damaged",
        then(write("saved/1/saved_model.pb", "nothing"), put_tokenizer("saved/1/assets.extra/tokenizer")),
    ),
    Case(
        "an output below a file",
        "predict {folder}/model <mask> --output {folder}/texts.txt/x",
        "texts.txt/x' cannot be written: Not a directory",
    ),
    Case(
        "half a letter in JSON",
        "predict {folder}/model --input {folder}/rows.jsonl",
        "rows.jsonl row 2 is not Unicode: character 8 is a lone surrogate",
        write("rows.jsonl", '{"text": "a <mask>"}\n{"text": "<mask> \\ud800"}\n'),
    ),
    Case(
        "an argument that is no UTF-8",
        "predict {folder}/model <mask>\udcff",
        "is not Unicode: character 7 is a lone surrogate",
    ),
    Case("a score of no UTF-8", "score {folder}/model \udcff", "is not Unicode"),
    Case("an export of no run", "export {folder}/model", "has no run_config.yaml"),
    Case(
        "an export below a file",
        "export {folder}/model export.dir={folder}/texts.txt",
        "failed",
        keep_config,
    ),
    Case(
        "candidates in an export",
        "export {folder}/model export.top_k=0",
        "export.top_k is 0",
        keep_config,
    ),
]
