"""Many subscribers in one process: WebSockets by hand, so that receiving costs less than what is measured."""

import asyncio
import base64
import secrets
import time
from collections.abc import Sequence
from typing import Final, cast
from urllib.parse import urlsplit

_TEXT, _CLOSE, _PING, _PONG = 1, 8, 9, 10
_PATIENCE_SECONDS: Final = 20.0
_AT_ONCE: Final = 50


class Subscriber(asyncio.Protocol):
    """One socket: notes when its next text frame arrives, to the microsecond."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._buffer = b""
        self._upgraded = False
        self._waiting: asyncio.Future[tuple[float, bytes]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the upgrade."""
        self._transport = cast("asyncio.Transport", transport)  # a TCP connection's is one
        key = base64.b64encode(secrets.token_bytes(16)).decode()
        self._transport.write(
            (
                f"GET /graphql HTTP/1.1\r\nHost: {self._host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
                "Sec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n"
            ).encode()
        )

    def data_received(self, data: bytes) -> None:
        """Note the time first, then read the frames."""
        now = time.perf_counter()
        self._buffer += data
        if not self._upgraded:
            head, found, rest = self._buffer.partition(b"\r\n\r\n")
            if not found:
                return
            if not head.startswith(b"HTTP/1.1 101"):
                self._fail(f"No WebSocket: {head[:200]!r}")
                return
            self._upgraded, self._buffer = True, rest
            self._answer(now, head)
        while (frame := self._frame()) is not None:
            opcode, payload = frame
            if opcode == _PING:
                self._write(_PONG, payload)
            elif opcode == _CLOSE:
                self._fail(f"Closed: {payload!r}")
            elif opcode == _TEXT and not payload.startswith(b'{"type":"ping"'):
                self._answer(now, payload)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits."""
        self._fail(f"The connection is gone: {exc}")

    def next(self) -> asyncio.Future[tuple[float, bytes]]:
        """Wait for the next text frame, the answer to the upgrade first: when it arrived, and what it says."""
        self._waiting = asyncio.get_running_loop().create_future()
        return self._waiting

    def send(self, text: str) -> None:
        """Send a text frame."""
        self._write(_TEXT, text.encode())

    def close(self) -> None:
        """End the connection."""
        self._transport.close()

    def _answer(self, now: float, payload: bytes) -> None:
        if self._waiting and not self._waiting.done():
            self._waiting.set_result((now, payload))

    def _fail(self, reason: str) -> None:
        if self._waiting and not self._waiting.done():
            self._waiting.set_exception(ConnectionError(reason))

    def _frame(self) -> tuple[int, bytes] | None:
        if len(self._buffer) < 2:
            return None
        size, start = self._buffer[1] & 127, 2
        if size >= 126:
            start = 4 if size == 126 else 10
            size = int.from_bytes(self._buffer[2:start], "big")
        if len(self._buffer) < start + size:
            return None
        frame = self._buffer[0] & 15, self._buffer[start : start + size]
        self._buffer = self._buffer[start + size :]
        return frame

    def _write(self, opcode: int, payload: bytes) -> None:
        # A client has to mask; a mask of zeros leaves the bytes as they are.
        size = len(payload)
        length = bytes([128 | size]) if size < 126 else bytes([128 | 126]) + size.to_bytes(2, "big")
        self._transport.write(bytes([128 | opcode]) + length + bytes(4) + payload)


async def connect(url: str, count: int, greeting: Sequence[tuple[str, bool]]) -> list[Subscriber]:
    """Open `count` sockets and say `greeting` on each: frames, each with whether an answer is waited for."""
    place = urlsplit(url)
    host, port = place.hostname or "", place.port or 0
    limit = asyncio.Semaphore(_AT_ONCE)

    async def one() -> Subscriber:
        async with limit, asyncio.timeout(_PATIENCE_SECONDS):
            subscriber = Subscriber(place.netloc)
            upgraded = subscriber.next()
            await asyncio.get_running_loop().create_connection(lambda: subscriber, host, port)
            await upgraded
            for text, is_answered in greeting:
                answer = subscriber.next()
                subscriber.send(text)
                if is_answered:
                    await answer
            return subscriber

    return list(await asyncio.gather(*(one() for _ in range(count))))


async def arrivals(waiting: Sequence[asyncio.Future[tuple[float, bytes]]]) -> list[tuple[float, bytes]]:
    """Wait until every subscriber has been reached."""
    async with asyncio.timeout(_PATIENCE_SECONDS):
        return list(await asyncio.gather(*waiting))
