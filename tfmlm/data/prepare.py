"""The data stage as a whole: from the configuration to a tokenizer and two sets of blocks."""

from __future__ import annotations

import json
import textwrap
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import xxhash
from transformers import PretrainedConfig, PreTrainedTokenizerFast

from tfmlm.config import Config, DataConfig
from tfmlm.data.blocks import (
    HELD_OUT_OF_A_STREAM,
    READING_ERRORS,
    Blocks,
    PackedBlocks,
    ShardedBlocks,
    StreamedBlocks,
    TextCounts,
    open_blocks,
    write_blocks,
)
from tfmlm.data.cache import make_once
from tfmlm.data.files import BadRow
from tfmlm.data.new_words import TokensAText, extend_tokenizer, is_extended, measure_tokens_a_text
from tfmlm.data.packing import BlockFormat, pack_texts
from tfmlm.data.shards import (
    SPLITS,
    Manifest,
    fingerprint_tokenizer,
    is_shard_folder,
    open_tokenizer,
    read_manifest,
)
from tfmlm.data.splitting import Texts, load_texts
from tfmlm.data.text_stream import TextStream
from tfmlm.data.tokenizer_training import train_tokenizer
from tfmlm.data.tokenizers import PADS_AT_ONE, load_tokenizer, save_tokenizer_folder
from tfmlm.errors import UserError
from tfmlm.model_names import resolve_name_or_path

_CACHE_FORMAT = 6
"""Counted up when training a tokenizer or packing changes, so that no older file is read."""

_BLOCKS_NAME = "blocks.arrow"
_BAD_ROWS_NAME = "bad_rows.json"


class PreparedData(NamedTuple):
    """The data of training and evaluation.

    Attributes:
        tokenizer: a fast tokenizer with a mask token.
        train: blocks to train on.
        validation: held-out blocks.
        bad_rows: rows that were left out, by file; of a stream, those that were read so far.
        tokens_a_text: what new words save, if there are any.
    """

    tokenizer: PreTrainedTokenizerFast
    train: Blocks
    validation: Blocks
    bad_rows: Mapping[str, BadRow]
    tokens_a_text: TokensAText | None = None


def prepare_data(config: Config) -> PreparedData:
    """Opens shards, or loads the texts, loads or trains the tokenizer, and packs or streams blocks.

    Raises:
        UserError: the source or the tokenizer is wrong.
    """
    if is_shard_folder(config.data.source):
        return _open_shards(config)
    texts = load_texts(config.data, config.run.seed)
    tokenizer, tokens_a_text = make_tokenizer(config, texts)
    if config.data.streaming:
        return _stream(config, texts, tokenizer)._replace(tokens_a_text=tokens_a_text)
    train, validation = (_pack_once(part, tokenizer, config) for part in (texts.train, texts.validation))
    bad_rows = texts.train.bad_rows | texts.validation.bad_rows
    return PreparedData(tokenizer, train, validation, bad_rows, tokens_a_text)


@contextmanager
def explained_errors(data: PreparedData) -> Iterator[None]:
    """Turns an error that reading the blocks raised, from inside TensorFlow, into one line."""
    try:
        yield
    except (*READING_ERRORS, UserError) as error:
        explanation = data.train.explain(error) or data.validation.explain(error)
        if explanation is None:
            raise
        raise explanation from error


# === Text that the tokenizer does not know, and texts that are long ===

_NOTED_UNKNOWN = 0.01
_MOST_UNKNOWN = 0.5


def count_texts(data: PreparedData) -> TextCounts:
    """Of all of the text; of a stream, of what is held out."""
    is_stream = data.train.num_blocks is None
    return TextCounts.of_all([data.validation] if is_stream else [data.train, data.validation])


def describe_unknown(share: float, unk_token: str | None, is_trained: bool) -> list[str]:
    """A note if a text is unknown in part.

    Args:
        share: `TextCounts.unknown_share`.
        unk_token: the tokenizer's.
        is_trained: whether the tokenizer is one that the run trains.

    Raises:
        UserError: half of it is unknown, and a model of it would know one word.
    """
    if share < _NOTED_UNKNOWN:
        return []
    advice = (
        "raise tokenizer.train_vocab_size, or set tokenizer.algorithm=byte_bpe, which knows every character "
        "and words of any length"
        if is_trained
        else "use a tokenizer that was made for such text"
    )
    note = f"{share:.1%} of the text's tokens are {unk_token}, unknown to the tokenizer; {advice}"
    if share >= _MOST_UNKNOWN:
        raise UserError(note)
    return [note]


def describe_long_texts(counts: TextCounts, config: DataConfig) -> list[str]:
    """A note if texts that are not packed are longer than a block."""
    if not counts.num_long_texts:
        return []
    done = "cut there" if config.long_texts == "cut" else "split"
    repeated = f", each part repeating {config.stride} tokens" if config.stride else ""
    texts = f"{counts.num_long_texts:,} of {counts.num_texts:,} texts"
    return [f"{texts} are longer than a block of {config.block_size} tokens and were {done}{repeated}"]


def make_block_format(config: Config, tokenizer: PreTrainedTokenizerFast) -> BlockFormat:
    """The form of the configuration's blocks.

    Raises:
        UserError: the blocks of texts that are not packed would hold nothing new.
    """
    room = config.data.block_size - tokenizer.backend_tokenizer.num_special_tokens_to_add(is_pair=False)
    if not config.data.pack and config.data.stride >= room:
        raise UserError(
            f"a block of {config.data.block_size} tokens (data.block_size) has place for {max(room, 0)} of a "
            f"text beside the special ones, and data.stride is {config.data.stride}; raise the one or lower "
            "the other"
        )
    return BlockFormat(
        block_size=config.data.block_size,
        pad_token_id=int(tokenizer.pad_token_id),
        unk_token_id=tokenizer.unk_token_id,
        with_words=config.masking.whole_word,
        drop_remainder=config.data.drop_remainder,
        pack=config.data.pack,
        splits_long=config.data.long_texts == "split",
        stride=config.data.stride,
        with_texts=config.data.attend_within_texts,
    )


# === Tokenizer ===


def make_tokenizer(config: Config, texts: Texts) -> tuple[PreTrainedTokenizerFast, TokensAText | None]:
    """The configured tokenizer, or the model's own, or one that is trained; with the new words.

    Returns:
        The tokenizer, and what the new words save, if there are any.
    """
    tokenizer = _make_original_tokenizer(config, texts.train)
    if not config.tokenizer.adds_words:
        return tokenizer, None
    extended = _extend_once(config, texts.train, tokenizer)
    return extended, measure_tokens_a_text(tokenizer, extended, texts.validation)


def _make_original_tokenizer(config: Config, texts: TextStream) -> PreTrainedTokenizerFast:
    """Trains the tokenizer once, or loads the configured one, or else the model's own."""
    if not config.tokenizer.train_vocab_size:
        return load_original_tokenizer(config)
    model_type = _find_model_type(config)
    if config.data.streaming:
        return train_tokenizer(texts, config.tokenizer, model_type)
    trained = replace(config.tokenizer, added_tokens=[])
    return _make_tokenizer_once(
        _fingerprint(texts, str(trained), str(model_type in PADS_AT_ONE)),
        lambda: train_tokenizer(texts, config.tokenizer, model_type),
    )


def _extend_once(
    config: Config, texts: TextStream, tokenizer: PreTrainedTokenizerFast
) -> PreTrainedTokenizerFast:
    words, num_pieces = config.tokenizer.added_tokens, config.tokenizer.extend_from_text or 0
    if config.data.streaming or not num_pieces:
        return extend_tokenizer(tokenizer, words, num_pieces, texts)
    settings = (json.dumps(words), str(num_pieces), tokenizer.backend_tokenizer.to_str())
    return _make_tokenizer_once(
        _fingerprint(texts, *settings), lambda: extend_tokenizer(tokenizer, words, num_pieces, texts)
    )


def _make_tokenizer_once(
    fingerprint: str, make: Callable[[], PreTrainedTokenizerFast]
) -> PreTrainedTokenizerFast:
    folder = make_once(
        f"tokenizer-{fingerprint}", lambda unfinished: save_tokenizer_folder(make(), unfinished)
    )
    return load_tokenizer(folder)


def _find_model_type(config: Config) -> str:
    """The model's type, or "" where its `config.json` does not say; loading the model tells why."""
    if not config.model.name_or_path:
        return str(config.model.config.get("model_type", ""))
    name_or_path = resolve_name_or_path(config.model.name_or_path, "model.name_or_path")
    try:
        fields, _ = PretrainedConfig.get_config_dict(name_or_path)
    except (OSError, ValueError):
        return ""
    return str(fields.get("model_type", ""))


def load_original_tokenizer(config: Config) -> PreTrainedTokenizerFast:
    """The configured tokenizer, or else the model's own, without new words."""
    if config.tokenizer.name_or_path:
        return load_tokenizer(resolve_name_or_path(config.tokenizer.name_or_path, "tokenizer.name_or_path"))
    return load_tokenizer(resolve_name_or_path(config.model.name_or_path or "", "model.name_or_path"))


# === Packed ===


def _pack_once(texts: TextStream, tokenizer: PreTrainedTokenizerFast, config: Config) -> PackedBlocks:
    block_format = make_block_format(config, tokenizer)
    fingerprint = _fingerprint(texts, str(block_format), tokenizer.backend_tokenizer.to_str())

    def write(folder: Path) -> None:
        folder.mkdir()
        write_blocks(pack_texts(texts, tokenizer, block_format), folder / _BLOCKS_NAME)
        rows = [row._asdict() for row in texts.bad_rows.values()]
        (folder / _BAD_ROWS_NAME).write_text(json.dumps(rows), encoding="utf-8")

    folder = make_once(f"blocks-{fingerprint}", write)
    rows = json.loads((folder / _BAD_ROWS_NAME).read_text(encoding="utf-8"))
    texts.bad_rows.update({row["file"]: BadRow(**row) for row in rows})
    return open_blocks(folder / _BLOCKS_NAME)


def _fingerprint(texts: TextStream, *settings: str) -> str:
    """A hash of the texts and of the settings."""
    parts = (str(_CACHE_FORMAT), texts.fingerprint(), *settings)
    return xxhash.xxh3_128_hexdigest("\0".join(parts).encode())


# === Streamed ===


def _stream(config: Config, texts: Texts, tokenizer: PreTrainedTokenizerFast) -> PreparedData:
    block_format = make_block_format(config, tokenizer)
    validation = texts.validation
    if texts.split.held_out_below:
        validation = validation.take(HELD_OUT_OF_A_STREAM).keep_in_memory()
    return PreparedData(
        tokenizer=tokenizer,
        train=StreamedBlocks(texts.train, tokenizer, block_format),
        validation=StreamedBlocks(validation, tokenizer, block_format),
        # A view of both, because rows are read, and found to be bad, as long as the run lasts.
        bad_rows=ChainMap(texts.train.bad_rows, texts.validation.bad_rows),
    )


# === Shards ===


def _open_shards(config: Config) -> PreparedData:
    folder, with_words = config.data.source, config.masking.whole_word
    manifest = read_manifest(folder)
    if manifest.block_size != config.data.block_size:
        raise UserError(
            f"data.block_size is {config.data.block_size} and the blocks in {folder!r} have "
            f"{manifest.block_size} tokens; set data.block_size={manifest.block_size} or prepare them again"
        )
    for key in ("pack", "long_texts", "stride"):
        given, made = getattr(config.data, key), getattr(manifest, key)
        if given != made:
            made_in_yaml = json.dumps(made).strip('"')
            raise UserError(
                f"data.{key} is {json.dumps(given)} and the blocks in {folder!r} were made with "
                f"{json.dumps(made)}; set data.{key}={made_in_yaml} or prepare them again"
            )
    if with_words and not manifest.with_words:
        raise UserError(
            f"masking.whole_word is true and the blocks in {folder!r} do not say where words start; run "
            "`tfmlm prepare` again with masking.whole_word=true"
        )
    with_texts = config.data.attend_within_texts
    if with_texts and not manifest.with_texts:
        raise UserError(
            f"data.attend_within_texts is true and the blocks in {folder!r} do not say where texts start; "
            "run `tfmlm prepare` again with data.attend_within_texts=true"
        )
    tokenizer = open_tokenizer(folder, manifest)
    _check_tokenizer_is_the_same(config, manifest, tokenizer)
    train, validation = (
        ShardedBlocks.of_split(folder, manifest, split, with_words, with_texts) for split in SPLITS
    )
    bad_rows = {row.file: row for row in manifest.bad_rows}
    tokens_a_text = None
    if manifest.tokens_a_text:
        before, after, num_new = manifest.tokens_a_text
        tokens_a_text = TokensAText(before, after, int(num_new))
    return PreparedData(tokenizer, train, validation, bad_rows, tokens_a_text)


def _check_tokenizer_is_the_same(
    config: Config, manifest: Manifest, tokenizer: PreTrainedTokenizerFast
) -> None:
    """A tokenizer that the configuration trains is the folder's own, and only its new words are compared."""
    is_trained = bool(config.tokenizer.train_vocab_size)
    if is_trained or not (config.tokenizer.name_or_path or config.model.name_or_path):
        _check_new_words_are_the_same(config, manifest)
        return
    original = load_original_tokenizer(config)
    if fingerprint_tokenizer(original) == manifest.tokenizer_fingerprint and not config.tokenizer.adds_words:
        return
    _check_new_words_are_the_same(config, manifest)
    if not (config.tokenizer.adds_words and is_extended(original, tokenizer)):
        key = "tokenizer" if config.tokenizer.name_or_path else "model"
        name = config.tokenizer.name_or_path or config.model.name_or_path
        raise UserError(
            f"the blocks in {config.data.source!r} were made by another tokenizer than {key}.name_or_path "
            f"{name!r}; prepare them again with this one"
        )


def _check_new_words_are_the_same(config: Config, manifest: Manifest) -> None:
    made_with = manifest.settings.get("tokenizer")
    for key in ("added_tokens", "extend_from_text"):
        there = made_with.get(key) if isinstance(made_with, dict) else None
        here = getattr(config.tokenizer, key)
        if (here or None) != (there or None):
            raise UserError(
                f"the blocks in {config.data.source!r} were made with tokenizer.{key} {_shorten(there)}, and "
                f"here it is {_shorten(here)}; set what they were made with, or prepare them again"
            )


def _shorten(value: object) -> str:
    return textwrap.shorten(json.dumps(value, ensure_ascii=False), 60)
