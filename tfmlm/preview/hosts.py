"""Refuses requests that a browser sends on behalf of another site.

A site can let its own name point to this machine (DNS rebinding), and it can send a form to any address. The
browser tells the name in `Host` and the site in `Origin`.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from tfmlm.preview.options import ServeOptions
from tfmlm.preview.status import shorten

_HOST = re.compile(r"(?P<name>\[[0-9a-f:.%]+\]|[^:\[\]/@]+)(?::[0-9]*)?")


class HostGuard:
    """Answers only requests to names of this server, and from its own pages.

    Names are localhost, 127.0.0.1, [::1], the host that it listens on and those allowed. If other machines
    can reach it, so are the machine's own name and any address: a site that is shown under an address is
    the server itself.

    Args:
        app: what answers.
        options: settings of the server.
    """

    def __init__(self, app: ASGIApp, options: ServeOptions) -> None:
        self._app = app
        self._allowed = {name.lower().strip("[]") for name in options.allow_hosts}
        self._names = {"localhost", "127.0.0.1", "::1", options.host.lower()} | self._allowed
        self._takes_addresses = not _is_loopback(options.host)
        if self._takes_addresses:
            self._names.add(socket.gethostname().lower())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers, or lets the application answer."""
        reason = self._find_fault(Headers(scope=scope)) if scope["type"] == "http" else None
        if reason is None:
            await self._app(scope, receive, send)
        else:
            await JSONResponse({"error": shorten(reason)}, 403)(scope, receive, send)

    def _find_fault(self, headers: Headers) -> str | None:
        host = headers.get("host")  # HTTP/1.0, which browsers do not speak, does without
        if host is not None and not self._is_own(host.lower()):
            return f"the host {host!r} is not one of this server; --allow-host NAME allows it"
        origin = headers.get("origin")
        if origin is not None and not self._is_from_here(origin.lower(), (host or "").lower()):
            return f"requests from pages of {origin!r} are not taken; --allow-host NAME allows them"
        return None

    def _is_own(self, host: str) -> bool:
        match = _HOST.fullmatch(host)
        if match is None:
            return False
        name = match["name"].strip("[]")
        return name in self._names or (self._takes_addresses and _read_address(name) is not None)

    def _is_from_here(self, origin: str, host: str) -> bool:
        try:
            site = urlsplit(origin)
        except ValueError:
            return False
        return site.scheme in ("http", "https") and (site.netloc == host or site.hostname in self._allowed)


def _is_loopback(host: str) -> bool:
    address = _read_address(host)
    return host.lower() == "localhost" if address is None else address.is_loopback


def _read_address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None
