"""Everything that decides the bytes of shards, whether this process writes them or Apache Beam does."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from transformers import PreTrainedTokenizerFast

from tfmlm.config import Config
from tfmlm.config.load import hide_secrets_of
from tfmlm.data.files import BadRow
from tfmlm.data.new_words import TokensAText
from tfmlm.data.packing import NO_TOKENS, BlockFormat
from tfmlm.data.prepare import make_block_format
from tfmlm.data.shards import Manifest, Shard, fingerprint_tokenizer, write_manifest
from tfmlm.data.splitting import Texts, TextSplit, load_texts
from tfmlm.errors import UserError


@dataclass(frozen=True)
class ShardJob:
    """Everything that decides the bytes of the shards.

    Attributes:
        config: where the texts come from.
        folder: where the shards go, local or remote.
        blocks_per_shard: blocks in every shard but the last of a split.
        tokenizer: makes the tokens.
        split: tells training and held-out texts apart.
        tokens_a_text: what new words save, if there are any.
    """

    config: Config
    folder: str
    blocks_per_shard: int
    tokenizer: PreTrainedTokenizerFast
    split: TextSplit
    tokens_a_text: TokensAText | None = None

    @property
    def block_format(self) -> BlockFormat:
        """The form of the blocks."""
        return make_block_format(self.config, self.tokenizer)

    def open_texts(self) -> Texts:
        """The texts, without choosing anew which are held out."""
        return load_texts(self.config.data, self.config.run.seed, self.split)

    def name_shard(self, split: str, index: int) -> str:
        """File name of a shard."""
        return f"{split}-{index:05d}.tfrecord"

    def finish(self, splits: dict[str, list[Shard]], bad_rows: Iterable[BadRow]) -> Manifest:
        """Writes the manifest, if there is anything in both splits."""
        if not all(splits.values()):
            raise UserError(NO_TOKENS)
        manifest = Manifest(
            block_size=self.config.data.block_size,
            with_words=self.config.masking.whole_word,
            tokenizer_fingerprint=fingerprint_tokenizer(self.tokenizer),
            settings=describe_settings(self.config, self.blocks_per_shard),
            splits=splits,
            bad_rows=sorted(bad_rows),
            tokens_a_text=list(self.tokens_a_text or ()),
            pack=self.config.data.pack,
            long_texts=self.config.data.long_texts,
            stride=self.config.data.stride,
            with_texts=self.config.data.attend_within_texts,
        )
        write_manifest(self.folder, manifest)
        return manifest


def describe_settings(config: Config, blocks_per_shard: int) -> dict[str, Any]:
    """The keys that decide the blocks, as they stand in the manifest."""
    # These change how the source is read, not what comes of it; but a stream's `max_rows` are its first.
    omitted = {"num_proc"} if config.data.max_rows else {"num_proc", "streaming"}
    data = {
        name: value for name, value in asdict(hide_secrets_of(config).data).items() if name not in omitted
    }
    settings = {
        "seed": config.run.seed,
        "data": data,
        "tokenizer": asdict(config.tokenizer),
        "model": config.model.name_or_path,
        "model_type": config.model.config.get("model_type"),
        "whole_word": config.masking.whole_word,
        "blocks_per_shard": blocks_per_shard,
    }
    return dict(json.loads(json.dumps(settings)))
