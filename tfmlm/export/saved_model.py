"""Writes a SavedModel as TensorFlow Serving wants it: `<dir>/<name>/<version>/`."""

from __future__ import annotations

import json
import posixpath
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf
from transformers import PreTrainedTokenizerFast

from tfmlm.config import ExportConfig
from tfmlm.data.tokenizers import save_tokenizer_folder
from tfmlm.errors import UserError, reason_of
from tfmlm.export.fill_mask import FillMask
from tfmlm.export.signatures import Signatures
from tfmlm.export.text_input import TextInput
from tfmlm.export.warmup import make_samples, write_batching_parameters, write_warmup_requests
from tfmlm.export_layout import (
    DESCRIPTION_FILE,
    TOKENIZER_DIR,
    add_version,
    begin_version,
    find_next_version,
)
from tfmlm.graph_tokenizer import UnsupportedTokenizerError
from tfmlm.graph_tokenizer.parity import find_mismatch
from tfmlm.remote_folders import explained_remote_errors, list_names, put_folder
from tfmlm.training.model import load_model_folder
from tfmlm.urls import is_url

_LONGEST_SHOWN = 200
"""Characters of a text that differs."""


class Export(NamedTuple):
    """A written version.

    Attributes:
        address: its folder, which may be a remote one.
        notes: what the person should know, one sentence each.
    """

    address: str
    notes: list[str]

    @property
    def path(self) -> Path:
        """The folder, if it is a local one."""
        return Path(self.address)


def export_saved_model(
    model_dir: str | Path, config: ExportConfig, name: str, corpus: Iterable[list[str]] = ()
) -> Export:
    """Exports a model folder as the next version.

    Signatures: see `Signatures`. Beside them lies what TensorFlow Serving reads when it loads the version:
    warm-up requests and batching parameters.

    Args:
        model_dir: a Hugging Face folder with a TensorFlow-readable model and a tokenizer, or a Hub id.
        config: where to, how many candidates, and whether texts can be sent.
        name: name of the export.
        corpus: texts in batches, on which the tokenization in the graph must equal the tokenizer's.

    Returns:
        The new version, whose folder appears only when it is whole.

    Raises:
        UserError: the folder holds no model, the text signature is required and not possible, or the export
            cannot be written.
    """
    if is_url(config.dir):
        return _export_to_remote(model_dir, config, name, corpus)
    model, tokenizer = load_model_folder(model_dir)
    fill_mask = FillMask(model, tokenizer, config.top_k, config.max_masks, config.group_by_length)
    text_input, notes = _make_text_input(tokenizer, config, corpus)
    signatures = Signatures(fill_mask, text_input, config.max_top_k)
    root = Path(config.dir, name)
    try:
        unfinished = begin_version(root)
    except OSError as error:
        raise _explain(root, error) from error
    try:
        for inner in ("assets", "variables"):
            (unfinished / inner).mkdir()  # with the mode that the umask gives; TensorFlow's own is 0755
        tf.saved_model.save(signatures, str(unfinished), signatures=signatures.list_all())
        save_tokenizer_folder(tokenizer, unfinished / TOKENIZER_DIR)
        description = _describe(fill_mask, tokenizer, config, takes_texts=text_input is not None)
        (unfinished / DESCRIPTION_FILE).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
        write_warmup_requests(unfinished, name, make_samples(tokenizer))
        write_batching_parameters(unfinished)
        version = add_version(unfinished, root)
    except (OSError, tf.errors.OpError) as error:
        raise _explain(root, error) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return Export(str(version), notes)


def _export_to_remote(
    model_dir: str | Path, config: ExportConfig, name: str, corpus: Iterable[list[str]]
) -> Export:
    """Exports here and puts it there: TensorFlow Serving looks for versions and would find half of one."""
    root = posixpath.join(config.dir, name)
    with tempfile.TemporaryDirectory() as scratch:
        export = export_saved_model(model_dir, replace(config, dir=scratch), name, corpus)
        with explained_remote_errors(root):
            version = posixpath.join(root, str(find_next_version(list_names(root), root)))
            put_folder(Path(export.address), version)
    return export._replace(address=version)


def check_target(config: ExportConfig) -> None:
    """Makes sure that a remote `export.dir` can be written, which hours of training later is too late.

    Raises:
        UserError: it cannot.
    """
    if config.enabled and is_url(config.dir):
        with explained_remote_errors(config.dir):
            tf.io.gfile.makedirs(config.dir)


def _explain(root: Path, error: Exception) -> UserError:
    return UserError(f"export to {str(root)!r} failed: {reason_of(error)}; make room, or set export.dir")


def _make_text_input(
    tokenizer: PreTrainedTokenizerFast, config: ExportConfig, corpus: Iterable[list[str]]
) -> tuple[TextInput | None, list[str]]:
    """The text signature's part, if it is wanted and equals the tokenizer; else the reason."""
    if config.text_signature == "off":
        return None, []
    try:
        text_input = TextInput(tokenizer, config.long_texts, config.max_masks)
        differing = find_mismatch(text_input.tokenize, tokenizer, corpus)
    except UnsupportedTokenizerError as error:
        text_input, reason = None, f"the tokenizer cannot run in the graph: it has {error}"
    else:
        if differing is None:
            return text_input, []
        reason = f"the tokenizer differs in the graph on the text {differing[:_LONGEST_SHOWN]!r}"
    if config.text_signature == "require":
        raise UserError(f"export.text_signature is 'require', and {reason}; set export.text_signature=auto")
    return None, [f"the export takes ids and no texts: {reason}"]


def _describe(
    fill_mask: FillMask, tokenizer: PreTrainedTokenizerFast, config: ExportConfig, *, takes_texts: bool
) -> dict[str, object]:
    """What a program that finds the export may want to know."""
    return {
        "model_type": fill_mask.model.config.model_type,
        "mask_token": tokenizer.mask_token,
        "max_length": fill_mask.max_length,
        "max_masks": fill_mask.max_masks,
        "top_k": fill_mask.top_k,
        "max_top_k": config.max_top_k,
        "vocab_size": fill_mask.model.config.vocab_size,
        "text_signature": takes_texts,
    }
