"""The `tfmlm` command: parses arguments, calls one function, prints; nothing heavy is imported before."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from tfmlm import __version__
from tfmlm.errors import UserError
from tfmlm.outcome import add_debug, run_command
from tfmlm.query import add_query
from tfmlm.serving.serve_options import ServeOptions, parse_labels


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
        The exit code: 0, 1 if `doctor` found something wrong, or one of `run_command`.
    """
    return run_command(_parse(arguments))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parses; overrides may also follow options, and `prepare` keeps the flags that it does not know."""
    parser = make_parser()
    options, rest = parser.parse_known_args(arguments)
    flags = [argument for argument in rest if argument.startswith("-") or not hasattr(options, "overrides")]
    if flags and not hasattr(options, "beam_flags"):
        parser.error(f"unrecognized arguments: {' '.join(flags)}")
    if hasattr(options, "overrides"):
        options.overrides += [argument for argument in rest if argument not in flags]
    options.beam_flags = flags
    return options


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="tfmlm",
        description="Masked language models with TensorFlow, from text to TensorFlow Serving.",
        epilog="Overrides such as data.block_size=64 win over the file. `tfmlm config` lists every key.",
    )
    parser.add_argument("--version", action="version", version=f"tfmlm {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    train = commands.add_parser("train", help="train, evaluate and export as a configuration says")
    train.add_argument("config", help="YAML file, such as configs/quickstart.yaml")
    _add_overrides(train)
    train.set_defaults(command=_train)

    _add_prepare(commands)

    evaluate = commands.add_parser("evaluate", help="perplexity of a trained model on its held-out text")
    evaluate.add_argument("model", type=Path, help="run or model folder")
    _add_overrides(evaluate)
    evaluate.add_argument("--json", action="store_true", help="print one JSON line")
    evaluate.set_defaults(command=_evaluate)

    predict = commands.add_parser("predict", help="fill the masks in texts")
    predict.add_argument("model", help="run, model folder, Hub id or SavedModel")
    predict.add_argument("texts", nargs="+", metavar="TEXT", help="text with the model's mask token")
    predict.add_argument("--top-k", type=int, default=5, help="candidates for each mask (default 5)")
    predict.add_argument("--json", action="store_true", help="print one JSON line a text")
    predict.set_defaults(command=_predict)

    add_query(commands)

    export = commands.add_parser("export", help="write a SavedModel of a run or a model folder")
    export.add_argument("model", type=Path, help="run or model folder")
    _add_overrides(export)
    export.set_defaults(command=_export)

    _add_serve(commands)

    push = commands.add_parser("push", help="upload the model of a run to the Hugging Face Hub")
    push.add_argument("model", type=Path, help="run or model folder")
    _add_overrides(push)
    push.set_defaults(command=_push)

    _add_config(commands)

    doctor = commands.add_parser("doctor", help="check the installation and say how to mend it")
    doctor.set_defaults(command=_doctor)
    add_debug(parser, commands)
    return parser


def _add_config(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    config = commands.add_parser("config", help="list every key, or show what a file comes to")
    config.add_argument("config", nargs="?", help="YAML file; without it, every key with its default")
    _add_overrides(config)
    config.set_defaults(command=_config)


def _add_prepare(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    prepare = commands.add_parser(
        "prepare", help="write the tokenized text as TFRecord shards, which data.source may name"
    )
    prepare.add_argument("config", help="YAML file, such as configs/quickstart.yaml")
    _add_overrides(prepare)
    prepare.add_argument("--output", metavar="FOLDER", help="local or gs:// (default shards/<run.name>)")
    prepare.add_argument(
        "--blocks-per-shard", type=int, default=32_768, metavar="N", help="blocks in a shard (default 32768)"
    )
    prepare.add_argument(
        "--runner",
        help="Apache Beam runner: direct, dataflow, flink or spark, with Beam's own flags as --flag=value",
    )
    prepare.set_defaults(command=_prepare, beam_flags=[])


def _add_serve(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    serve = commands.add_parser("serve", help="preview an export as TensorFlow Serving would serve it")
    serve.add_argument("folder", type=Path, help="folder of an export, such as saved_models/quickstart")
    defaults = ServeOptions()
    serve.add_argument("--name", help="name of the model in requests (default: the folder's name)")
    serve.add_argument(
        "--host", default=defaults.host, help=f"address to listen on (default {defaults.host})"
    )
    numbers = {
        "port": "port of REST and the page, 0 for a free one",
        "grpc_port": "port of gRPC, 0 for a free one",
        "keep_versions": "newest versions that are served side by side",
        "max_batch": "texts of several requests that are run together",
        "max_texts": "texts in one request",
        "max_body_bytes": "size of one request",
        "max_waiting": "requests that wait before more are refused",
    }
    for name, meaning in numbers.items():
        default = getattr(defaults, name)
        flag = "--" + name.replace("_", "-")
        serve.add_argument(
            flag, type=int, default=default, metavar="N", help=f"{meaning} (default {default})"
        )
    serve.add_argument(
        "--label",
        action="append",
        default=[],
        metavar="LABEL=N",
        help="a label for a version; may be repeated",
    )
    serve.set_defaults(command=_serve, numbers=tuple(numbers))


def _add_overrides(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="settings that win")


def _train(options: argparse.Namespace) -> int:
    from tfmlm.config_loading import load_config

    config = load_config(options.config, options.overrides)
    _start_libraries()
    from tfmlm.report import describe_run
    from tfmlm.run import run

    finished = run(config)
    if finished:
        print(describe_run(finished), flush=True)
    if finished and finished.unpushed:
        raise UserError(finished.unpushed)
    return 0


def _prepare(options: argparse.Namespace) -> int:
    from tfmlm.config_loading import load_config

    if options.blocks_per_shard < 1:
        raise UserError(f"--blocks-per-shard is {options.blocks_per_shard}; it must be 1 or more")
    if options.beam_flags and not options.runner:
        raise UserError(f"{' '.join(options.beam_flags)} is unknown; flags of Apache Beam need --runner")
    config = load_config(options.config, options.overrides)
    _start_libraries()
    from tfmlm.data.shard_writing import prepare_shards
    from tfmlm.report import describe_shards

    folder = options.output or f"shards/{config.run.name}"
    manifest = prepare_shards(config, folder, options.blocks_per_shard, options.runner, options.beam_flags)
    print(describe_shards(folder, manifest))
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    _start_libraries()
    from tfmlm.run import evaluate_folder

    evaluation = evaluate_folder(options.model, options.overrides)
    measured = {"perplexity": evaluation.perplexity, "eval_loss": evaluation.loss}
    if options.json:
        print(json.dumps(measured))
    else:
        print(f"perplexity {measured['perplexity']:.6g}, loss {measured['eval_loss']:.6g}")
    return 0


def _predict(options: argparse.Namespace) -> int:
    if options.top_k < 1:
        raise UserError(f"--top-k is {options.top_k}; it must be 1 or more")
    _start_libraries()
    from tfmlm.export.predict import load_predictor
    from tfmlm.report import describe_masks

    filled = load_predictor(options.model, options.top_k)(options.texts)
    for text, masks in zip(options.texts, filled, strict=True):
        print(json.dumps(masks) if options.json else "\n".join(describe_masks(text, masks)))
    return 0


def _export(options: argparse.Namespace) -> int:
    _start_libraries()
    from tfmlm.run import export_run
    from tfmlm.run_folder import load_trained

    export = export_run(*load_trained(options.model, options.overrides))
    print("\n".join([str(export.path), *(f"note: {note}" for note in export.notes)]))
    return 0


def _serve(options: argparse.Namespace) -> int:
    from tfmlm.report import describe_server

    settings = ServeOptions(
        host=options.host,
        name=options.name or options.folder.resolve().name,
        labels=parse_labels(options.label),
        **{name: getattr(options, name) for name in options.numbers},
    )
    if (options.folder / "saved_model.pb").exists():
        raise UserError(f"{str(options.folder)!r} is one version; give the folder above it")
    if not options.folder.is_dir():
        raise UserError(f"{str(options.folder)!r} is no folder; give one that `tfmlm export` wrote")
    from tfmlm.quiet import quieten_tensorflow, show_progress_lines

    quieten_tensorflow()
    show_progress_lines()
    from tfmlm.serving.server import serve

    return serve(options.folder, settings, lambda running: print(describe_server(running), flush=True))


def _push(options: argparse.Namespace) -> int:
    from tfmlm.hub.push import push_model
    from tfmlm.quiet import quieten_hub, show_progress_lines
    from tfmlm.run_folder import load_trained

    quieten_hub()
    show_progress_lines()
    config, model_dir = load_trained(options.model, options.overrides)
    command = shlex.join(["tfmlm", "push", str(options.model), *options.overrides])
    print(push_model(model_dir, config.hub, command))
    return 0


def _config(options: argparse.Namespace) -> int:
    from tfmlm.config_loading import dump_config, load_config
    from tfmlm.report import describe_keys

    if options.config is None:
        print(describe_keys())
    else:
        print(dump_config(load_config(options.config, options.overrides)), end="")
    return 0


def _doctor(options: argparse.Namespace) -> int:
    del options
    from tfmlm.doctor import examine

    findings = examine()
    for finding in findings:
        print(finding)
    return 1 if any(finding.is_wrong for finding in findings) else 0


def _start_libraries() -> None:
    """Loads TensorFlow and the rest, which takes seconds: call it after the arguments have been checked."""
    from tfmlm.quiet import quieten_libraries, show_progress_lines

    quieten_libraries()
    show_progress_lines()
