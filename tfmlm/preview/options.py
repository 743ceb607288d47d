"""Options of `tfmlm serve`, with their defaults."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from tfmlm.errors import UserError

_HOST_NAME = re.compile(r"[\w.-]+|\[?[0-9a-fA-F:.]*:[0-9a-fA-F:.]*:[0-9a-fA-F:.]*\]?")


@dataclass(frozen=True)
class ServeOptions:
    """Settings of the preview server.

    Attributes:
        host: address to listen on.
        port: port of REST and the page; 0 takes a free one.
        grpc_port: port of gRPC; 0 takes a free one.
        name: name of the model in requests.
        max_batch: texts of several requests that are run together at most.
        max_texts: texts in one request at most.
        max_body_bytes: size of a request at most.
        max_waiting: requests that wait to be run at most; more are refused.
        max_waiting_bytes: bytes at most of all requests together that come in or wait.
        max_seconds: how long a REST request may take from its arrival to its answer. By gRPC the client says.
        max_answer_values: numbers and strings in one answer at most. 2^23 float32 are 32 MiB, and about
            1 GiB while they become JSON.
        keep_versions: newest versions that are served at the same time.
        labels: version number that each label stands for.
        allow_hosts: further names that requests may give for the server, and from whose pages they may come.
        poll_seconds: how often the folder is looked at.
        grace_seconds: how long requests may take to finish when the server is told to stop.
    """

    host: str = "127.0.0.1"
    port: int = 8501
    grpc_port: int = 8500
    name: str = "model"
    max_batch: int = 32
    max_texts: int = 256
    max_body_bytes: int = 4 * 2**20
    max_waiting: int = 256
    max_waiting_bytes: int = 256 * 2**20
    max_seconds: int = 30
    max_answer_values: int = 2**23
    keep_versions: int = 2
    labels: Mapping[str, int] = field(default_factory=dict)
    allow_hosts: tuple[str, ...] = ()
    poll_seconds: float = 1.0
    grace_seconds: float = 10.0

    def __post_init__(self) -> None:
        for port in ("port", "grpc_port"):
            if not 0 <= getattr(self, port) <= 65535:
                raise UserError(f"{_flag(port)} is {getattr(self, port)}; it must be 0 to 65535")
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name.startswith(("max_", "keep_")) and value < 1:
                raise UserError(f"{_flag(item.name)} is {value}; it must be 1 or more")
        if not self.name or set(self.name) & set("/:"):
            raise UserError(f"--name is {self.name!r}; it must be a name without / and :")
        for name in self.allow_hosts:
            if not _HOST_NAME.fullmatch(name):
                raise UserError(
                    f"--allow-host is {name!r}; it must be like models.example.com, without scheme and port"
                )


def _flag(field_name: str) -> str:
    return "--" + field_name.replace("_", "-")


def parse_labels(pairs: list[str]) -> dict[str, int]:
    """Reads `stable=1` and the like.

    Raises:
        UserError: one of them is not `label=number`.
    """
    labels = {}
    for pair in pairs:
        label, _, number = pair.partition("=")
        if not label or set(label) & set("/:") or not (number.isascii() and number.isdigit()):
            raise UserError(f"--label is {pair!r}; it must be like stable=1")
        labels[label] = int(number)
    return labels
