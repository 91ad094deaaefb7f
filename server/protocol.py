"""uvicorn's protocols, less patient: whoever says nothing, or nothing but noise, is let go."""

import asyncio
import struct
from collections.abc import Callable
from typing import Any, Final

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame

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


_PUT: Final = "agenthub.put"
_TEXT: Final = 0x81
_SHORT: Final = 125
_MEDIUM: Final = 65_535

NOISE_PER_S: Final = 100
MOST_FRAGMENTS: Final = 5000


class SocketProtocol(WebSocketsSansIOProtocol):
    """Reads a socket once in each turn of the loop, and not while its peer does not read either.

    What never becomes a message, pings and pongs and the fragments of one that does not end, is not taken without
    limit: a socket that sends more of it in a second than `NOISE_PER_S` is closed.
    """

    _second = 0.0
    _noise = 0

    async def run_asgi(self) -> None:
        """Let the application find `put`."""
        self.scope["state"][_PUT] = self.put
        await super().run_asgi()

    def put(self, text: bytes) -> bool:
        """Send a text message where that needs no waiting; says whether it did.

        Frames of a server are the bare bytes behind their length (RFC 6455, 5.2): one that goes to thousands of
        sockets is not put together anew for each by uvicorn and websockets.
        """
        if not self.handshake_complete or self.close_sent or not self.writable.is_set() or self.transport.is_closing():
            return False
        size = len(text)
        if size <= _SHORT:
            head = struct.pack("!BB", _TEXT, size)
        elif size <= _MEDIUM:
            head = struct.pack("!BBH", _TEXT, 126, size)
        else:
            head = struct.pack("!BBQ", _TEXT, 127, size)
        self.transport.write(head + text)
        return True

    def data_received(self, data: bytes) -> None:
        """Take what has come, then let others have their turn."""
        super().data_received(data)
        if not self.read_paused and not self.transport.is_closing():
            self.transport.pause_reading()
            self.loop.call_soon(self._read_on)

    def resume_writing(self) -> None:
        """Go on reading too."""
        super().resume_writing()
        self._read_on()

    def _read_on(self) -> None:
        if not self.read_paused and self.writable.is_set() and not self.transport.is_closing():
            self.transport.resume_reading()

    def handle_cont(self, event: Frame) -> None:
        """Take a fragment; an empty one is noise."""
        if len(self.frames) >= MOST_FRAGMENTS or (not event.data and not event.fin and self._is_too_much()):
            self._refuse()
        else:
            super().handle_cont(event)

    def handle_ping(self) -> None:
        """Answer a ping."""
        if self._is_too_much():
            self._refuse()
        else:
            super().handle_ping()

    def handle_pong(self, event: Frame) -> None:
        """Take a pong."""
        if self._is_too_much():
            self._refuse()
        else:
            super().handle_pong(event)

    def _is_too_much(self) -> bool:
        now = self.loop.time()
        if now - self._second >= 1.0:
            self._second, self._noise = now, 0
        self._noise += 1
        return self._noise > NOISE_PER_S

    def _refuse(self) -> None:
        if not self.close_sent and not self.transport.is_closing():
            self.conn.fail(CloseCode.POLICY_VIOLATION, "Too many frames that say nothing")
            self.handle_parser_exception()


def put(scope: Scope, text: bytes) -> bool:
    """Send a text message on a socket at once, where nothing waits to be read; says whether it did."""
    send: Callable[[bytes], bool] | None = scope.get("state", {}).get(_PUT)
    return send is not None and send(text)
