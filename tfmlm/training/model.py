"""Loads the pretrained model, or makes one from a configuration."""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from huggingface_hub import list_repo_files, snapshot_download
from transformers import (
    CONFIG_MAPPING,
    TF_MODEL_FOR_MASKED_LM_MAPPING,
    AutoConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    TFPreTrainedModel,
)
from transformers.utils import cached_file

from tfmlm.config import Config, ModelConfig
from tfmlm.data.blocks import BLOCKS_A_CHUNK, Blocks
from tfmlm.data.new_words import find_origins
from tfmlm.data.prepare import load_original_tokenizer
from tfmlm.data.tokenizers import PADS_AT_ONE, count_ids, load_tokenizer
from tfmlm.errors import UserError, first_line
from tfmlm.inside import find_inside, read_json
from tfmlm.model_layouts import describe_folder, describe_layout, refuse_pointer
from tfmlm.model_names import advise_offline, resolve_name_or_path
from tfmlm.training.architectures import FURTHER_FIELDS, build_model, check_architecture, max_block_size
from tfmlm.training.heads import READS_PADDING
from tfmlm.training.layers import check_rematerialized
from tfmlm.training.sizes import check_counts, check_size
from tfmlm.training.text_borders import check_text_borders
from tfmlm.training.weights import (
    Diagnosis,
    NewRows,
    list_tensor_names,
    list_weight_files,
    name_as_pytorch,
    read_weights,
)

_LOGGER = logging.getLogger(__name__)

_MISFITS = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, NotImplementedError, TypeError),
    ValueError,
    tf.errors.OpError,
)
"""Raised by transformers and TensorFlow for fields and tensors that do not fit each other."""

_TRIED_TOKENS = 8

_NAMES_SHOWN = 8
"""Tensors that a message names."""

_COUNTED_BLOCKS = 4096
"""Blocks whose tokens are counted for the output bias: more would not change the frequent tokens' shares."""


def check_model(config: Config) -> None:
    """Refuses what the configuration of the model alone tells, before minutes go into reading the text.

    Raises:
        UserError: the model is unknown, cannot go the whole way, or takes no such blocks.
    """
    model_config = read_model_config(config.model)
    if config.train.rematerialize:
        check_rematerialized(model_config.model_type)
    if config.data.attend_within_texts:
        check_text_borders(model_config)
    if not config.data.pack and model_config.model_type in READS_PADDING:
        raise UserError(
            f"data.pack is false, and words of a {model_config.model_type} model read the padding behind a "
            "text, so it would see how long the other texts of a batch are; set it to true"
        )
    with suppress(TypeError, ValueError):  # of a length that is no number; making the model says so
        _check_block_size(model_config, config.data.block_size)


def read_model_config(model: ModelConfig) -> PretrainedConfig:
    """The configuration of the model that `model` asks for.

    Raises:
        UserError: the model is unknown, or cannot go the whole way.
    """
    if model.name_or_path:
        name_or_path = resolve_name_or_path(model.name_or_path, "model.name_or_path")
        model_config = _override(_read_config(name_or_path), model.config)
    else:
        model_config = _make_config(model.config)
    _check_head(model_config)
    return model_config


_OF_HEADS = re.compile(r"cls\.predictions|lm_head|vocab_|\bpredictions|generator_|pred_layer|mlm")
"""In names of tensors of the masked-LM heads of all types."""


def has_trained_head(model: ModelConfig) -> bool:
    """Whether the pretrained weights hold a masked-LM head; of a Hub model, after its download.

    Raises:
        UserError: there are no weights, or they cannot be read.
    """
    if not model.name_or_path:
        return False
    name_or_path = resolve_name_or_path(model.name_or_path, "model.name_or_path")
    names = list_tensor_names(_fetch_weights(name_or_path), read_model_config(model))
    return any(map(_OF_HEADS.search, names))


def make_model(config: Config, tokenizer: PreTrainedTokenizerFast) -> tuple[TFPreTrainedModel, Diagnosis]:
    """Loads or makes the model that `model` configures.

    Call it inside the scope of the strategy and under the Keras policy of the run.

    Returns:
        The built model, and what its files do not hold or hold beside it; of one from scratch all is new.

    Raises:
        UserError: the model, its configuration, the tokenizer or the block size do not fit together.
    """
    if config.model.name_or_path:
        name_or_path = resolve_name_or_path(config.model.name_or_path, "model.name_or_path")
        original = load_original_tokenizer(config) if config.tokenizer.adds_words else None
        model, diagnosis = _load_pretrained(name_or_path, config.model.config, original, tokenizer)
    else:
        model = _make_from_config(config, tokenizer)
        diagnosis = Diagnosis(new=list(name_as_pytorch(model)), unused=[])
    _check_block_size(model.config, config.data.block_size)
    _check_tokenizer(model.config, tokenizer)
    return model, diagnosis


def load_model_folder(
    name_or_path: str | Path,
) -> tuple[TFPreTrainedModel, PreTrainedTokenizerFast]:
    """Loads a trained model in float32 and its tokenizer, whose `model_max_length` is set to the model's.

    Raises:
        UserError: there is no such model, it has no whole vocabulary head, it has no place for some of
            its weights, or there is no tokenizer that fits it.
    """
    resolved = resolve_name_or_path(str(name_or_path), "model")
    model, diagnosis = _load_pretrained(resolved, {})
    check_answers(str(name_or_path), diagnosis)
    tokenizer = load_tokenizer(resolved)
    _check_tokenizer(model.config, tokenizer)
    tokenizer.model_max_length = max_block_size(model.config)
    return model, tokenizer


def check_answers(name_or_path: str, diagnosis: Diagnosis) -> None:
    """Refuses a model that is to answer and would answer noise, or as another model than its files hold.

    Args:
        name_or_path: what the user gave.
        diagnosis: from `make_model`.

    Raises:
        UserError: names the tensors.
    """
    if diagnosis.new:
        raise UserError(
            f"weights of {name_or_path!r} lack {len(diagnosis.new)} tensors of the masked-LM head "
            f"({', '.join(diagnosis.new)}), so its answers would be noise; use a masked language model, or "
            "train this one first (model.name_or_path)"
        )
    if diagnosis.unused:
        raise UserError(
            f"weights of {name_or_path!r} hold {len(diagnosis.unused)} tensors for which the model has no "
            f"place ({list_some(diagnosis.unused)}), so its answers would be another model's; use the "
            "config.json that belongs to them"
        )


def list_some(names: list[str]) -> str:
    """The first of many names, for a message of one line."""
    return ", ".join(names[:_NAMES_SHOWN]) + (", …" if len(names) > _NAMES_SHOWN else "")


def _load_pretrained(
    name_or_path: str,
    fields: dict[str, object],
    original: PreTrainedTokenizerFast | None = None,
    extended: PreTrainedTokenizerFast | None = None,
) -> tuple[TFPreTrainedModel, Diagnosis]:
    """Loads a model; its vocabulary grows by what `extended` has beside `original`."""
    model_config = _override(_read_config(name_or_path), fields)
    new_rows = None
    if original and extended:
        _check_tokenizer(model_config, original)
        origins = find_origins(original, extended)
        new_rows = NewRows(model_config.vocab_size, count_ids(original), [*origins.values()])
        model_config.vocab_size = new_rows.num_rows
    _check_head(model_config)
    if hasattr(model_config, "auto_map"):
        _LOGGER.warning(
            "%s brings code of its own (auto_map), which is not run: %s is the library's",
            name_or_path,
            model_config.model_type,
        )
        del model_config.auto_map  # the files that it names are not saved with the trained model
    folder = _fetch_weights(name_or_path)
    try:
        model = _build(model_config)
    except _MISFITS as error:
        raise UserError(
            f"model {name_or_path!r} cannot be made from its config.json: {first_line(error)}"
        ) from error
    return model, read_weights(model, folder, name_or_path, new_rows)


def _fetch_weights(name_or_path: str) -> Path:
    """The folder with the weights; of a Hub model, after its download.

    Raises:
        UserError: it has none that are read here.
    """
    folder = Path(name_or_path)
    if not folder.is_dir():
        try:
            for pattern in ("model*.safetensors*", "tf_model*.h5*"):
                folder = Path(snapshot_download(name_or_path, allow_patterns=["config.json", pattern]))
                if list_weight_files(folder):
                    break
        except (OSError, ValueError) as error:
            raise UserError(
                f"weights of {name_or_path!r} cannot be fetched: {first_line(error)}{advise_offline()}"
            ) from error
    if not list_weight_files(folder):
        raise _explain_no_weights(
            name_or_path, describe_layout(_list_names(name_or_path)) or describe_folder(folder)
        )
    return folder


def _explain_no_weights(name_or_path: str, layout: str | None) -> UserError:
    return UserError(
        f"model {name_or_path!r} has no weights (model.safetensors or tf_model.h5); "
        f"{layout or 'fetch the model again'}"
    )


def _list_names(name_or_path: str) -> list[str]:
    """The files of a repository on the Hub, or none if it does not say."""
    try:
        return list_repo_files(name_or_path)
    except (OSError, ValueError):  # also where it may not be asked, or the name is a folder
        return []


def _read_config(name_or_path: str) -> PretrainedConfig:
    """Reads `config.json` without the library's loader, which may open other files that it names."""
    if Path(name_or_path).is_dir():
        layout = describe_folder(Path(name_or_path))
        if layout:
            raise _explain_no_weights(name_or_path, layout)
        if not Path(name_or_path, "config.json").exists():
            raise UserError(
                f"model folder {name_or_path!r} has no config.json; give a Hugging Face model folder"
            )
    try:
        fields = _read_fields(name_or_path)
        model_type = fields.get("model_type") or _guess_model_type(name_or_path)
        if model_type not in CONFIG_MAPPING:
            raise ValueError(f"its model_type is {model_type!r}, which transformers does not have")
        check_counts(fields)
        model_config: PretrainedConfig = CONFIG_MAPPING[model_type].from_dict(
            fields, name_or_path=name_or_path
        )
    except (OSError, RecursionError, *_MISFITS) as error:
        layout = None if Path(name_or_path).is_dir() else describe_layout(_list_names(name_or_path))
        raise UserError(
            f"model.name_or_path {name_or_path!r} cannot be loaded: {layout or first_line(error)}"
            f"{advise_offline()}"
        ) from error
    return model_config


def _read_fields(name_or_path: str) -> dict[str, Any]:
    folder = Path(name_or_path)
    if folder.is_dir():
        file = find_inside(folder, "config.json", f"model {name_or_path!r}")
    else:
        file = cached_file(name_or_path, "config.json")
    if file is None:
        raise ValueError("config.json is no file")
    refuse_pointer(Path(file), f"model {name_or_path!r}")
    fields = read_json(Path(file))
    if not isinstance(fields, dict):
        raise TypeError("config.json holds no mapping")
    methods = [name for name in fields if callable(getattr(PretrainedConfig, name, None))]
    if methods:
        raise ValueError(f"config.json has {methods[0]!r}, which is no field")
    if "auto_map" in fields and fields.get("model_type") not in CONFIG_MAPPING:
        raise UserError(
            f"model {name_or_path!r} needs code of its own (auto_map), which is never run; "
            "use a model type that transformers has"
        )
    return {name: value for name, value in fields.items() if name != "configuration_files"}


def _guess_model_type(name_or_path: str) -> str | None:
    """As the library does, from the name of a model that was saved before there was a `model_type`."""
    types = sorted(CONFIG_MAPPING, key=len, reverse=True)
    return next((model_type for model_type in types if model_type in name_or_path), None)


def _make_from_config(config: Config, tokenizer: PreTrainedTokenizerFast) -> TFPreTrainedModel:
    vocabulary = {
        "vocab_size": count_ids(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.cls_token_id,
        "eos_token_id": tokenizer.sep_token_id,
        "pad_index": tokenizer.pad_token_id,  # of XLM and FlauBERT, without an attention mask
        "mask_token_id": tokenizer.mask_token_id,  # of ESM
    }
    model_config = _make_config(config.model.config, vocabulary)
    _check_head(model_config)
    try:
        return _build(model_config)
    except _MISFITS as error:
        raise UserError(
            f"model.config makes no {model_config.model_type} model: {first_line(error)}"
        ) from error


def _build(model_config: PretrainedConfig) -> TFPreTrainedModel:
    """Builds a model, and has it read a few tokens: some fields are found not to fit only then."""
    model = build_model(model_config)
    # A TPU would compile a program for it.
    if not isinstance(tf.distribute.get_strategy(), tf.distribute.TPUStrategy):
        ids = tf.zeros([1, min(_TRIED_TOKENS, max_block_size(model_config))], tf.int32)
        model(input_ids=ids, attention_mask=tf.ones_like(ids))
    return model


def _make_config(
    fields: Mapping[str, object], vocabulary: Mapping[str, int | None] | None = None
) -> PretrainedConfig:
    """The configuration of a model from scratch; `fields` win over what the tokenizer says."""
    model_type = fields.get("model_type")
    if model_type not in CONFIG_MAPPING:
        raise UserError(
            f"model.config.model_type {model_type!r} is unknown{_suggest(str(model_type), CONFIG_MAPPING)}"
        )
    default = AutoConfig.for_model(model_type)
    given = {name: value for name, value in fields.items() if name != "model_type"}
    _check_fields(default, given)
    of_tokenizer = {name: value for name, value in (vocabulary or {}).items() if hasattr(default, name)}
    try:
        # In the constructor, which computes some fields from others.
        return type(default)(**of_tokenizer | given)
    except _MISFITS as error:
        raise UserError(f"model.config makes no {model_type} model: {first_line(error)}") from error


def _override(model_config: PretrainedConfig, fields: dict[str, object]) -> PretrainedConfig:
    _check_fields(model_config, fields)
    for name, value in fields.items():
        setattr(model_config, name, value)
    return model_config


def _check_fields(model_config: PretrainedConfig, fields: Mapping[str, object]) -> None:
    check_counts(fields)
    known = model_config.to_dict().keys() | FURTHER_FIELDS.get(model_config.model_type, set())
    for name in fields:
        if name not in known:
            raise UserError(
                f"model.config.{name} is not a field of {model_config.model_type}{_suggest(name, known)}"
            )


def _suggest(name: str, known: object) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)  # type: ignore[call-overload]
    return f"; did you mean {close[0]!r}?" if close else ""


def _check_head(model_config: PretrainedConfig) -> None:
    if type(model_config) not in TF_MODEL_FOR_MASKED_LM_MAPPING:
        raise UserError(
            f"model type {model_config.model_type!r} has no TensorFlow masked-LM head in transformers; "
            "use one such as bert, roberta, distilbert, albert, electra, camembert, xlm-roberta or mpnet"
        )
    check_architecture(model_config)
    check_size(model_config)


def _check_block_size(model_config: PretrainedConfig, block_size: int) -> None:
    longest = max_block_size(model_config)
    if block_size > longest:
        raise UserError(
            f"data.block_size {block_size} is over the model's maximum of {longest}; set at most {longest}"
        )


def _check_tokenizer(model_config: PretrainedConfig, tokenizer: PreTrainedTokenizerFast) -> None:
    """Refuses ids that the model has no embedding for, or takes for others."""
    num_ids = count_ids(tokenizer)
    if num_ids > model_config.vocab_size:
        raise UserError(
            f"the tokenizer has {num_ids} tokens and the model only {model_config.vocab_size}; "
            "use the model's own tokenizer"
        )
    if model_config.model_type in PADS_AT_ONE:
        _check_special_id(model_config, "padding", 1, tokenizer.pad_token, tokenizer.pad_token_id)
        _check_special_id(
            model_config, "padding", 1, "pad_token_id of its config.json", model_config.pad_token_id
        )
    if model_config.model_type == "esm":
        for what, role in (("padding", "pad_token"), ("a mask", "mask_token")):
            expected = getattr(model_config, f"{role}_id")
            token, token_id = getattr(tokenizer, role), getattr(tokenizer, f"{role}_id")
            _check_special_id(model_config, what, expected, token, token_id)


def _check_special_id(
    model_config: PretrainedConfig, role: str, expected: int, name: str, token_id: int
) -> None:
    if token_id != expected:
        raise UserError(
            f"model type {model_config.model_type!r} takes token {expected} for {role}, and {name} is "
            f"{token_id}; use the model's own tokenizer, or train one (tokenizer.train_vocab_size)"
        )


_NOTED_OTHER_WORDS = 0.01
"""Share of a tokenizer's words that may stand under other ids than in the model's own."""


def describe_other_tokenizer(config: Config, tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """A note if a pretrained model is trained under a tokenizer whose ids mean other words than its own."""
    is_own = not config.tokenizer.train_vocab_size and config.tokenizer.name_or_path in (
        None,
        config.model.name_or_path,
    )
    if is_own or not config.model.name_or_path:
        return []
    try:
        own = load_tokenizer(resolve_name_or_path(config.model.name_or_path, "model.name_or_path"))
    except UserError:
        return []  # a model without a tokenizer: nothing tells what its ids meant
    own_ids, ids = own.get_vocab(), tokenizer.get_vocab()
    share = sum(own_ids.get(word) != token_id for word, token_id in ids.items()) / len(ids)
    if share <= _NOTED_OTHER_WORDS:
        return []
    of_model = repr(config.model.name_or_path)
    return [
        f"the tokenizer is not that of {of_model}: {share:.0%} of its words start as other words' embeddings"
    ]


def set_output_bias(model: TFPreTrainedModel, blocks: Blocks) -> None:
    """Starts a new head from the tokens' frequencies: its bias becomes their log probability.

    With near-zero logits the softmax of the bias is the model's whole prediction: the first perplexity is
    that of the unigram distribution instead of about the vocabulary's size, and the first hundred steps are
    not spent on learning frequencies.
    """
    # Add-one smoothing: a token that was not seen keeps a finite bias.
    counts = np.ones(model.config.vocab_size)
    num_counted = min(blocks.num_blocks or _COUNTED_BLOCKS, _COUNTED_BLOCKS)
    sample = blocks.read_shuffled(seed=0, first=0, last=num_counted).unbatch().take(num_counted)
    for chunk in sample.batch(BLOCKS_A_CHUNK).as_numpy_iterator():
        is_token = np.arange(chunk["input_ids"].shape[1]) < chunk["num_tokens"][:, np.newaxis]
        counts += np.bincount(chunk["input_ids"][is_token], minlength=len(counts))
    for bias in model.get_lm_head().get_bias().values():
        bias.assign(np.log(counts / counts.sum()))
