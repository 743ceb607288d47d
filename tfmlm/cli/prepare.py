"""The command `tfmlm prepare`: a configuration in, shards of tokenized text out."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from tfmlm.cli.shared import add_overrides, describe_new_words, show, start_libraries
from tfmlm.errors import UserError

if TYPE_CHECKING:  # importing it at run time would bring TensorFlow
    from tfmlm.data.shards import Manifest


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `prepare` to the other commands."""
    prepare = commands.add_parser(
        "prepare", help="write the tokenized text as TFRecord shards, which data.source may name"
    )
    prepare.add_argument("config", help="YAML file, such as configs/quickstart.yaml")
    add_overrides(prepare)
    prepare.add_argument("--output", metavar="FOLDER", help="local or gs:// (default shards/<run.name>)")
    prepare.add_argument(
        "--blocks-per-shard", type=int, default=32_768, metavar="N", help="blocks in a shard (default 32768)"
    )
    prepare.add_argument(
        "--runner",
        help="Apache Beam runner: direct, dataflow, flink or spark, with Beam's own flags as --flag=value",
    )
    prepare.set_defaults(command=_prepare, beam_flags=[])


def _prepare(options: argparse.Namespace) -> int:
    from tfmlm.config.load import load_config

    if options.blocks_per_shard < 1:
        raise UserError(f"--blocks-per-shard is {options.blocks_per_shard}; it must be 1 or more")
    if options.beam_flags and not options.runner:
        raise UserError(f"{' '.join(options.beam_flags)} is unknown; flags of Apache Beam need --runner")
    config = load_config(options.config, options.overrides)
    start_libraries()
    from tfmlm.data.shard_writing import prepare_shards

    folder = options.output or f"shards/{config.run.name}"
    manifest, notes = prepare_shards(
        config, folder, options.blocks_per_shard, options.runner, options.beam_flags
    )
    show(describe_shards(folder, manifest, notes))
    return 0


def describe_shards(folder: str, manifest: Manifest, notes: list[str]) -> str:
    """The summary that ends `tfmlm prepare`."""
    from tfmlm.data.files import describe_bad_row

    length = f"{'' if manifest.pack else 'at most '}{manifest.block_size}"
    lines = [
        f"{split:<12} {sum(shard.num_blocks for shard in shards):,} blocks of {length} tokens, "
        f"{sum(shard.num_tokens for shard in shards):,} tokens, {len(shards):,} shards"
        for split, shards in manifest.splits.items()
    ]
    if manifest.tokens_a_text:
        lines.append(f"words        {describe_new_words(*manifest.tokens_a_text)}")
    lines += [f"note         {note}" for note in [*map(describe_bad_row, manifest.bad_rows), *notes]]
    return "\n".join([*lines, "", f"next         tfmlm train CONFIG data.source={folder}"])
