"""Loads the pretrained model, or makes one from a configuration."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import tensorflow as tf
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from transformers import (
    CONFIG_MAPPING,
    TF_MODEL_FOR_MASKED_LM_MAPPING,
    AutoConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    TFAutoModelForMaskedLM,
    TFPreTrainedModel,
)
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, has_file

from tfmlm.config import Config
from tfmlm.data.blocks import BLOCKS_A_CHUNK, Blocks
from tfmlm.data.tokenizers import PADS_AT_ONE, load_tokenizer
from tfmlm.errors import UserError, first_line
from tfmlm.model_names import advise_offline, resolve_name_or_path
from tfmlm.training.architectures import check_answers, check_architecture, check_use
from tfmlm.training.model_folder import find_missing, list_names, tie_output_bias

_LOGGER = logging.getLogger(__name__)

_HOW_TO_CONVERT = (
    "pickled PyTorch weights are not read, since opening a pickle can run code; convert them once where "
    "PyTorch is: AutoModelForMaskedLM.from_pretrained(NAME).save_pretrained(FOLDER)"
)

_MISFITS = (
    *(ArithmeticError, AttributeError, LookupError, NotImplementedError, TypeError, ValueError),
    tf.errors.OpError,
)
"""Raised by transformers and TensorFlow for fields and tensors that do not fit each other."""

_COUNTED_BLOCKS = 4096
"""Blocks whose tokens are counted for the output bias: more would not change the frequent tokens' shares."""


def _check_model_folder(path: Path) -> None:
    if not (path / "config.json").exists():
        raise UserError(f"model folder {str(path)!r} has no config.json; give a Hugging Face model folder")
    weights = [name for pattern in ("model*.safetensors", "tf_model*.h5") for name in path.glob(pattern)]
    if not weights:
        raise UserError(
            f"model folder {str(path)!r} has no weights (model.safetensors or tf_model.h5)"
            + (f"; {_HOW_TO_CONVERT}" if any(path.glob("pytorch_model*.bin")) else "")
        )


def check_model(config: Config) -> None:
    """Refuses what the configuration of the model alone tells, before minutes go into reading the text.

    Raises:
        UserError: the model is unknown, cannot go the whole way, or takes no such blocks.
    """
    fields = config.model.config
    if config.model.name_or_path:
        name_or_path = resolve_name_or_path(config.model.name_or_path, "model.name_or_path")
        model_config = _override(_read_config(name_or_path), fields)
    else:
        model_config = _make_config(fields)
    _check_head(model_config)
    check_use(model_config, config)
    with suppress(TypeError, ValueError):  # of a length that is no number; making the model says so
        _check_block_size(model_config, config.data.block_size)


def make_model(config: Config, tokenizer: PreTrainedTokenizerFast) -> tuple[TFPreTrainedModel, list[str]]:
    """Loads or makes the model that `model` configures.

    Call it inside the scope of the strategy and under the Keras policy of the run.

    Returns:
        The built model, and PyTorch's names of what is new, not from a checkpoint: of a loaded model tensors
        of its vocabulary head, of one from scratch all.

    Raises:
        UserError: the model, its configuration, the tokenizer or the block size do not fit together.
    """
    if config.model.name_or_path:
        name_or_path = resolve_name_or_path(config.model.name_or_path, "model.name_or_path")
        model, new = _load_pretrained(name_or_path, config.model.config)
    else:
        model = _make_from_config(config, tokenizer)
        new = list_names(model)
    _check_fit(model.config, tokenizer, config.data.block_size)
    return model, new


def load_model_folder(
    name_or_path: str | Path,
) -> tuple[TFPreTrainedModel, PreTrainedTokenizerFast]:
    """Loads a trained model in float32 and its tokenizer, whose `model_max_length` is set to the model's.

    Raises:
        UserError: there is no such model, it has no vocabulary head, or no tokenizer that fits it.
    """
    resolved = resolve_name_or_path(str(name_or_path), "model")
    model, new = _load_pretrained(resolved, {})
    check_answers(model.config)
    check_has_head(str(name_or_path), new)
    tokenizer = load_tokenizer(resolved)
    _check_padding(model.config, tokenizer)
    tokenizer.model_max_length = max_block_size(model.config)
    return model, tokenizer


def check_has_head(name_or_path: str, new: list[str]) -> None:
    """Refuses a model that is to answer and whose vocabulary head is new: its words would be noise.

    Args:
        name_or_path: what the user gave.
        new: from `make_model`.

    Raises:
        UserError: names what is missing.
    """
    if new:
        raise UserError(
            f"weights of {name_or_path!r} lack {len(new)} tensors of the masked-LM head ({', '.join(new)}), "
            "so its answers would be noise; use a masked language model, or train this one first "
            "(model.name_or_path)"
        )


def _load_pretrained(name_or_path: str, fields: dict[str, object]) -> tuple[TFPreTrainedModel, list[str]]:
    """The model, and PyTorch's names of the tensors of its head that the weights lack."""
    model_config = _override(_read_config(name_or_path), fields)
    _check_head(model_config)
    if hasattr(model_config, "auto_map"):
        _LOGGER.warning(
            "%s brings code of its own (auto_map), which is not run: %s is the library's",
            name_or_path,
            model_config.model_type,
        )
        del model_config.auto_map  # the files that it names are not saved with the trained model
    try:
        model, info = TFAutoModelForMaskedLM.from_pretrained(
            _fetch_shards(name_or_path),
            config=model_config,
            output_loading_info=True,
            trust_remote_code=False,
        )
    except (OSError, ValueError, SafetensorError) as error:
        reason = _HOW_TO_CONVERT if "from_pt=True" in str(error) else first_line(error)
        raise UserError(f"weights of {name_or_path!r} cannot be loaded: {reason}") from error
    except _MISFITS as error:
        # transformers cannot make its own error for tensors of another shape; the cause is the one before.
        reason = first_line(error.__context__ or error)
        raise UserError(
            f"weights of {name_or_path!r} cannot be loaded, for they do not fit its config.json ({reason}); "
            "use those that belong together"
        ) from error
    missing = find_missing(model, tie_output_bias(model, info["missing_keys"]))
    missing_in_encoder = [name for name in missing if name.startswith(f"{model.base_model_prefix}.")]
    if missing_in_encoder:
        raise UserError(
            f"weights of {name_or_path!r} lack {len(missing_in_encoder)} tensors of the encoder, "
            f"{missing_in_encoder[0]} for one; they belong to another model or architecture"
        )
    return model, missing


def _read_config(name_or_path: str) -> PretrainedConfig:
    if Path(name_or_path).is_dir():
        _check_model_folder(Path(name_or_path))
    try:
        model_config = AutoConfig.from_pretrained(name_or_path, trust_remote_code=False)
    except (OSError, *_MISFITS) as error:
        if "trust_remote_code" in str(error):
            raise UserError(
                f"model {name_or_path!r} needs code of its own (auto_map), which is never run; "
                "use a model type that transformers has"
            ) from error
        raise UserError(
            f"model.name_or_path {name_or_path!r} cannot be loaded: {first_line(error)}{advise_offline()}"
        ) from error
    return model_config


def _fetch_shards(name_or_path: str) -> str:
    """The folder of a Hub model whose weights are split: transformers reads shards from a folder only."""
    if Path(name_or_path).is_dir() or not has_file(name_or_path, SAFE_WEIGHTS_INDEX_NAME):
        return name_or_path
    return snapshot_download(name_or_path, allow_patterns=["config.json", "model*.safetensors*"])


def _make_from_config(config: Config, tokenizer: PreTrainedTokenizerFast) -> TFPreTrainedModel:
    vocabulary = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.cls_token_id,
        "eos_token_id": tokenizer.sep_token_id,
    }
    model_config = _make_config(config.model.config, **vocabulary)
    _check_head(model_config)
    try:
        model = TFAutoModelForMaskedLM.from_config(model_config)
        model.build_in_name_scope()
    except _MISFITS as error:
        raise UserError(
            f"model.config makes no {model_config.model_type} model: {first_line(error)}"
        ) from error
    return model


def _make_config(fields: Mapping[str, object], **vocabulary: int) -> PretrainedConfig:
    """The configuration of a model from scratch; `fields` win over what the tokenizer says."""
    model_type = fields.get("model_type")
    if model_type not in CONFIG_MAPPING:
        raise UserError(
            f"model.config.model_type {model_type!r} is unknown{_suggest(str(model_type), CONFIG_MAPPING)}"
        )
    model_config = AutoConfig.for_model(model_type, **vocabulary)
    if hasattr(model_config, "pad_index") and "pad_token_id" in vocabulary:
        # XLM and FlauBERT take these tokens for padding where no attention mask is given.
        model_config.pad_index = vocabulary["pad_token_id"]
    return _override(model_config, {name: value for name, value in fields.items() if name != "model_type"})


def _override(model_config: PretrainedConfig, fields: dict[str, object]) -> PretrainedConfig:
    known = model_config.to_dict()
    for name, value in fields.items():
        if name not in known:
            raise UserError(
                f"model.config.{name} is not a field of {model_config.model_type}{_suggest(name, known)}"
            )
        setattr(model_config, name, value)
    return model_config


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


def max_block_size(model_config: PretrainedConfig) -> int:
    """Longest input, in tokens. Types that pad at 1 count positions from 2."""
    positions = int(model_config.max_position_embeddings)
    return positions - 2 if model_config.model_type in PADS_AT_ONE else positions


def _check_fit(model_config: PretrainedConfig, tokenizer: PreTrainedTokenizerFast, block_size: int) -> None:
    _check_block_size(model_config, block_size)
    if len(tokenizer) > model_config.vocab_size:
        raise UserError(
            f"the tokenizer has {len(tokenizer)} tokens and the model only {model_config.vocab_size}; "
            "use the model's own tokenizer"
        )
    _check_padding(model_config, tokenizer)


def _check_block_size(model_config: PretrainedConfig, block_size: int) -> None:
    longest = max_block_size(model_config)
    if block_size > longest:
        raise UserError(
            f"data.block_size {block_size} is over the model's maximum of {longest}; set at most {longest}"
        )


def _check_padding(model_config: PretrainedConfig, tokenizer: PreTrainedTokenizerFast) -> None:
    """Refuses padding where the model would not see it, see `PADS_AT_ONE`."""
    if model_config.model_type not in PADS_AT_ONE:
        return
    for what, token_id in (
        ("pad_token_id of its config.json", model_config.pad_token_id),
        (f"the tokenizer's {tokenizer.pad_token}", tokenizer.pad_token_id),
    ):
        if token_id != 1:
            raise UserError(
                f"model type {model_config.model_type!r} takes token 1 for padding, and {what} is "
                f"{token_id}; use the model's own tokenizer, or train one (tokenizer.train_vocab_size)"
            )


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
        counts += np.bincount(chunk["input_ids"].reshape(-1), minlength=len(counts))
    for bias in model.get_lm_head().get_bias().values():
        bias.assign(np.log(counts / counts.sum()))
