"""Folders of models as they lie around: what layout one has that is not read here, and the way in."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from pathlib import Path

from tfmlm.errors import UserError
from tfmlm.inside import find_inside, read_json

# === Layouts ===

_CONVERT = "convert them once where PyTorch is: AutoModelForMaskedLM.from_pretrained"

_GIVE_SOURCE = "give the model folder that they were made from"

_GIVE_HUGGING_FACE = "give the same model in Hugging Face's layout, such as google-bert/bert-base-uncased"


_READ = ("model.safetensors", "model.safetensors.index.json", "tf_model.h5", "tf_model.h5.index.json")


def describe_layout(names: Collection[str]) -> str | None:
    """What a folder without weights that are read here holds, and the way in.

    None if it has such weights, or nothing tells.

    Args:
        names: of the files in it, those in folders below with `/`.
    """
    if any(name in names for name in _READ):
        return None
    for is_it, what in _LAYOUTS:
        if is_it(names):
            return what
    return _point_below(names)


def describe_folder(folder: Path) -> str | None:
    """The same of a local folder; of PEFT's, and of folders below, with what its files say."""
    names = [path.relative_to(folder).as_posix() for path in _list_files(folder)]
    what = describe_layout(names)
    base = _find_base_model(folder) if _ADAPTER in names else None
    return what.replace("its base model", f"its base model {base!r}") if what and base else what


def _list_files(folder: Path) -> list[Path]:
    try:
        return [path for pattern in ("*", "*/*") for path in sorted(folder.glob(pattern))]
    except OSError:
        return []


def _has(*names: str) -> Callable[[Collection[str]], bool]:
    return lambda found: any(name in found for name in names)


def _ends(*ends: str) -> Callable[[Collection[str]], bool]:
    """Whether there is a file of such an end, in the folder itself."""
    return lambda found: any(name.endswith(ends) and "/" not in name for name in found)


def _ends_anywhere(*ends: str) -> Callable[[Collection[str]], bool]:
    """Whether there is one of such an end, in a folder below too."""
    return lambda found: any(name.endswith(ends) for name in found)


_ADAPTER = "adapter_config.json"


def _find_base_model(folder: Path) -> str | None:
    try:
        file = find_inside(folder, _ADAPTER, str(folder))
        base = read_json(file)["base_model_name_or_path"] if file else None
    except (OSError, ValueError, LookupError, TypeError, UserError):
        return None
    return base if isinstance(base, str) else None


def _is_keras_hub(names: Collection[str]) -> bool:
    has_weights = any(name.endswith(".weights.h5") and "/" not in name for name in names)
    return has_weights and any(name in names for name in ("metadata.json", "task.json", "preprocessor.json"))


def _is_saved_model(names: Collection[str]) -> bool:
    return any(name.rpartition("/")[2] in ("saved_model.pb", "saved_model.pbtxt") for name in names)


_PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_FLAX = ("flax_model.msgpack", "flax_model.msgpack.index.json")

_LAYOUTS: list[tuple[Callable[[Collection[str]], bool], str]] = [
    (
        _has(_ADAPTER),
        (
            f"it is a PEFT adapter ({_ADAPTER}) and no whole model; merge it into its base model once where "
            "PyTorch is: AutoPeftModel.from_pretrained(FOLDER).merge_and_unload().save_pretrained(OTHER)"
        ),
    ),
    (
        lambda names: _has(*_PICKLED)(names) or _ends(".pt", ".pth", ".ckpt")(names),
        (
            "pickled PyTorch weights are not read, since opening a pickle can run code; "
            f"{_CONVERT}(NAME).save_pretrained(FOLDER)"
        ),
    ),
    (
        _has(*_FLAX),
        (
            "its weights are Flax's (flax_model.msgpack), which are not read; "
            f"{_CONVERT}(NAME, from_flax=True).save_pretrained(FOLDER)"
        ),
    ),
    (
        lambda names: any(re.search(r"\.ckpt(-\d+)?\.(index|meta)$", name) for name in names),
        (
            "it is a checkpoint of Google's TensorFlow 1 code (bert_model.ckpt), which is not read; "
            f"{_GIVE_HUGGING_FACE}, or convert it once where PyTorch is: BertForPreTraining.from_pretrained("
            "'bert_model.ckpt.index', from_tf=True, config='bert_config.json').save_pretrained(FOLDER)"
        ),
    ),
    (
        _is_keras_hub,
        f"it is a preset of KerasHub (model.weights.h5), which is not read; {_GIVE_HUGGING_FACE}",
    ),
    (
        _is_saved_model,
        f"it is a SavedModel, which answers and cannot be trained; {_GIVE_SOURCE}",
    ),
    (_ends(".keras", ".weights.h5"), f"its weights are those of a Keras model; {_GIVE_HUGGING_FACE}"),
    (_ends_anywhere(".onnx", ".ort"), f"its weights are ONNX's, for answering only; {_GIVE_SOURCE}"),
    (_ends_anywhere(".gguf", ".ggml"), f"its weights are GGUF's, for answering only; {_GIVE_SOURCE}"),
    (
        _ends_anywhere("openvino_model.xml"),
        f"its weights are OpenVINO's, for answering only; {_GIVE_SOURCE}",
    ),
]
"""In the order in which they are looked for: a folder may hold the weights of several."""


def _point_below(names: Collection[str]) -> str | None:
    """Where in the folder the model lies: a run's, a trainer's or that of sentence-transformers."""
    below = sorted(name.partition("/")[0] for name in names if re.fullmatch("[^/]+/config.json", name))
    if len(below) != 1:
        return None
    kind = "it is a folder of sentence-transformers, and " if "modules.json" in names else ""
    return f"{kind}its model is in the folder {below[0]!r} of it; give that"


# === Pointers ===

_POINTER = b"version https://git-lfs.github.com/spec/"


def refuse_pointer(file: Path, whose: str) -> None:
    """Refuses what Git leaves in the place of a large file where Git LFS is missing.

    Args:
        file: it exists.
        whose: what the folder holds, for the message, such as `model 'a/b'`.

    Raises:
        UserError: it is such a pointer.
    """
    with file.open("rb") as content:
        is_pointer = content.read(len(_POINTER)) == _POINTER
    if is_pointer:
        raise UserError(
            f"{whose}: {file.name} is a pointer of Git LFS and not the file itself; run `git lfs install` "
            "and `git lfs pull` in the folder, or download it with `hf download`"
        )
