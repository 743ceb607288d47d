"""Options of a client, with their defaults."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tfmlm.errors import UserError

TOKEN_VARIABLE = "TFMLM_SERVING_TOKEN"  # noqa: S105 - the name of the variable, not a token
"""Environment variable whose value is sent as `Authorization: Bearer …`."""


@dataclass(frozen=True)
class ClientOptions:
    """How a server is asked.

    Attributes:
        timeout_seconds: longest time of one call, all its requests, retries and waits together.
        max_attempts: times that one request is sent, 1 to 5; only what may pass by itself is sent again: a
            connection that fails, and a server that says it is busy or not ready.
        backoff_seconds: wait before the second attempt; it doubles with each one, with some chance in it.
        max_backoff_seconds: longest such wait. A server's own `Retry-After` goes before both.
        texts_per_request: most texts in a request.
        signature_name: signature for texts.
        ids_signature_name: signature for token ids.
        text_options_signature_name: signature for texts with `top_k` and targets.
        ids_options_signature_name: signature for token ids with `top_k` and targets.
        mask_token: how texts write a mask; None tries `[MASK]` and `<mask>`.
        ca_file: PEM file of the certificates to trust; None trusts what the machine trusts.
    """

    timeout_seconds: float = 30.0
    max_attempts: int = 4
    backoff_seconds: float = 0.1
    max_backoff_seconds: float = 5.0
    texts_per_request: int = 32
    signature_name: str = "serving_default"
    ids_signature_name: str = "ids"
    text_options_signature_name: str = "text_options"
    ids_options_signature_name: str = "ids_options"
    mask_token: str | None = None
    ca_file: Path | None = None

    def __post_init__(self) -> None:
        """Refuses values out of range.

        Raises:
            UserError: naming the field.
        """
        for name in ("timeout_seconds", "backoff_seconds", "max_backoff_seconds"):
            if not 0 < getattr(self, name) < float("inf"):
                raise UserError(f"{name} is {getattr(self, name)}; it must be above 0")
        if not 1 <= self.max_attempts <= 5:  # gRPC makes no more than five
            raise UserError(f"max_attempts is {self.max_attempts}; it must be 1 to 5")
        if self.texts_per_request < 1:
            raise UserError(f"texts_per_request is {self.texts_per_request}; it must be 1 or more")
        if self.mask_token == "":
            raise UserError("mask_token is empty; give the token, such as [MASK]")

    def read_ca_file(self) -> str | None:
        """The certificates of `ca_file`, as PEM text.

        Raises:
            UserError: it cannot be read or holds no certificate.
        """
        if self.ca_file is None:
            return None
        try:
            text = self.ca_file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"ca_file {str(self.ca_file)!r} cannot be read: {error}; give a PEM file"
            ) from error
        if "-----BEGIN CERTIFICATE-----" not in text:
            raise UserError(f"ca_file {str(self.ca_file)!r} holds no certificate; give a PEM file")
        return text
