"""Names of files that are URLs, and what of a URL may be shown: no password and no token."""

from __future__ import annotations

import re

HIDDEN = "…"
"""Stands where a secret was."""

_URL = re.compile(r"\w[\w+.-]*://[^\s'\"<>]+")
_WEB = re.compile(r"https?://")
_USER = re.compile(r"(?<=://)[^/\s]+(?=@)")
_VALUE = re.compile(r"(?<=[?&#])([\w.%~-]+=)([^?&#]*)")
_NAMELESS_VALUE = re.compile(r"(?<=[?&#])()([^=?&#/]+)(?=[&#]|$)")

_TELLING = re.compile("auth|cred|key|pass|pwd|secret|sig|token", re.IGNORECASE)

_SHORT = 8
"""Characters of a value that is no token, such as that of `download=1`."""


def is_url(name: str) -> bool:
    """Whether the name of a file is a URL, and no path of this machine."""
    return "://" in name


def has_password(name: str) -> bool:
    """Whether the name of a file is a URL with a password, or over HTTP with a user, who may be a token."""
    return any(_is_secret(user, name) for user in _USER.findall(name))


def hide_secrets(name: str) -> str:
    """The name of a file as it may be shown and written: without passwords and values that may be tokens."""
    if not is_url(name):
        return name
    shown = _USER.sub(lambda user: HIDDEN if _is_secret(user[0], name) else user[0], name)
    shown = _VALUE.sub(_hide_value, shown)
    # A `?` in the name of another file system stands for one letter.
    return _NAMELESS_VALUE.sub(_hide_value, shown) if _WEB.search(name) else shown


def lacks_secrets(name: str) -> bool:
    """Whether a URL is what `hide_secrets` left of another."""
    return re.search(f"(://|[=?&#]){HIDDEN}", name) is not None


def hide_secrets_in(text: str) -> str:
    """A text, such as a library's error, whose URLs show no secret."""
    return _URL.sub(lambda url: hide_secrets(url[0]), text)


def _is_secret(user: str, name: str) -> bool:
    return ":" in user or _WEB.search(name) is not None


def _hide_value(match: re.Match[str]) -> str:
    name, value = match.groups()
    return name + (HIDDEN if len(value) > _SHORT or _TELLING.search(name) else value)
