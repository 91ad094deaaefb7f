"""uvicorn's HTTP, less patient: whoever connects and does not say what they want is let go."""

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

SILENCE_S: Final = 5.0
HEADERS_S: Final = 1.5


class Protocol(HttpToolsProtocol):
    """Closes a connection on which no request begins in `SILENCE_S`, or one that has not its headers `HEADERS_S` later.

    Between requests uvicorn's own keep-alive applies. Browsers open connections before they know what for: hence the
    two values.
    """

    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._wait(SILENCE_S)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._stop_waiting()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Wait for the headers of a request that has begun."""
        super().on_message_begin()
        self._stop_waiting()
        self._wait(HEADERS_S)

    def on_headers_complete(self) -> None:
        """Wait no more: how long the body may take is for its reader to say."""
        self._stop_waiting()
        super().on_headers_complete()

    def _wait(self, seconds: float) -> None:
        self._waiting = self.loop.call_later(seconds, self._let_go)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _let_go(self) -> None:
        self._waiting = None
        transport: Any = self.transport
        if not transport.is_closing():
            transport.close()
