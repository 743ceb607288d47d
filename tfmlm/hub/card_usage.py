"""The part of a model card that says how to use the model: code and commands to copy."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass

from tfmlm.config import Config

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
    """What the code and the commands name.

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
    source, text = _describe_source(config), json.dumps(usage.text, ensure_ascii=False)
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


def _describe_source(config: Config) -> str:
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
