"""Loads a tokenizer and checks that it can serve a masked language model.

A tokenizer folder may come from a stranger. Its metadata would reach the constructors of transformers as
keyword arguments, some of which open files (`vocab_file`), and a link in it may lead anywhere. So a tokenizer
is loaded from a copy that holds known files only, and of the metadata only what is known to be a setting.
"""

from __future__ import annotations

import json
import logging
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from tokenizers import models
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from tfmlm.errors import UserError, first_line
from tfmlm.inside import find_inside, read_json
from tfmlm.model_layouts import refuse_pointer

_LOGGER = logging.getLogger(__name__)

PADS_AT_ONE = frozenset(
    {"camembert", "longformer", "mpnet", "roberta", "roberta-prelayernorm", "xlm-roberta"}
)
"""Model types whose TensorFlow classes hard-code `padding_idx = 1` and count positions from it: with padding
elsewhere they would take another token for padding, and PyTorch's would compute another model."""

# === Files ===

_DATA_FILES = (
    *("tokenizer.json", "added_tokens.json"),
    *("vocab.txt", "vocab.json", "merges.txt"),
    *("spiece.model", "sentencepiece.bpe.model", "sentencepiece.model", "spm.model", "tokenizer.model"),
)
"""Read by the fast tokenizers of transformers."""

_SPECIAL_TOKENS = frozenset(
    {"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"}
    | {"additional_special_tokens"}
)

_SETTINGS = _SPECIAL_TOKENS | {
    *("tokenizer_class", "auto_map", "added_tokens_decoder", "model_max_length"),
    *("do_lower_case", "strip_accents", "tokenize_chinese_chars", "clean_text", "wordpieces_prefix"),
    *("add_prefix_space", "trim_offsets", "errors", "keep_accents", "remove_space", "split_by_punct"),
    *("clean_up_tokenization_spaces", "split_special_tokens", "model_input_names"),
    *("padding_side", "truncation_side"),
}
"""Keys of `tokenizer_config.json` that say how to tokenize, and name no file."""

_BOOKKEEPING = frozenset(
    {
        *("name_or_path", "special_tokens_map_file", "tokenizer_file", "processor_class", "is_local"),
        *("backend", "transformers_version", "use_fast", "do_basic_tokenize", "never_split", "max_len"),
        *("max_length", "stride", "truncation_strategy", "pad_to_multiple_of", "pad_token_type_id"),
        *("extra_special_tokens", "chat_template", "vocab_size"),
    }
)
"""Keys that well-known tokenizers carry and that a masked language model does without; left out unsaid."""

_METADATA = {
    "tokenizer_config.json": _SETTINGS,
    "special_tokens_map.json": _SPECIAL_TOKENS,
    "config.json": frozenset({"model_type", "tokenizer_class", "auto_map"}),
}
"""Files whose keys become keyword arguments, and the keys that may. The model's configuration tells the class
of a tokenizer that does not say; it may name another file to be read for it (`configuration_files`)."""


def load_tokenizer(path: str | Path) -> PreTrainedTokenizerFast:
    """Loads a fast tokenizer that can mask.

    Args:
        path: a folder or a Hub id.

    Raises:
        UserError: there is no tokenizer, it is not a fast one, it has no mask or padding token, or a file of
            the folder is a link out of it.
    """
    name = str(path)
    with tempfile.TemporaryDirectory() as known:
        try:
            folder = Path(path)
            if not folder.is_dir():
                folder = Path(snapshot_download(name, allow_patterns=[*_DATA_FILES, *_METADATA]))
            _copy_what_is_known(folder, Path(known), name)
            _add_what_is_missing(Path(known), name)
            _check_numbers(Path(known) / "tokenizer.json", name)
            tokenizer = AutoTokenizer.from_pretrained(known, trust_remote_code=False)
        except UserError:
            raise
        except Exception as error:  # the tokenizers library raises a bare one for a broken file
            if "trust_remote_code" in str(error):
                raise UserError(
                    f"tokenizer {name!r} needs code of its own (auto_map), which is never run; "
                    "use one that transformers has"
                ) from error
            reason = first_line(error).replace(known, name)
            raise UserError(f"tokenizer.name_or_path {name!r} holds no tokenizer: {reason}") from error
    tokenizer.init_kwargs.pop("auto_map", None)  # the files that it names are not saved with the model
    return check_tokenizer(tokenizer, name)


def _check_numbers(file: Path, name: str) -> None:
    """Looks at the ids before the library does, which prints each number that is not there."""
    described = read_json(file) if file.exists() else {}
    vocabulary = described.get("model", {}).get("vocab") if isinstance(described, dict) else None
    if isinstance(vocabulary, dict):
        _check_highest(max((each for each in vocabulary.values() if isinstance(each, int)), default=0), name)


def _check_highest(token_id: int, name: str) -> None:
    if token_id >= _MOST_IDS:
        raise UserError(
            f"tokenizer {name!r} has a token of the number {token_id:,}, and no vocabulary is that large; "
            "use one whose numbers have no such gap"
        )


def _copy_what_is_known(folder: Path, known: Path, name: str) -> None:
    """Links the data files into `known`, and writes the metadata without unknown keys."""
    whose = f"tokenizer {name!r}"
    for file_name in _DATA_FILES:
        file = find_inside(folder, file_name, whose)
        if file:
            refuse_pointer(folder / file_name, whose)
            (known / file_name).symlink_to(file)
    for file_name, allowed in _METADATA.items():
        file = find_inside(folder, file_name, whose)
        if file:
            refuse_pointer(folder / file_name, whose)
            metadata = _keep_known(read_json(file), allowed, file_name, name)
            (known / file_name).write_text(json.dumps(metadata), encoding="utf-8")


def _keep_known(metadata: Any, allowed: frozenset[str], file_name: str, name: str) -> dict[str, Any]:
    if not isinstance(metadata, dict):
        raise TypeError(f"{file_name} holds no mapping")
    unknown = [key for key in metadata if key not in allowed | _BOOKKEEPING]
    if unknown and file_name != "config.json":  # which is there for the model
        _LOGGER.warning("tokenizer %s: %s leaves out %s", name, file_name, ", ".join(map(repr, unknown)))
    return {key: value for key, value in metadata.items() if key in allowed}


def _add_what_is_missing(known: Path, name: str) -> None:
    """Tells the special tokens of a `tokenizer.json` that is there without what says so.

    Raises:
        UserError: they cannot be told, or there is no vocabulary, or nothing says of what kind it is.
    """
    there = {path.name for path in known.iterdir()}
    if not there.intersection(_DATA_FILES):
        raise UserError(
            f"tokenizer.name_or_path {name!r} holds no tokenizer: it has neither tokenizer.json nor another "
            "vocabulary such as vocab.txt"
        )
    if there.intersection({"tokenizer_config.json", "special_tokens_map.json"}):
        return
    if "tokenizer.json" not in there:
        if "config.json" not in there:
            raise UserError(
                f"tokenizer.name_or_path {name!r} holds no tokenizer: it has no tokenizer.json, and neither "
                "tokenizer_config.json nor config.json, one of which must say of what kind its vocabulary is"
            )
        return
    roles = tell_special_tokens(read_json(known / "tokenizer.json"))
    missing = [role.replace("_", " ") for role in ("mask_token", "pad_token") if role not in roles]
    if not missing:
        (known / "special_tokens_map.json").write_text(json.dumps(roles), encoding="utf-8")
    if "config.json" in there:
        return
    if missing:
        raise UserError(
            f"tokenizer {name!r} is a tokenizer.json alone, which does not tell its {' and '.join(missing)}; "
            "put its tokenizer_config.json or special_tokens_map.json beside it"
        )
    kind = {"tokenizer_class": PreTrainedTokenizerFast.__name__}
    (known / "tokenizer_config.json").write_text(json.dumps(kind), encoding="utf-8")


# === Special tokens of a tokenizer.json alone ===

_USUAL_NAMES = {
    "mask_token": ("[MASK]", "<mask>"),
    "pad_token": ("[PAD]", "<pad>"),
    "unk_token": ("[UNK]", "<unk>"),
    "cls_token": ("[CLS]", "<cls>", "<s>"),
    "sep_token": ("[SEP]", "<sep>", "</s>"),
}


def tell_special_tokens(fields: Any) -> dict[str, str]:
    """The special tokens that a `tokenizer.json` tells, by role.

    Padding and the unknown token stand in it, and the post-processor adds the first and the last token of a
    text. Where nothing says so, the only special token of a usual name has the role.

    Args:
        fields: what the file holds.

    Raises:
        TypeError, LookupError, AttributeError: it is no `tokenizer.json`.
    """
    special = [token["content"] for token in fields["added_tokens"] if token.get("special")]
    first, last = _find_added(fields.get("post_processor") or {})
    told = {
        "pad_token": (fields.get("padding") or {}).get("pad_token"),
        "unk_token": _find_unknown(fields["model"]),
        "cls_token": first,
        "sep_token": last,
    }
    roles: dict[str, str] = {}
    for role, names in _USUAL_NAMES.items():
        usual = [name for name in names if name in special]
        token = told.get(role) or (usual[0] if len(usual) == 1 else None)
        if token in special:
            roles[role] = str(token)
    return roles


def _find_added(processor: dict[str, Any]) -> tuple[str | None, str | None]:
    """The tokens that a post-processor puts before and after a text."""
    if processor.get("type") == "Sequence":
        added = [_find_added(each) for each in processor["processors"]]
        return next((pair for pair in added if any(pair)), (None, None))
    if processor.get("type") in ("BertProcessing", "RobertaProcessing"):
        return processor["cls"][0], processor["sep"][0]
    if processor.get("type") == "TemplateProcessing":
        pieces = [piece.get("SpecialToken", {}).get("id") for piece in processor["single"]]
        return (pieces[0], pieces[-1]) if pieces else (None, None)
    return None, None


def _find_unknown(model: dict[str, Any]) -> str | None:
    if model.get("type") == "Unigram":
        number = model.get("unk_id")
        return None if number is None else model["vocab"][number][0]
    return model.get("unk_token")


# === Checks ===


def check_tokenizer(tokenizer: PreTrainedTokenizerFast, name: str) -> PreTrainedTokenizerFast:
    """Returns the tokenizer if it can serve a masked language model."""
    if not tokenizer.is_fast:
        raise UserError(f"tokenizer {name!r} has no fast version (tokenizer.json); convert it first")
    for role in ("mask_token", "pad_token"):
        if getattr(tokenizer, role) is None:
            raise UserError(
                f"tokenizer {name!r} has no {role}, which a masked language model needs; "
                "use the tokenizer of a masked language model or train one (tokenizer.train_vocab_size)"
            )
    _check_highest(count_ids(tokenizer) - 1, name)
    try:
        tokenizer.backend_tokenizer.encode(_UNKNOWN_TO_ALL)
    except Exception as error:  # the library in Rust has no other class
        raise UserError(
            f"tokenizer {name!r} cannot take a text: {first_line(error)}; use another one"
        ) from error
    return tokenizer


_UNKNOWN_TO_ALL = "a \U000e0fff"
"""A character that Unicode has not given away, so that a token for what is unknown has to be there."""

_MOST_IDS = 2**24
"""Tables that are indexed by ids have a row for each number, whether it is a token or not."""


def count_ids(tokenizer: PreTrainedTokenizerBase) -> int:
    """One more than the highest id: the size of what is indexed by ids, for a vocabulary may have gaps."""
    return int(max(tokenizer.get_vocab().values())) + 1


def save_tokenizer_folder(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Writes a tokenizer that `load_tokenizer` loads, from what is in memory: no file is copied.

    Raises:
        OSError: the folder cannot be written.
    """
    with _telling_os_errors(folder):
        # `legacy_format` would copy the file that a SentencePiece tokenizer came from.
        tokenizer.save_pretrained(folder, legacy_format=False)
        model = tokenizer.backend_tokenizer.model
        if isinstance(model, models.WordPiece | models.BPE):
            # vocab.txt, or vocab.json and merges.txt, for tools that do not read tokenizer.json.
            model.save(str(folder))


@contextmanager
def _telling_os_errors(folder: Path) -> Iterator[None]:
    """Gives the tokenizers library's bare exception, which has the system's number in its text, its kind."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(folder)) from error
