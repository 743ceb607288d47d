"""Keys of a configuration that need or exclude each other."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from typing import Any

from tfmlm.config.licenses import LICENSES
from tfmlm.config.schema import (
    FILE_SOURCES,
    Config,
    DataConfig,
    HubConfig,
    Key,
    OptimizerConfig,
    TokenizerConfig,
    TrainConfig,
    list_keys,
)
from tfmlm.errors import UserError
from tfmlm.model_names import HUB_ID
from tfmlm.urls import has_password

_SMALLEST_VOCABULARIES = {
    "wordpiece": (6, "5 special tokens"),
    "byte_bpe": (261, "5 special tokens and 256 bytes"),
    "unigram": (6, "5 special tokens"),
}
"""By algorithm: the size, and what it is for."""


def check_config(config: Config) -> None:
    """Checks each key alone, then keys that need each other.

    Raises:
        UserError: names the first wrong key, what it holds and what it may hold.
    """
    for key in list_keys():
        _check_alone(key, getattr(getattr(config, key.section), key.name))
    masking = config.masking
    if masking.mask_fraction + masking.random_fraction > 1:
        raise UserError(
            f"masking.mask_fraction {masking.mask_fraction} and masking.random_fraction "
            f"{masking.random_fraction} add up to more than 1"
        )
    if masking.mask_fraction + masking.random_fraction == 0:
        raise UserError(
            "masking.mask_fraction and masking.random_fraction are 0, so the model would see every word that "
            "it is to guess; raise one"
        )
    _check_source(config.data)
    _check_callbacks(config.train)
    _check_blocks(config.data)
    _check_optimizer(config.optimizer)
    _check_evaluation(config.train, config.data)
    if not config.model.name_or_path and not config.model.config.get("model_type"):
        raise UserError("model.name_or_path is empty; set it, or model.config with a model_type")
    if not (config.model.name_or_path or config.tokenizer.name_or_path or config.tokenizer.train_vocab_size):
        raise UserError("no tokenizer: set tokenizer.name_or_path or tokenizer.train_vocab_size")
    _check_vocabulary(config.tokenizer)
    _check_new_words(config)
    _check_hub(config.hub, config.data)


def _check_vocabulary(tokenizer: TokenizerConfig) -> None:
    smallest, holds = _SMALLEST_VOCABULARIES[tokenizer.algorithm]
    if tokenizer.train_vocab_size is not None and tokenizer.train_vocab_size < smallest:
        raise UserError(
            f"tokenizer.train_vocab_size is {tokenizer.train_vocab_size}; it must be at least {smallest} for "
            f"{tokenizer.algorithm}, which begins with {holds}"
        )


def _check_new_words(config: Config) -> None:
    tokenizer = config.tokenizer
    for word in tokenizer.added_tokens:
        if not word or word != word.strip() or not word.isprintable():
            raise UserError(
                f"tokenizer.added_tokens holds {word!r}; a word has no white space at its ends and no "
                "controls"
            )
    if tokenizer.extend_from_text and tokenizer.train_vocab_size:
        raise UserError(
            f"tokenizer.extend_from_text is {tokenizer.extend_from_text} and tokenizer.train_vocab_size "
            f"{tokenizer.train_vocab_size}, a vocabulary of this text already; raise that, and leave out the "
            "first"
        )
    if not tokenizer.adds_words or not config.model.name_or_path:
        return
    if tokenizer.train_vocab_size:
        raise UserError(
            "tokenizer.added_tokens and tokenizer.train_vocab_size are set, and the rows of "
            "model.name_or_path are of other words than a trained tokenizer's; leave one of the three out"
        )
    if "vocab_size" in config.model.config:
        raise UserError(
            f"model.config.vocab_size is {config.model.config['vocab_size']}, and the vocabulary grows by "
            "tokenizer.added_tokens or tokenizer.extend_from_text; leave it out"
        )


def _check_hub(hub: HubConfig, data: DataConfig) -> None:
    if hub.push and not hub.repo_id:
        raise UserError("hub.push is true and hub.repo_id is empty; set it to a name such as me/my-model")
    if hub.repo_id and not HUB_ID.fullmatch(hub.repo_id):
        raise UserError(f"hub.repo_id is {hub.repo_id!r}; it must be a name such as me/my-model")
    for key, branch in (("revision", hub.revision), ("checkpoints", hub.checkpoints)):
        if branch is not None and not re.fullmatch(r"[\w.-]+(/[\w.-]+)*", branch, re.ASCII):
            raise UserError(f"hub.{key} is {branch!r}; it must be the name of a branch, such as training")
    if hub.checkpoints and hub.checkpoints == (hub.revision or "main"):
        raise UserError(
            f"hub.checkpoints is {hub.checkpoints!r}, where the model goes too; name another branch"
        )
    if hub.license is not None and hub.license not in LICENSES:
        close = difflib.get_close_matches(hub.license.lower(), LICENSES, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "it must be an identifier such as apache-2.0."
        raise UserError(f"hub.license is {hub.license!r}; {hint} The Hub takes no others but `other`")
    for language in hub.language:
        if not re.fullmatch(r"[a-z]{2,3}(-[A-Za-z0-9]+)*|code|multilingual", language):
            raise UserError(f"hub.language holds {language!r}; it must hold codes such as en")
    if hub.each_epoch and data.streaming:
        raise UserError("hub.each_epoch is true and a stream's epochs are not known; use hub.every_steps")


def _check_optimizer(optimizer: OptimizerConfig) -> None:
    if optimizer.warmup_steps and optimizer.warmup_ratio:
        raise UserError(
            f"optimizer.warmup_steps is {optimizer.warmup_steps} and optimizer.warmup_ratio is "
            f"{optimizer.warmup_ratio}; set one of them to 0"
        )


def _check_evaluation(train: TrainConfig, data: DataConfig) -> None:
    evaluates = train.evaluate_every_steps or train.evaluate_each_epoch
    for key, value in (
        ("keep", train.keep == "best"),
        ("early_stopping_patience", train.early_stopping_patience),
    ):
        if value and not evaluates:
            raise UserError(
                f"train.{key} is {getattr(train, key)!r} and needs evaluations during training; set "
                "train.evaluate_every_steps or train.evaluate_each_epoch"
            )
    if train.evaluate_each_epoch and data.streaming:
        raise UserError(
            "train.evaluate_each_epoch is true and a stream's epochs are not known; use "
            "train.evaluate_every_steps"
        )


def _check_callbacks(train: TrainConfig) -> None:
    for number, item in enumerate(train.callbacks):
        key, path, arguments = f"train.callbacks[{number}]", item.get("class"), item.get("arguments")
        further = [name for name in item if name not in ("class", "arguments")]
        if further or not isinstance(path, str) or not isinstance(arguments, dict | None):
            raise UserError(
                f"{key} is {item!r}; it must be {{class: IMPORT.PATH, arguments: {{NAME: VALUE}}}}"
            )
        if not re.fullmatch(r"\w+(\.\w+)+", path):
            raise UserError(
                f"{key}.class is {path!r}; it must be an import path such as my_module.MyCallback"
            )
        if any(isinstance(text, str) and has_password(text) for text in _list_leaves(arguments)):
            raise UserError(
                f"{key}.arguments has a URL with a user or password, which would be written into files; "
                "leave it out: trackers take it from the environment"
            )


def _list_leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _list_leaves(item)
    else:
        yield value


def _check_source(data: DataConfig) -> None:
    if data.source in FILE_SOURCES and not data.train_files:
        raise UserError(f"data.source {data.source!r} needs data.train_files; it is empty")
    if any(map(has_password, data.train_files + data.validation_files)):
        raise UserError(
            "data.train_files or data.validation_files has a URL with a user or password; leave it out, and "
            "put it into .netrc, or where the file system's driver for fsspec looks for it"
        )
    if data.field is not None and data.source != "json":
        raise UserError(f"data.field {data.field!r} is for data.source json, and it is {data.source!r}")
    if data.validation_split and data.source in (*FILE_SOURCES, "installed-docs"):
        raise UserError(
            f"data.validation_split {data.validation_split!r} is for Hub datasets, and data.source is "
            f"{data.source!r}; use data.validation_files or data.validation_fraction"
        )


def _check_blocks(data: DataConfig) -> None:
    defaults = DataConfig()
    if data.pack:
        for key in ("stride", "long_texts"):
            if getattr(data, key) != getattr(defaults, key):
                raise UserError(
                    f"data.{key} is {getattr(data, key)!r} and data.pack is true, which knows no borders of "
                    "texts; set data.pack=false"
                )
        return
    if data.attend_within_texts:
        raise UserError(
            "data.attend_within_texts is true, and without data.pack a block holds one text; leave it out"
        )
    if data.drop_remainder:
        raise UserError("data.drop_remainder is true, and without data.pack there is none; leave it out")
    if data.stride and data.long_texts == "cut":
        raise UserError(
            f"data.stride is {data.stride} and data.long_texts is 'cut', so no text has a second part; set "
            "data.long_texts=split or data.stride=0"
        )
    if data.stride >= data.block_size:
        raise UserError(
            f"data.stride is {data.stride} and data.block_size {data.block_size}; a part of a text must hold "
            "more than it repeats"
        )


def _check_alone(key: Key, value: Any) -> None:
    if key.choices and value not in key.choices:
        raise UserError(f"{key} is {value!r}; it must be one of {', '.join(key.choices)}")
    if key.allowed and value is not None and not key.allowed.holds(value):
        raise UserError(f"{key} is {value!r}; it must be {key.allowed.words}")
