"""Where a served model is: the URL forms of REST and gRPC."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import SplitResult, quote, unquote, urlsplit

from tfmlm.errors import UserError

_FORM = (
    "http(s)://HOST:PORT/v1/models/NAME or grpc(s)://HOST:PORT/NAME, "
    "either with /versions/NUMBER or /labels/LABEL after it"
)
_MODEL = r"(?P<name>[^/:]+)(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?/?"
_REST_PATH = re.compile(rf"(?P<prefix>.*)/v1/models/{_MODEL}(?::predict)?")
_GRPC_PATH = re.compile(rf"(?P<prefix>)/{_MODEL}")


@dataclass(frozen=True)
class Address:
    """A served model.

    Attributes:
        scheme: `http`, `https`, `grpc` or `grpcs`.
        host: name or number, an IPv6 one without its brackets.
        port: None is the port that the scheme stands for.
        prefix: path before `/v1/models`, where a proxy puts the server; mostly empty.
        model: the model's name.
        version: its version; None with `label` None is the newest.
        label: a version by its label.
    """

    scheme: str
    host: str
    port: int | None
    prefix: str
    model: str
    version: int | None
    label: str | None

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.rest_path if self.is_rest else f'/{self._model_path}'}"

    @property
    def is_rest(self) -> bool:
        """True for REST, false for gRPC."""
        return self.scheme in ("http", "https")

    @property
    def is_encrypted(self) -> bool:
        """True if TLS is spoken."""
        return self.scheme.endswith("s")

    @property
    def authority(self) -> str:
        """`host:port`, as URLs and gRPC write it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"

    @property
    def rest_path(self) -> str:
        """Path of the model in the REST interface."""
        return f"{self.prefix}/v1/models/{self._model_path}"

    @property
    def _model_path(self) -> str:
        if self.version is not None:
            return f"{quote(self.model)}/versions/{self.version}"
        return quote(self.model) + (f"/labels/{quote(self.label)}" if self.label else "")


def parse_address(url: str) -> Address:
    """Reads a URL.

    Raises:
        UserError: it has another form, no model, or a password in it.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UserError(f"the URL of the server is not valid ({error}); write {_FORM}") from None
    if "@" in parts.netloc:
        raise UserError(
            "the URL of the server has a user or password in it; leave it out, "
            "and put a token into the environment variable TFMLM_SERVING_TOKEN"
        )
    match = _match_path(parts)
    if match is None or not parts.hostname or (parts.scheme.startswith("grpc") and port is None):
        raise UserError(f"{url!r} does not name a served model; write {_FORM}")
    return Address(
        scheme=parts.scheme,
        host=parts.hostname,
        port=port,
        prefix=match["prefix"],
        model=unquote(match["name"]),
        version=None if match["version"] is None else int(match["version"]),
        label=match["label"] and unquote(match["label"]),
    )


def _match_path(parts: SplitResult) -> re.Match[str] | None:
    if parts.query or parts.fragment:
        return None
    if parts.scheme in ("http", "https"):
        return _REST_PATH.fullmatch(parts.path)
    return _GRPC_PATH.fullmatch(parts.path) if parts.scheme in ("grpc", "grpcs") else None
