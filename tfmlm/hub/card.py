"""The model card: `README.md` in a run's `model/`, and the picture that it shows."""

from __future__ import annotations

import json
import math
import os
import platform
import posixpath
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import version
from typing import NamedTuple

import tensorflow as tf
from huggingface_hub import EvalResult, ModelCardData

from tfmlm import __version__
from tfmlm.atomic_files import begin_file, write_atomically
from tfmlm.config import FILE_SOURCES, Config
from tfmlm.data.shards import is_shard_folder
from tfmlm.data.tokenizers import load_tokenizer
from tfmlm.errors import UserError, first_line
from tfmlm.export_layout import DESCRIPTION_FILE
from tfmlm.hub.redaction import list_settings, redact_path
from tfmlm.model_names import is_hub_id
from tfmlm.results import Result
from tfmlm.run_folder import RunFolder
from tfmlm.training.optimizer import count_warmup_steps
from tfmlm.training.strategy import choose_precision

CARD_NAME = "README.md"
PICTURE_NAME = "training.png"
_PLOT = "loss.png"
_MOST_FILES = 5
"""Files that are named in the text; the settings hold all."""


class TrainingEnvironment(NamedTuple):
    """The training's surroundings, which neither the configuration nor the result tells.

    Attributes:
        devices: what the run computed on, such as `1 CPU`.
        notes: what the person should know of the training, one sentence each, without paths.
        blocks_per_step: blocks that all devices and accumulation steps of a step see.
    """

    devices: str
    notes: list[str]
    blocks_per_step: int


def write_card(config: Config, folder: RunFolder, result: Result, environment: TrainingEnvironment) -> None:
    """Writes the card and its picture beside the weights.

    Nothing in it says where on the training machine something lies, or who trained it.

    Raises:
        UserError: they cannot be written.
    """
    mask_token = str(load_tokenizer(folder.model_dir).mask_token)
    usage = Usage(
        text=choose_text(config.run.sample_texts, mask_token),
        takes_texts=_takes_texts(result),
        versions=_list_versions("transformers", "tensorflow", "tf-keras"),
    )
    metadata = _make_metadata(config, result, usage.text).to_yaml()
    body = "\n".join(
        [
            _describe_model(config, folder, result),
            _describe_data(config, result),
            _describe_training(config, result, environment),
            describe_usage(config, usage),
            _describe_settings(config),
        ]
    )
    try:
        with begin_file(folder.model_dir / PICTURE_NAME) as unfinished:
            shutil.copyfile(folder.plots_dir / _PLOT, unfinished)
        write_atomically(folder.model_dir / CARD_NAME, f"---\n{metadata}\n---\n\n{body}")
    except OSError as error:
        raise UserError(
            f"model card in {str(folder.model_dir)!r} cannot be written: {first_line(error)}; "
            "make room, and the same command goes on from the last checkpoint"
        ) from error


def _name(config: Config) -> str:
    return (config.hub.repo_id or config.run.name).rpartition("/")[2]


def _takes_texts(result: Result) -> bool:
    if result.saved_model_dir is None:
        return False
    with tf.io.gfile.GFile(posixpath.join(result.saved_model_dir, DESCRIPTION_FILE)) as file:  # maybe remote
        return bool(json.loads(file.read())["text_signature"])


# === Metadata ===


def _make_metadata(config: Config, result: Result, text: str) -> ModelCardData:
    return ModelCardData(
        model_name=_name(config),
        license=config.hub.license,
        language=config.hub.language or None,
        library_name="transformers",
        pipeline_tag="fill-mask",
        tags=["fill-mask", "tensorflow", "tfmlm"],
        base_model=_find_base_model(config),
        datasets=_find_dataset(config),
        metrics=["perplexity", "accuracy"],
        eval_results=list(_list_metrics(config, result)),
        widget=[{"text": text}],
    )


def _find_base_model(config: Config) -> str | None:
    """The Hub id of the model that was trained further, if it came from the Hub."""
    name = config.model.name_or_path
    return name if name and is_hub_id(name) else None


def _find_dataset(config: Config) -> str | None:
    """The Hub id of the dataset, if it came from the Hub."""
    source = config.data.source
    is_other = source in (*FILE_SOURCES, "installed-docs") or is_shard_folder(source)
    return source if not is_other and is_hub_id(source) else None


def _list_metrics(config: Config, result: Result) -> Iterator[EvalResult]:
    dataset = redact_path(config.data.source)
    for kind, name, value in (
        ("perplexity", "Perplexity", result.perplexity),
        ("accuracy", "Accuracy of the first guess", result.eval_top_1),
        ("accuracy", "Accuracy within five guesses", result.eval_top_5),
    ):
        if math.isfinite(value):  # JSON, into which the Hub turns it, has no infinity
            yield EvalResult(
                task_type="fill-mask",
                task_name="Masked language modeling",
                dataset_type=dataset,
                dataset_name=f"{dataset}, held out",
                dataset_config=config.data.config_name,
                metric_type=kind,
                metric_name=name,
                metric_value=float(f"{value:.6g}"),
            )


# === Sections ===


def _describe_model(config: Config, folder: RunFolder, result: Result) -> str:
    model_config = json.loads((folder.model_dir / "config.json").read_text(encoding="utf-8"))
    return f"""\
# {_name(config)}

A masked language model (`{model_config["architectures"][0]}`), {_describe_origin(config)}.

On held-out text its perplexity was {result.initial_perplexity:,.2f} before training and is now
**{result.perplexity:,.2f}**. Its first guess is right for {result.eval_top_1:.1%} of the
masked tokens, one of its first five for {result.eval_top_5:.1%}.

![Loss against the step]({PICTURE_NAME})
"""


def _describe_origin(config: Config) -> str:
    base_model = _find_base_model(config)
    if base_model:
        return f"trained further from [{base_model}](https://huggingface.co/{base_model})"
    if config.model.name_or_path:
        return f"trained further from `{redact_path(config.model.name_or_path)}`"
    return "trained from scratch"


def _describe_data(config: Config, result: Result) -> str:
    data, masking = config.data, config.masking
    rest = 1 - masking.mask_fraction - masking.random_fraction
    left_out = f" {result.bad_rows:,} rows could not be read and were left out." if result.bad_rows else ""
    unit = "words" if masking.whole_word else "tokens"
    last = "" if masking.final_rate is None else f" at first and {masking.final_rate:.0%} at last"
    within = ", which attend to those of their own text only" if data.attend_within_texts else ""
    cut = (
        f"The text was cut into blocks of {data.block_size:,} tokens{within}."
        if data.pack
        else f"Each text was an example of its own, of at most {data.block_size:,} tokens."
    )
    return f"""\
## Training data

{_describe_source(config)}{left_out}

{cut} {result.unknown_share:.1%} of it is unknown to the
tokenizer. Of the {unit}, {masking.rate:.0%}{last} were to be
guessed: {masking.mask_fraction:.0%} of these were masked, {masking.random_fraction:.0%} replaced by a random
token, {rest:.0%} left as they were.
"""


def _describe_source(config: Config) -> str:
    data, dataset = config.data, _find_dataset(config)
    if dataset:
        name = f"[{dataset}](https://huggingface.co/datasets/{dataset})"
        configuration = f", configuration `{data.config_name}`" if data.config_name else ""
        return f"{name}{configuration}, split `{data.split}`, column `{data.text_column}`."
    if data.source == "installed-docs":
        return "The docstrings of the Python packages that were installed on the training machine."
    if data.source in FILE_SOURCES:
        names = [f"`{redact_path(file)}`" for file in data.train_files]
        more = f" and {len(names) - _MOST_FILES:,} more" if len(names) > _MOST_FILES else ""
        return f"Files of the type {data.source}: {', '.join(names[:_MOST_FILES])}{more}."
    if is_shard_folder(data.source):
        return f"Tokenized text in `{redact_path(data.source)}`."
    return f"The dataset in `{redact_path(data.source)}`, split `{data.split}`, column `{data.text_column}`."


def _describe_training(config: Config, result: Result, environment: TrainingEnvironment) -> str:
    optimizer, train = config.optimizer, config.train
    clipping = f", gradients clipped to norm {optimizer.max_grad_norm:g}" if optimizer.max_grad_norm else ""
    precision, _ = choose_precision(train.precision)
    rows = {
        "steps": f"{result.steps:,} of {environment.blocks_per_step:,} blocks, "
        f"{train.per_replica_batch_size:,} at once on each device",
        "tokens seen": f"{result.tokens:,}",
        "optimizer": f"AdamW, weight decay {optimizer.weight_decay:g}{clipping}",
        "learning rate": f"{optimizer.learning_rate:g} after "
        f"{count_warmup_steps(optimizer, result.steps):,} steps of warm-up, then {optimizer.schedule}",
        "precision": precision,
        "time": f"{timedelta(seconds=round(result.train_seconds))}, "
        f"{result.step_seconds_median:.3f} s a step, {result.tokens_per_second:,.0f} tokens/s",
        "hardware": f"{environment.devices}, {os.cpu_count()} processor cores",
        "software": f"tfmlm {__version__}, {_list_versions('tensorflow', 'tf-keras', 'transformers')}, "
        f"Python {platform.python_version()}",
    }
    lines = [
        "## Training",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {text} |" for name, text in rows.items()),
    ]
    notes = [f"- {note[0].upper()}{note[1:]}." for note in environment.notes]
    return "\n".join([*lines, *(["", *notes] if notes else []), ""])


def _list_versions(*packages: str) -> str:
    return ", ".join(f"{package} {version(package)}" for package in packages)


def _describe_settings(config: Config) -> str:
    rows = [f"| `{key}` | {_format_code(value)} |" for key, value in list_settings(config)]
    return "\n".join(["## All settings", "", "| key | value |", "|---|---|", *rows, ""])


def _format_code(value: str) -> str:
    """As code in a cell of a table, which an unescaped bar would end."""
    value = value.replace("|", r"\|")
    return f"`` {value} ``" if "`" in value else f"`{value}`"


# === How to use the model ===


_SERVING_IMAGE = "tensorflow/serving:2.20.0"
"""As in `configs/serving/`."""

_TENSORFLOW = """\
### TensorFlow

transformers 4 with TensorFlow and its Keras 2; transformers 5 has no TensorFlow.
This ran with {versions}.

```python
import os

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # before TensorFlow is imported

import tensorflow as tf
from transformers import AutoTokenizer, TFAutoModelForMaskedLM

tokenizer = AutoTokenizer.from_pretrained({source})
model = TFAutoModelForMaskedLM.from_pretrained({source})

inputs = tokenizer({text}, return_tensors="tf")
is_mask = inputs["input_ids"] == tokenizer.mask_token_id
scores, ids = tf.math.top_k(tf.nn.softmax(model(inputs).logits[is_mask]), k=5)
for score, token_id in zip(scores[0].numpy(), ids[0].numpy()):
    print(f"{{score:.1%}} {{tokenizer.decode([token_id])}}")
```
"""

_PYTORCH = """\
### PyTorch

```python
from transformers import AutoModelForMaskedLM, AutoTokenizer, pipeline

tokenizer = AutoTokenizer.from_pretrained({source})
model = AutoModelForMaskedLM.from_pretrained({source})

fill_mask = pipeline("fill-mask", model=model, tokenizer=tokenizer)
for candidate in fill_mask({text}):
    print(f"{{candidate['score']:.1%}} {{candidate['token_str']}}")
```
"""

_SERVING = """\
### TensorFlow Serving

With tfmlm, write a SavedModel and serve it:

```sh
{prepare}
docker run --rm -p 127.0.0.1:8501:8501 -v {mount} -e MODEL_NAME={name} {image}
```

Then ask it from another terminal:

```sh
{ask}
```
"""


@dataclass(frozen=True)
class Usage:
    """Names in the code and the commands.

    Attributes:
        text: one line with one mask.
        takes_texts: whether the run's export has a text signature.
        versions: of the libraries that the TensorFlow code needs.
    """

    text: str
    takes_texts: bool
    versions: str


def describe_usage(config: Config, usage: Usage) -> str:
    """The section, in Markdown."""
    source, text = _write_source(config), json.dumps(usage.text, ensure_ascii=False)
    folder = "" if _has_full_hub_id(config) else "Here `model` is the folder that holds this file.\n\n"
    parts = [
        _TENSORFLOW.format(source=source, text=text, versions=usage.versions),
        _PYTORCH.format(source=source, text=text),
        _describe_serving(config, usage),
    ]
    return f"## How to use it\n\n{folder}" + "\n".join(parts)


def choose_text(sample_texts: list[str], mask_token: str) -> str:
    """The first text of the run that is one line with one mask, or a plain one."""
    for text in sample_texts:
        if text.count(mask_token) == 1 and text.isprintable() and "```" not in text:
            return text
    return f"This is a {mask_token}."


def _has_full_hub_id(config: Config) -> bool:
    """Without an owner, the name depends on who pushes."""
    return "/" in (config.hub.repo_id or "")


def _write_source(config: Config) -> str:
    """Arguments of `from_pretrained`."""
    if not _has_full_hub_id(config):
        return '"model"'
    revision = f', revision="{config.hub.revision}"' if config.hub.revision else ""
    return f'"{config.hub.repo_id}"{revision}'


def _describe_serving(config: Config, usage: Usage) -> str:
    name = config.export.name or config.run.name
    prepare = []
    if _has_full_hub_id(config):
        revision = ["--revision", config.hub.revision] if config.hub.revision else []
        download = ["hf", "download", str(config.hub.repo_id), *revision, "--local-dir", "model"]
        prepare.append(shlex.join(download))
    prepare.append("tfmlm export model export.dir=saved_models")
    url = shlex.quote(f"http://localhost:8501/v1/models/{name}")
    tokenizer = "" if usage.takes_texts else "--tokenizer model "
    ask = [f"tfmlm query {url} {tokenizer}{shlex.quote(usage.text)}"]
    if usage.takes_texts:
        body = json.dumps({"signature_name": "text", "instances": [usage.text]}, ensure_ascii=False)
        ask.append(
            f"curl {shlex.quote(f'http://localhost:8501/v1/models/{name}:predict')} -d {shlex.quote(body)}"
        )
    return _SERVING.format(
        prepare="\n".join(prepare),
        mount=f'"$PWD"/{shlex.quote(f"saved_models/{name}:/models/{name}:ro")}',
        name=shlex.quote(name),
        image=_SERVING_IMAGE,
        ask="\n".join(ask),
    )
