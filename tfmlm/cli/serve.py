"""The command `tfmlm serve`: a preview server for an export."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from tfmlm.cli.shared import show
from tfmlm.errors import UserError
from tfmlm.preview.options import ServeOptions, parse_labels
from tfmlm.urls import is_url

if TYPE_CHECKING:  # importing it at run time would bring TensorFlow
    from tfmlm.preview.server import Running


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `serve` to the other commands."""
    serve = commands.add_parser("serve", help="preview an export as TensorFlow Serving would serve it")
    serve.add_argument("folder", help="folder of an export, such as saved_models/quickstart")
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
        "max_waiting_bytes": "bytes of all requests that come in or wait before more are refused",
        "max_seconds": "seconds for the answer to a REST request",
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
    serve.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a further name that requests may give for the server, and whose pages may ask it; "
        "may be repeated",
    )
    serve.set_defaults(command=_serve, numbers=tuple(numbers))


def _serve(options: argparse.Namespace) -> int:
    if is_url(options.folder):
        raise UserError(
            f"{options.folder!r} is not on this machine; copy it here, or let TensorFlow Serving read it"
        )
    folder = Path(options.folder)
    settings = ServeOptions(
        host=options.host,
        name=options.name or folder.resolve().name,
        labels=parse_labels(options.label),
        allow_hosts=tuple(options.allow_host),
        **{name: getattr(options, name) for name in options.numbers},
    )
    if (folder / "saved_model.pb").exists():
        raise UserError(f"{str(folder)!r} is one version; give the folder above it")
    if not folder.is_dir():
        raise UserError(f"{str(folder)!r} is no folder; give one that `tfmlm export` wrote")
    from tfmlm.library_logging import quieten_tensorflow, show_progress_lines

    quieten_tensorflow()
    show_progress_lines()
    from tfmlm.preview.server import serve

    return serve(folder, settings, lambda running: show(describe_server(running)))


def describe_server(running: Running) -> str:
    """The banner of the preview server, with a warning if other machines can reach it."""
    newest, *others = running.versions
    also = f" (also {', '.join(map(str, others))})" if others else ""
    lines = [f"{running.name} version {newest}{also}"]
    if not running.is_local:
        lines.append(
            "  warning: other machines can reach it by any of its addresses (by name: --allow-host NAME), "
            "and it asks for no password"
        )
    lines += [
        f"  REST  {running.rest_url}/v1/models/{running.name}",
        f"  gRPC  {running.grpc_address}",
        f"  page  {running.rest_url}/",
        "This is a preview: production is TensorFlow Serving. Ctrl-C stops it.",
    ]
    return "\n".join(lines)
