"""The commands `tfmlm train` and `tfmlm prepare`: a configuration in, a run or shards out."""

from __future__ import annotations

import argparse

from tfmlm.cli.shared import add_overrides, start_libraries
from tfmlm.errors import UserError


def add_train(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `train` to the other commands."""
    train = commands.add_parser("train", help="train, evaluate and export as a configuration says")
    train.add_argument("config", help="YAML file, such as configs/quickstart.yaml")
    add_overrides(train)
    train.set_defaults(command=_train, goes_on=True)


def add_prepare(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
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


def _train(options: argparse.Namespace) -> int:
    from tfmlm.config.load import load_config

    config = load_config(options.config, options.overrides)
    start_libraries()
    from tfmlm.report import describe_run
    from tfmlm.run import run

    finished = run(config)
    if finished:
        print(describe_run(finished), flush=True)
    if finished and finished.unpushed:
        raise UserError(finished.unpushed)
    return 0


def _prepare(options: argparse.Namespace) -> int:
    from tfmlm.config.load import load_config

    if options.blocks_per_shard < 1:
        raise UserError(f"--blocks-per-shard is {options.blocks_per_shard}; it must be 1 or more")
    if options.beam_flags and not options.runner:
        raise UserError(f"{' '.join(options.beam_flags)} is unknown; flags of Apache Beam need --runner")
    config = load_config(options.config, options.overrides)
    start_libraries()
    from tfmlm.data.shard_writing import prepare_shards
    from tfmlm.report import describe_shards

    folder = options.output or f"shards/{config.run.name}"
    manifest = prepare_shards(config, folder, options.blocks_per_shard, options.runner, options.beam_flags)
    print(describe_shards(folder, manifest))
    return 0
