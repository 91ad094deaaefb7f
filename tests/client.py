"""A GraphQL client over HTTP, WebSocket and server-sent events, as a program of a customer would be one."""

import asyncio
import io
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Self

import aiohttp

PROTOCOL = "graphql-transport-ws"
PATIENCE_SECONDS = 15.0


class GraphQLErrors(Exception):
    """An answer with errors."""

    def __init__(self, errors: Sequence[dict[str, Any]], data: object = None, status: int = 200) -> None:
        super().__init__(json.dumps(errors, indent=1))
        self.errors = errors
        self.data = data
        self.status = status

    @property
    def codes(self) -> list[str]:
        """The code of each error."""
        return [error["extensions"]["code"] for error in self.errors]

    @property
    def code(self) -> str:
        """The code of the only error."""
        assert len(self.errors) == 1, self.errors
        code: str = self.errors[0]["extensions"]["code"]
        return code

    @property
    def field(self) -> str | None:
        """The field at fault of the only error."""
        assert len(self.errors) == 1, self.errors
        name: str | None = self.errors[0]["extensions"].get("field")
        return name

    @property
    def message(self) -> str:
        """The message of the only error."""
        assert len(self.errors) == 1, self.errors
        message: str = self.errors[0]["message"]
        return message


class Closed(Exception):
    """The server closed the socket."""

    def __init__(self, code: int | None, reason: str = "") -> None:
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP answer, read to its end."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def body(self) -> Any:  # JSON
        """The JSON of the answer."""
        return json.loads(self.content)

    @property
    def codes(self) -> list[str]:
        """The code of each error in the answer."""
        return [error["extensions"]["code"] for error in self.body.get("errors", ())]


@dataclass(frozen=True, slots=True)
class Client:
    """Speaks for one caller; `with_token` gives another that shares the connections."""

    session: aiohttp.ClientSession
    url: str
    token: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def with_token(self, token: str | None) -> Self:
        """Give a client that shows this access token or API key."""
        return replace(self, token=token)

    def with_headers(self, **headers: str) -> Self:
        """Give a client that sends these headers too; underscores stand for hyphens."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return replace(self, headers={**self.headers, **named})

    async def query(self, document: str, **variables: object) -> Any:  # JSON
        """Run a query or a mutation and give its data. Raises `GraphQLErrors`."""
        reply = await self.execute(document, variables)
        if reply.body.get("errors"):
            raise GraphQLErrors(reply.body["errors"], reply.body.get("data"), reply.status)
        return reply.body["data"]

    async def execute(
        self, document: str, variables: Mapping[str, Any] | None = None, *, operation_name: str | None = None
    ) -> Reply:
        """Send a request and give the answer as it came."""
        body = {"query": document, "variables": variables or None, "operationName": operation_name}
        return await self.post({name: value for name, value in body.items() if value is not None})

    async def post(self, body: object, **headers: str) -> Reply:
        """Send a body (bytes as they are, anything else as JSON) and give the answer as it came."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.send("POST", content=content, headers={"Content-Type": "application/json", **named})

    async def get(self, parameters: Mapping[str, str], **headers: str) -> Reply:
        """Send a request in the URL and give the answer as it came."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.send("GET", parameters=parameters, headers=named)

    async def send(
        self,
        method: str,
        *,
        parameters: Mapping[str, str] | None = None,
        content: bytes | AsyncIterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Send an HTTP request; a header that is empty is left out."""
        given = {**self._headers(), **(headers or {})}
        kept = {name: value for name, value in given.items() if value}
        skipped = [name for name, value in given.items() if not value]
        async with self.session.request(
            method,
            self.url,
            params=parameters,
            # aiohttp warns of large bytes and does not of the same in a file.
            data=io.BytesIO(content) if isinstance(content, bytes) else content,
            headers=kept,
            skip_auto_headers=skipped,
            allow_redirects=False,
        ) as response:
            return Reply(response.status, response.headers.copy(), await response.read())

    @asynccontextmanager
    async def subscribe(self, document: str, **variables: object) -> AsyncIterator[AsyncGenerator[Any, None]]:
        """Subscribe over a WebSocket and give the data of each event. Raises `GraphQLErrors` and `Closed`."""
        async with self.socket() as socket:
            await socket.initialise(self.token)
            await socket.subscribe("1", document, variables)
            events = socket.events("1")
            try:
                yield events
            finally:
                await events.aclose()

    @asynccontextmanager
    async def socket(self, *, protocols: Sequence[str] = (PROTOCOL,), **headers: str) -> AsyncIterator["Socket"]:
        """Open a WebSocket and leave the rest to the test."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        # An access token travels in connection_init, as it does from a browser.
        async with self.session.ws_connect(self.url, protocols=protocols, headers={**self.headers, **named}) as raw:
            yield Socket(raw)

    @asynccontextmanager
    async def stream(self, document: str, **variables: object) -> AsyncIterator["Stream"]:
        """Run an operation over server-sent events."""
        body = json.dumps({"query": document, "variables": variables}).encode()
        headers = {**self._headers(), "Accept": "text/event-stream", "Content-Type": "application/json"}
        async with self.session.post(self.url, data=body, headers=headers) as response:
            yield Stream(response)

    def _headers(self) -> dict[str, str]:
        shown = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        return {**shown, **self.headers}


class Socket:
    """A WebSocket that speaks graphql-transport-ws, frame by frame."""

    def __init__(self, raw: aiohttp.ClientWebSocketResponse) -> None:
        self.raw = raw

    async def send(self, frame: object) -> None:
        """Send a frame: a string as it is, anything else as JSON."""
        await self.raw.send_str(frame if isinstance(frame, str) else json.dumps(frame))

    async def receive(self) -> dict[str, Any]:
        """Give the next frame. Raises `Closed`."""
        message = await self.raw.receive(timeout=PATIENCE_SECONDS)
        if message.type is aiohttp.WSMsgType.TEXT:
            frame: dict[str, Any] = json.loads(message.data)
            return frame
        raise Closed(self.raw.close_code, message.extra or "")

    async def until_closed(self) -> Closed:
        """Read on to the end, and say how it ended."""
        try:
            while True:
                await self.receive()
        except Closed as closed:
            return closed

    async def initialise(self, token: str | None = None) -> None:
        """Do the handshake."""
        payload = {"payload": {"authorization": f"Bearer {token}"}} if token else {}
        await self.send({"type": "connection_init", **payload})
        assert await self.receive() == {"type": "connection_ack"}

    async def subscribe(self, key: str, document: str, variables: Mapping[str, Any] | None = None) -> None:
        """Start an operation."""
        await self.send({"id": key, "type": "subscribe", "payload": {"query": document, "variables": variables or {}}})

    async def complete(self, key: str) -> None:
        """End an operation."""
        await self.send({"id": key, "type": "complete"})

    async def events(self, key: str) -> AsyncGenerator[Any, None]:
        """Give the data of each event of one operation. Raises `GraphQLErrors` and `Closed`."""
        while True:
            frame = await self.receive()
            if frame.get("id") != key:
                continue
            if frame["type"] == "complete":
                return
            if frame["type"] == "error":
                raise GraphQLErrors(frame["payload"])
            if frame["payload"].get("errors"):
                raise GraphQLErrors(frame["payload"]["errors"], frame["payload"].get("data"))
            yield frame["payload"]["data"]


class Stream:
    """Server-sent events as they come."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response

    async def events(self) -> AsyncGenerator[tuple[str, Any], None]:
        """Give each event: its name, and its data as read from JSON; comments are left out."""
        while block := await self._block():
            fields = {
                name: value.removeprefix(" ") for name, _, value in (line.partition(":") for line in block.split("\n"))
            }
            if "event" in fields:
                yield fields["event"], json.loads(fields["data"]) if fields.get("data") else None

    async def _block(self) -> str:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return (await self.response.content.readuntil(b"\n\n")).decode().removesuffix("\n\n")
