"""The floors, in a process of their own: a bare ASGI app on uvicorn, and the driver alone.

`/constant/NAME` answers the bytes that `/keep/NAME` was sent, `/driver/NAME` does the same reads or writes as the
service without the service, `/fire` sends its body to every open WebSocket. uvicorn runs as it does in the service.
"""

import asyncio
import json
import socket
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any, Final, Self

import uvicorn
import uvloop

from bench.driver import Driver

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_ROOT: Final = Path(__file__).parent.parent


class _App:
    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._constants: dict[str, bytes] = {}
        self._sockets: set[Send] = set()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._hold(receive, send)
            return
        body = await _read(receive)
        _, kind, name = scope["path"].split("/")
        answer = b"{}"
        if kind == "keep":
            self._constants[name] = body
        elif kind == "constant":
            answer = self._constants[name]
        elif kind == "driver":
            answer = json.dumps(await self._driver.run(name, **json.loads(body))).encode()
        else:
            text = body.decode()
            for each in list(self._sockets):
                await each({"type": "websocket.send", "text": text})
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    async def _hold(self, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept", "subprotocol": "graphql-transport-ws"})
        self._sockets.add(send)
        try:
            while (await receive())["type"] != "websocket.disconnect":
                pass
        finally:
            self._sockets.discard(send)


async def _read(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += bytes(message.get("body", b""))
        if not message.get("more_body"):
            return body


class Floors:
    """The process: `async with Floors(uri, name) as floors: floors.url`."""

    def __init__(self, uri: str, name: str) -> None:
        self._arguments = (uri, name)
        self.url = ""

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.floors", *self._arguments),
            cwd=_ROOT,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
        )
        assert self._process.stdout is not None
        self.url = (await asyncio.wait_for(self._process.stdout.readline(), 30)).decode().strip()
        assert self.url, "The floors did not start."
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self._process.terminate()
        await self._process.wait()


async def _serve(uri: str, name: str) -> None:
    async with Driver(uri, name) as driver:
        listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
        config = uvicorn.Config(
            _App(driver),
            http="httptools",
            ws="websockets-sansio",
            ws_per_message_deflate=False,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=1,
        )
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        await uvicorn.Server(config).serve([listener])


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(*sys.argv[1:3]))
