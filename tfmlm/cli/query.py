"""The command `tfmlm query`: asks a server to fill masks."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tfmlm.cli.shared import describe_masks, note, show
from tfmlm.client.options import ClientOptions
from tfmlm.errors import escape_controls
from tfmlm.inference.texts import read_stdin, take_batches

if TYPE_CHECKING:  # the client's libraries wait until the command is run
    from tfmlm.client.client import FilledText, FillMaskClient


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command to the others."""
    query = commands.add_parser(
        "query",
        help="fill the masks in texts with a model on a server",
        epilog="The environment variable TFMLM_SERVING_TOKEN, if set, is sent as `Authorization: Bearer …`.",
    )
    query.add_argument(
        "url",
        help="http(s)://HOST:PORT/v1/models/NAME or grpc(s)://HOST:PORT/NAME, "
        "either with /versions/NUMBER or /labels/LABEL after it",
    )
    query.add_argument("texts", nargs="+", metavar="TEXT", help="text with the mask token; - reads lines")
    query.add_argument("--json", action="store_true", help="print one JSON line a text")
    query.add_argument(
        "--top-k",
        type=int,
        metavar="K",
        help="candidates for each mask (default: those of the export, or all the targets)",
    )
    query.add_argument(
        "--targets", metavar="WORD,WORD", help="score these words only; each must be one token"
    )
    query.add_argument(
        "--tokenizer",
        type=Path,
        metavar="FOLDER",
        help="tokenize here, for an export without a text signature",
    )
    default = ClientOptions()
    query.add_argument(
        "--timeout",
        type=float,
        default=default.timeout_seconds,
        metavar="SECONDS",
        help=f"longest time for a request, retries included (default {default.timeout_seconds:g})",
    )
    query.add_argument(
        "--max-attempts",
        type=int,
        default=default.max_attempts,
        metavar="N",
        help=f"times that a request is sent, 1 to 5 (default {default.max_attempts})",
    )
    query.add_argument(
        "--texts-per-request",
        type=int,
        default=default.texts_per_request,
        metavar="N",
        help=f"most texts in a request (default {default.texts_per_request})",
    )
    query.add_argument(
        "--mask-token", metavar="TOKEN", help="how the texts write a mask, if not [MASK] or <mask>"
    )
    query.add_argument("--ca-file", type=Path, metavar="FILE", help="PEM file of the certificates to trust")
    query.set_defaults(command=_query)


def _query(options: argparse.Namespace) -> int:
    targets = None if options.targets is None else options.targets.split(",")
    client_options = ClientOptions(
        timeout_seconds=options.timeout,
        max_attempts=options.max_attempts,
        texts_per_request=options.texts_per_request,
        mask_token=options.mask_token,
        ca_file=options.ca_file,
    )
    from tfmlm.client.client import FillMaskClient

    with FillMaskClient(options.url, client_options) as client:
        fill = partial(_choose_fill(client, options.tokenizer), top_k=options.top_k, targets=targets)
        # A request at a time: its words are printed before the next one, and any number of lines may come.
        for batch in take_batches(_read_texts(options.texts), options.texts_per_request):
            for filled in fill(batch):
                _print(filled, as_json=options.json)
    return 0


def _choose_fill(client: FillMaskClient, tokenizer_dir: Path | None) -> Callable[..., list[FilledText]]:
    if tokenizer_dir is None:
        return client.fill
    from tfmlm.client.local_tokenizer import fill_by_ids, load_local_tokenizer

    return partial(fill_by_ids, client, load_local_tokenizer(tokenizer_dir))


def _read_texts(arguments: Iterable[str]) -> Iterator[str]:
    """The texts; `-` stands for the lines of the standard input, without empty ones."""
    for argument in arguments:
        if argument == "-":
            yield from (line.text for line in read_stdin() if line.text.strip())
        else:
            yield argument


def _print(filled: FilledText, *, as_json: bool) -> None:
    remark = filled.note or ("" if filled.masks else "the text has no mask")
    if as_json:
        show(json.dumps(filled.masks))
        if remark:
            note(f"{filled.text!r}: {remark}")
    else:
        remarks = [f"  note: {escape_controls(remark, keep='')}"] if remark else []
        show("\n".join([*describe_masks(filled.text, filled.masks), *remarks]))
