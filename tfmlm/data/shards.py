"""Shards of blocks in TFRecord files, and the manifest that says which and how many.

A folder of shards may be local or remote (`gs://`): everything goes through `tf.io.gfile`. The manifest is
written last, so a folder without one is not finished.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar, get_origin, get_type_hints

import tensorflow as tf
from transformers import PreTrainedTokenizerFast

from tfmlm.atomic_remote_files import begin_remote_file
from tfmlm.config import FILE_SOURCES
from tfmlm.data.files import BadRow
from tfmlm.data.packing import Columns
from tfmlm.data.tokenizers import load_tokenizer, save_tokenizer_folder
from tfmlm.errors import UserError, first_line
from tfmlm.inside import stays_inside
from tfmlm.remote_folders import put_file
from tfmlm.urls import is_url

MANIFEST_NAME = "manifest.json"
_FORMAT = 1
_TOKENIZER_NAME = "tokenizer"
_READ_BYTES = 2**20
_SHARD_NAME = re.compile(r"\w[\w.-]*", re.ASCII)
"""Anything else could lead out of the folder."""

_Record = TypeVar("_Record")

_MAX_OFFSETS = 32
"""Of a shard: reading from a block on reads at most 1/32 of a shard before it."""

_FRAME_BYTES = 16
"""Length and checksums of a record in a TFRecord file."""

_START_ALONE = {"offsets": [0]}
"""Of a shard in a manifest of a version that wrote no offsets."""

_NO_NEW_WORDS: dict[str, list[float]] = {"tokens_a_text": []}
"""Of a manifest of a version that knew none."""

SPLITS = ("train", "validation")

_COUNTS = ("num_text_tokens", "num_unknown", "num_texts", "num_long_texts")
"""Columns of blocks that a shard's sums are kept of, and no more."""


@dataclass(frozen=True)
class Shard:
    """One file.

    Attributes:
        name: file name in the folder.
        num_blocks: records.
        num_tokens: tokens, padding left out.
        num_text_tokens: those of them that are not special; 0 in manifests of versions that did not count.
        num_unknown: those of these that the tokenizer does not know.
        num_texts: texts that begin in it, where they are not packed; else 0.
        num_long_texts: those of them that are longer than a block.
        num_bytes: size of the file.
        sha256: of the file.
        offsets: where in the file every `offset_stride`-th block begins, in bytes.
    """

    name: str
    num_blocks: int
    num_tokens: int
    num_bytes: int
    sha256: str
    offsets: list[int]
    num_text_tokens: int = 0
    num_unknown: int = 0
    num_texts: int = 0
    num_long_texts: int = 0

    @property
    def offset_stride(self) -> int:
        """Blocks from one offset to the next."""
        return -(-self.num_blocks // len(self.offsets))


@dataclass(frozen=True)
class Manifest:
    """The contents of a folder of shards.

    Attributes:
        block_size: tokens in a block.
        with_words: whether the records hold `starts_word`.
        tokenizer_fingerprint: of the tokenizer that made them, see `fingerprint_tokenizer`.
        settings: the configuration's keys that decided the blocks.
        splits: the shards in order, of `train` and of `validation`.
        bad_rows: rows of the source that were left out.
        tokens_a_text: what new words save, as `new_words.TokensAText` has it; empty if there are none.
        pack, long_texts, stride: the keys of these names in `data`, as the blocks were made.
        with_texts: whether the records hold `starts_text`.
    """

    block_size: int
    with_words: bool
    tokenizer_fingerprint: str
    settings: dict[str, Any]
    splits: dict[str, list[Shard]]
    bad_rows: list[BadRow]
    tokens_a_text: list[float] = field(default_factory=list)
    pack: bool = True
    long_texts: str = "split"
    stride: int = 0
    with_texts: bool = False


# === Writing ===


def write_shard(folder: str, name: str, blocks: Iterable[Columns]) -> Shard:
    """Writes one shard under a temporary name and renames it; the same blocks give the same bytes."""
    counts = dict.fromkeys(("num_tokens", *_COUNTS), 0)
    offsets = [0]
    with begin_remote_file(folder, name) as unfinished:
        with tf.io.TFRecordWriter(unfinished) as writer:
            for columns in blocks:
                for count in counts.keys() & columns.keys():
                    counts[count] += int(columns[count].sum())
                for record in _serialize(columns):
                    writer.write(record)
                    offsets.append(offsets[-1] + _FRAME_BYTES + len(record))
        num_bytes, num_blocks = offsets.pop(), len(offsets)
        return Shard(
            name=name,
            num_blocks=num_blocks,
            num_bytes=num_bytes,
            sha256=hash_file(unfinished),
            offsets=offsets[:: -(-num_blocks // _MAX_OFFSETS)],
            **counts,
        )


def _serialize(columns: Columns) -> Iterator[bytes]:
    """One `tf.train.Example` a block, every column but the counts a list of integers."""
    lists = {
        name: column.reshape(len(column), -1).astype(int).tolist()
        for name, column in columns.items()
        if name not in _COUNTS
    }
    for row in zip(*lists.values(), strict=True):
        features = {
            name: tf.train.Feature(int64_list=tf.train.Int64List(value=values))
            for name, values in zip(lists, row, strict=True)
        }
        example = tf.train.Example(features=tf.train.Features(feature=features))
        yield example.SerializeToString(deterministic=True)


def write_manifest(folder: str, manifest: Manifest) -> None:
    """Writes the manifest, which finishes the folder."""
    text = json.dumps(
        {"format": _FORMAT} | asdict(manifest) | {"bad_rows": [row._asdict() for row in manifest.bad_rows]},
        indent=1,
    )
    with begin_remote_file(folder, MANIFEST_NAME) as unfinished, tf.io.gfile.GFile(unfinished, "w") as file:
        file.write(text + "\n")


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: str) -> None:
    """Writes the tokenizer into a folder of shards."""
    target = posixpath.join(folder, _TOKENIZER_NAME)
    with tempfile.TemporaryDirectory() as local:
        save_tokenizer_folder(tokenizer, Path(local))
        for path in sorted(Path(local).iterdir()):
            put_file(path, posixpath.join(target, path.name))


# === Reading ===


def is_shard_folder(source: str) -> bool:
    """True if `data.source` names a folder of shards: with a manifest, or unfinished, or a remote one."""
    if source in (*FILE_SOURCES, "installed-docs"):
        return False
    if is_url(source) or tf.io.gfile.exists(posixpath.join(source, MANIFEST_NAME)):
        return True
    return any(Path(source).glob("*.tfrecord*"))


def read_manifest(folder: str) -> Manifest:
    """Reads the manifest and checks that its shards are there.

    Raises:
        UserError: there is no manifest, it is not one, or a shard is missing or of another size.
    """
    manifest = _parse_manifest(_read_fields(folder), posixpath.join(folder, MANIFEST_NAME))
    for shard in [shard for shards in manifest.splits.values() for shard in shards]:
        _check_size(folder, shard)
    return manifest


def read_settings(folder: str) -> object:
    """The settings that a finished folder was made with, whatever has become of its shards."""
    fields = _read_fields(folder)
    return fields.get("settings") if isinstance(fields, dict) else None


def _read_fields(folder: str) -> Any:
    path = posixpath.join(folder, MANIFEST_NAME)
    try:
        with tf.io.gfile.GFile(path) as file:
            return json.loads(file.read())
    except tf.errors.NotFoundError:
        raise UserError(
            f"{folder!r} holds no {MANIFEST_NAME}: `tfmlm prepare` has not finished there; run it again"
        ) from None
    except (tf.errors.OpError, ValueError, RecursionError) as error:
        raise UserError(f"{path!r} cannot be read: {first_line(error)}") from error


def _parse_manifest(fields: Any, path: str) -> Manifest:
    found = fields.pop("format", None) if isinstance(fields, dict) else None
    if found != _FORMAT:
        raise UserError(
            f"{path!r} is of format {found!r}, not {_FORMAT}; run `tfmlm prepare` again with this version"
        )
    try:
        splits = {
            name: [_make(Shard, _START_ALONE | shard) for shard in fields["splits"][name]] for name in SPLITS
        }
        bad_rows = [_make(BadRow, row) for row in fields["bad_rows"]]
        manifest = _make(Manifest, _NO_NEW_WORDS | fields | {"splits": splits, "bad_rows": bad_rows})
        names = [shard.name for shards in splits.values() for shard in shards]
        if not all(map(_SHARD_NAME.fullmatch, names)):
            raise ValueError("a shard's name is a path")
        if not all(splits.values()) or not all(shard.num_blocks > 0 for shard in chain(*splits.values())):
            raise ValueError("a split or a shard holds no blocks")
        if not all(map(_has_offsets, chain(*splits.values()))):
            raise ValueError("a shard's offsets are no places of blocks")
        if manifest.tokens_a_text and [*map(type, manifest.tokens_a_text)] != [float, float, int]:
            raise ValueError("tokens_a_text is no two means and a number")
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f"{path!r} is damaged ({error}); run `tfmlm prepare` again") from error
    return manifest


def _has_offsets(shard: Shard) -> bool:
    """Whether the offsets could be the shard's; only reading would tell more."""
    offsets = shard.offsets
    return (
        all(type(offset) is int for offset in offsets)
        and offsets[:1] == [0]
        and offsets == sorted({*offsets})
        and len(offsets) <= shard.num_blocks
    )


def _make(kind: type[_Record], values: dict[str, Any]) -> _Record:
    """Makes a record of values that JSON gave, each of the type that the record declares."""
    for name, hint in get_type_hints(kind).items():
        if name not in values and hasattr(kind, name):  # a default, of a later version
            continue
        if type(values[name]) is not (get_origin(hint) or hint):
            raise TypeError(f"{name} is {values[name]!r}")
    return kind(**values)


def _check_size(folder: str, shard: Shard) -> None:
    path = posixpath.join(folder, shard.name)
    try:
        num_bytes = tf.io.gfile.stat(path).length
    except tf.errors.OpError:
        raise UserError(f"shard {path!r} is missing; run `tfmlm prepare` again") from None
    if num_bytes != shard.num_bytes:
        raise UserError(
            f"shard {path!r} is corrupt: it has {num_bytes:,} bytes and the manifest says "
            f"{shard.num_bytes:,}; run `tfmlm prepare` again"
        )


def find_corrupt_shard(folder: str, shards: Iterable[Shard]) -> Shard | None:
    """The first shard whose contents are not those of the manifest; reads them whole."""
    for shard in shards:
        _check_size(folder, shard)
        if hash_file(posixpath.join(folder, shard.name)) != shard.sha256:
            return shard
    return None


def open_tokenizer(folder: str, manifest: Manifest) -> PreTrainedTokenizerFast:
    """Loads the tokenizer that made the shards.

    Raises:
        UserError: it is missing or another one.
    """
    source = posixpath.join(folder, _TOKENIZER_NAME)
    if is_url(source):
        with tempfile.TemporaryDirectory() as local:
            try:
                for name in tf.io.gfile.listdir(source):
                    if stays_inside(name):
                        tf.io.gfile.copy(posixpath.join(source, name), str(Path(local, name)))
            except tf.errors.OpError as error:
                raise UserError(f"{source!r} cannot be read; run `tfmlm prepare` again") from error
            tokenizer = load_tokenizer(local)
    elif Path(source).is_dir():
        tokenizer = load_tokenizer(source)  # a copy would follow links out of it
    else:
        raise UserError(f"{source!r} cannot be read; run `tfmlm prepare` again")
    if fingerprint_tokenizer(tokenizer) != manifest.tokenizer_fingerprint:
        raise UserError(
            f"{source!r} is not the tokenizer that made the shards beside it; run `tfmlm prepare` again"
        )
    return tokenizer


def fingerprint_tokenizer(tokenizer: PreTrainedTokenizerFast) -> str:
    """A hash of everything that decides the token ids."""
    settings = f"{tokenizer.pad_token_id} {tokenizer.backend_tokenizer.to_str()}"
    return hashlib.sha256(settings.encode()).hexdigest()


def number_tokenizer(tokenizer: PreTrainedTokenizerFast) -> int:
    """The beginning of that hash, as a number of 63 bits."""
    return int(fingerprint_tokenizer(tokenizer)[:16], 16) >> 1


def hash_file(path: str) -> str:
    """SHA-256 of a file, as `sha256sum` prints it."""
    digest = hashlib.sha256()
    with tf.io.gfile.GFile(path, "rb") as file:
        while part := file.read(_READ_BYTES):
            digest.update(part)
    return digest.hexdigest()
