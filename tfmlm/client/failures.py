"""Failures between client and server, each as one line that says what to do."""

from __future__ import annotations

import re

from tfmlm.client.address import Address
from tfmlm.client.options import TOKEN_VARIABLE
from tfmlm.errors import UserError

_MISFIT = (
    "the request does not fit the export; one without a text signature is asked with token ids "
    "(--tokenizer FOLDER, or fill_ids)"
)
_UNKNOWN_LABEL = "check the label in the URL, and that the server gives it to a version (--label LABEL=N)"
_NO_OPTIONS = (
    "the export takes no --top-k and --targets: export it again with this version of tfmlm; one without a "
    "text signature is asked with --tokenizer FOLDER"
)
_OF_REQUESTS = {
    "top_k must be": "ask for fewer candidates (--top-k), or export with a larger export.max_top_k",
    "a target must be": "write the word as the vocabulary has it, or choose another (--targets)",
}
"""By a part of what the export says."""
UNKNOWN = "check the model's name and version in the URL"
FORBIDDEN = f"check the token in the environment variable {TOKEN_VARIABLE}"
BUSY = "the server is busy or not ready; try again later"
SLOW = "send fewer texts in a request (--texts-per-request), or allow the server more (--max-seconds)"
TOO_LARGE = "send fewer texts in a request (--texts-per-request)"
OTHER = "look into the server's log"

_MOST_CHARACTERS = 300


def advise_misfit(message: str) -> str:
    """What to do about a request that the server calls wrong.

    Args:
        message: what the server said; TensorFlow Serving has one code for all that may be wrong.
    """
    if "version label" in message:
        return _UNKNOWN_LABEL
    if "_options" in message and "signature" in message:
        return _NO_OPTIONS
    return next((advice for part, advice in _OF_REQUESTS.items() if part in message), _MISFIT)


def late(address: Address, timeout_seconds: float) -> UserError:
    """The deadline has passed."""
    return UserError(
        f"{address} did not answer within {timeout_seconds:g} s; allow more (--timeout) or send fewer texts"
    )


def out_of_reach(address: Address, reason: str, token: str | None) -> UserError:
    """No connection, or one that was cut, and no attempt is left."""
    reason = re.sub(r"^HTTPS?Connection(Pool)?\(.*?\): ", "", reason)  # urllib3 repeats the address
    trust = " with a certificate that is trusted (--ca-file)" if address.is_encrypted else ""
    return UserError(
        f"cannot reach {address} ({tidy(reason, token)}); "
        f"check the address, and that a server runs there{trust}"
    )


_NO_TLS = "WRONG_VERSION_NUMBER"
"""OpenSSL's word for an answer that is not TLS."""


def other_protocol(address: Address, reason: str) -> UserError | None:
    """The server speaks another protocol than the URL says; None if the reason does not tell so."""
    if address.is_encrypted and _NO_TLS in reason:
        return UserError(f"{address} does not speak TLS; write {address.scheme.removesuffix('s')}://")
    if address.is_rest and "BadStatusLine(" in reason:
        return UserError(f"{address} does not speak HTTP; the port of gRPC is written grpc://HOST:PORT/NAME")
    if not address.is_rest and "Failed parsing HTTP/2" in reason:
        return UserError(
            f"{address} does not speak gRPC; the port of REST is written http://HOST:PORT/v1/models/NAME"
        )
    return None


def untrusted(address: Address, reason: str, token: str | None) -> UserError:
    """The server's certificate is not one to trust."""
    return UserError(
        f"the TLS connection to {address} failed ({tidy(reason, token)}); "
        "give the certificate that signed the server's (--ca-file)"
    )


def refused(address: Address, status: str, message: str, advice: str, token: str | None) -> UserError:
    """The server answered, and not with words for masks.

    Args:
        address: the model.
        status: code in the words of the protocol.
        message: what the server said.
        advice: what to do.
        token: the secret, which a server may have sent back and which must not be shown.
    """
    said = tidy(message, token).rstrip(".;")
    return UserError(f"{address} answered {status}{f': {said}' if said else ''}; {advice}")


def tidy(message: str, token: str | None) -> str:
    """One line of bounded length without the secret."""
    if token:
        message = message.replace(token, "***")
    line = " ".join(message.split())
    return line if len(line) <= _MOST_CHARACTERS else line[:_MOST_CHARACTERS] + "…"
