"""`tfmlm prepare`: texts become shards, in this process or on Apache Beam, with the same bytes."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import groupby
from typing import Any

import tensorflow as tf

from tfmlm.config import Config
from tfmlm.data.blocks import ShardedBlocks, TextCounts
from tfmlm.data.packing import Columns, pack_texts
from tfmlm.data.prepare import describe_long_texts, describe_unknown, make_tokenizer
from tfmlm.data.shard_job import ShardJob, describe_settings
from tfmlm.data.shards import (
    MANIFEST_NAME,
    SPLITS,
    Manifest,
    Shard,
    is_shard_folder,
    read_manifest,
    read_settings,
    save_tokenizer,
    write_shard,
)
from tfmlm.data.splitting import load_texts
from tfmlm.errors import UserError, reason_of
from tfmlm.remote_folders import make_folder

_OWN_FILE = r"((train|validation)-\d{5,}\.tfrecord|manifest\.json)"
_OWN_FILES = re.compile(rf"tokenizer/?|{_OWN_FILE}|\.{_OWN_FILE}\.[0-9a-f]{{32}}")
"""Names that `prepare` writes into a folder, and may clear away."""


def prepare_shards(
    config: Config, folder: str, blocks_per_shard: int, runner: str | None, beam_flags: list[str]
) -> tuple[Manifest, list[str]]:
    """Writes the configured texts as shards and a manifest.

    Args:
        config: the run's configuration; `data.streaming` matters for Hub datasets and `data.max_rows` only.
        folder: an empty folder, an unfinished one, or one of the same settings, which is made again.
        blocks_per_shard: blocks in every shard but the last of a split.
        runner: of Apache Beam; this process if there is none.
        beam_flags: Beam's own.

    Returns:
        The manifest, and what the person should know, one sentence each.

    Raises:
        UserError: the source, the tokenizer or the folder is wrong, half of the text is unknown to the
            tokenizer, or Beam is not installed.
    """
    if is_shard_folder(config.data.source):
        raise UserError(f"data.source {config.data.source!r} is a folder of shards already")
    write = _choose_writer(runner, beam_flags)
    texts = load_texts(config.data, config.run.seed)
    tokenizer, tokens_a_text = make_tokenizer(config, texts)
    job = ShardJob(config, folder, blocks_per_shard, tokenizer, texts.split, tokens_a_text)
    try:
        _clear(folder, describe_settings(config, blocks_per_shard))
        save_tokenizer(tokenizer, folder)
        write(job)
    except (tf.errors.OpError, OSError) as error:
        raise UserError(f"{folder!r} cannot be written: {reason_of(error)}") from error
    manifest = read_manifest(folder)
    splits = [ShardedBlocks.of_split(folder, manifest, split) for split in SPLITS]
    counts = TextCounts.of_all(splits)
    try:
        notes = describe_unknown(
            counts.unknown_share, tokenizer.unk_token, bool(config.tokenizer.train_vocab_size)
        )
    except UserError:
        # Without it the folder counts as unfinished.
        tf.io.gfile.remove(posixpath.join(folder, MANIFEST_NAME))
        raise
    return manifest, [*notes, *describe_long_texts(counts, config.data)]


def _clear(folder: str, settings: dict[str, Any]) -> None:
    """Makes an empty folder of a new one, an unfinished one, or one of the same settings."""
    make_folder(folder)
    names = sorted(tf.io.gfile.listdir(folder))
    others = [name for name in names if not _OWN_FILES.fullmatch(name)]
    if others:
        raise UserError(
            f"{folder!r} holds other files ({', '.join(others[:3])}); choose an empty folder with --output"
        )
    if MANIFEST_NAME in names and read_settings(folder) != settings:
        raise UserError(
            f"{folder!r} holds shards of other settings; choose another --output or remove the folder"
        )
    # The manifest first: without it the folder counts as unfinished.
    for name in sorted(names, key=lambda name: name != MANIFEST_NAME):
        path = posixpath.join(folder, name)
        tf.io.gfile.rmtree(path) if tf.io.gfile.isdir(path) else tf.io.gfile.remove(path)


def _choose_writer(runner: str | None, beam_flags: list[str]) -> Callable[[ShardJob], None]:
    if runner is None:
        return write_locally
    try:
        from tfmlm.data.beam import make_pipeline, write_with_beam
    except ModuleNotFoundError as error:
        raise UserError(
            f"--runner {runner} needs Apache Beam ({error}); install it with pip install 'tfmlm[beam]'"
        ) from error
    # Before the folder is cleared, because Beam may not know the runner.
    return partial(write_with_beam, pipeline=make_pipeline(runner, beam_flags))


def write_locally(job: ShardJob) -> None:
    """Writes the shards of both splits, one after the other, and the manifest."""
    texts = job.open_texts()
    streams = {"train": texts.train, "validation": texts.validation}
    splits = {
        split: list(_write_split(job, split, pack_texts(streams[split], job.tokenizer, job.block_format)))
        for split in SPLITS
    }
    job.finish(splits, (texts.train.bad_rows | texts.validation.bad_rows).values())


def _write_split(job: ShardJob, split: str, blocks: Iterable[Columns]) -> Iterator[Shard]:
    pieces = _cut_at_shards(blocks, job.blocks_per_shard)
    for index, group in groupby(pieces, key=lambda piece: piece[0]):
        name = job.name_shard(split, index)
        yield write_shard(job.folder, name, (columns for _, columns in group))


def _cut_at_shards(blocks: Iterable[Columns], blocks_per_shard: int) -> Iterator[tuple[int, Columns]]:
    """Pieces of the blocks, each of one shard only, with the shard's index."""
    for columns in blocks:
        indices = columns["example_id"] // blocks_per_shard
        for index in range(int(indices[0]), int(indices[-1]) + 1):
            yield index, {name: column[indices == index] for name, column in columns.items()}
