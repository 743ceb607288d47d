"""HTTP connections that are closed when nothing moves on them."""

from __future__ import annotations

import asyncio
from typing import cast

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

STILL_SECONDS = 10.0
"""How long a request's head may take to come."""

UNREAD_SECONDS = 60.0
"""How long nothing of an answer may leave the buffer; of a slow client's, it leaves a megabyte at a time."""


class TimedConnection(H11Protocol):
    """HTTP/1.1 that waits neither for a head for ever nor for an answer to be read.

    uvicorn itself has a limit from the end of an answer to the next byte: not for the first request, not for
    a head that comes byte by byte, and not for an answer that is left in the buffer.
    """

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        super().connection_made(cast("asyncio.Transport", transport))
        self._watch()

    def on_response_complete(self) -> None:
        """An answer is in the buffer."""
        self._watch()  # first, for uvicorn may go on with a request that is there already
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed."""
        self._stop_watching()
        super().connection_lost(exc)

    def _watch(self) -> None:
        self._stop_watching()
        num_unread = self.transport.get_write_buffer_size()
        seconds = UNREAD_SECONDS if num_unread else STILL_SECONDS
        self._timer = self.loop.call_later(seconds, self._look, self.cycle, num_unread)

    def _stop_watching(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _look(self, last: RequestResponseCycle | None, num_unread: int) -> None:
        """Closes the connection, unless a head has come or a part of the answer was read meanwhile."""
        still_unread = self.transport.get_write_buffer_size()
        if still_unread and still_unread == num_unread:
            self.transport.abort()
        elif still_unread:
            self._watch()
        elif self.cycle is last:
            self.timeout_keep_alive_handler()
