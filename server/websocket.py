"""graphql-transport-ws: operations over a WebSocket, each ended on its own; only a broken frame ends the socket."""

import asyncio
from collections.abc import Mapping
from contextlib import ExitStack, aclosing, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import orjson
import structlog
from graphql import OperationType
from starlette.websockets import WebSocket, WebSocketDisconnect

from auth.viewer import NOBODY, Viewer
from graph.context import Context
from models.errors import RateLimited, ServiceUnavailable, TooSlow, Unauthenticated
from models.store import database
from server import credentials, operations
from server.connections import ENDED, Connections
from server.credentials import Door
from server.operations import Answer, NotRunnable, Operation, Operations, encode
from server.protocol import put

PROTOCOL: Final = "graphql-transport-ws"

# The codes of the protocol; 1013 is WebSocket's own "try again later".
_BAD_FRAME, _UNAUTHORIZED, _FORBIDDEN, _WRONG_PROTOCOL = 4400, 4401, 4403, 4406
_INIT_TIMEOUT, _ID_TAKEN, _TOO_MANY_INITS, _TRY_AGAIN_LATER = 4408, 4409, 4429, 1013
_GOING_AWAY: Final = 1001

log = structlog.get_logger()


class WebSockets:
    """The endpoint."""

    def __init__(
        self,
        runner: Operations,
        door: Door,
        connections: Connections,
        *,
        stopping: asyncio.Event,
        init_timeout_s: float = 5.0,
        most_operations: int = 100,
        patience_s: float = 20.0,
        nobodys_life_s: float = 30.0,
    ) -> None:
        """Take what ends sockets: `stopping` when the process is to end, and readers that do not read for `patience_s`.

        `most_operations`: on one socket at a time; `nobodys_life_s`: how long one is left open on which nobody has
        signed in and nothing runs.
        """
        self.operations = runner
        self.door = door
        self.connections = connections
        self.stopping = stopping
        self.init_timeout_s = init_timeout_s
        self.most_operations = most_operations
        self.patience_s = patience_s
        self.nobodys_life_s = nobodys_life_s

    async def serve(self, websocket: WebSocket) -> None:
        """Serve one socket until it closes."""
        # A page of another site may open a socket with our cookie; browsers ask nobody first, but say where it is from.
        if not self.door.permits(websocket.headers):
            await websocket.close()
            return
        if PROTOCOL not in websocket.scope["subprotocols"]:
            await websocket.accept()
            await websocket.close(_WRONG_PROTOCOL, f"Only {PROTOCOL} is spoken here")
            return
        await websocket.accept(PROTOCOL)
        await _Socket(self, websocket).serve()


class _Closing(Exception):
    """The socket is to be closed."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@dataclass(frozen=True, slots=True)
class _Running:
    task: asyncio.Task[None]
    operation: Operation
    context: Context


class _Socket:
    """One socket: what it has sent so far, and what runs for it."""

    def __init__(self, endpoint: WebSockets, websocket: WebSocket) -> None:
        self._endpoint = endpoint
        self._websocket = websocket
        self._viewer = NOBODY
        self._initialised = False
        self._acknowledged = False
        self._running: dict[str, _Running] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._registered = ExitStack()
        self._idle: asyncio.TimerHandle | None = None
        self._closing: asyncio.Future[_Closing] = asyncio.get_running_loop().create_future()

    async def serve(self) -> None:
        """Read frames until one of the two ends it."""
        reading = asyncio.create_task(self._read())
        stopping = asyncio.create_task(self._endpoint.stopping.wait())
        ends: set[asyncio.Future[Any]] = {reading, stopping, self._closing}
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if stopping.done():
                self._end(_Closing(_GOING_AWAY, "The server is going away, come back"))
            if self._closing.done():
                await self._close(self._closing.result())
        finally:
            self._registered.close()
            if self._idle:
                self._idle.cancel()
            reading.cancel()
            stopping.cancel()
            await self._end_all()
            await asyncio.gather(reading, stopping, return_exceptions=True)

    async def _read(self) -> None:
        try:
            async with asyncio.timeout(self._endpoint.init_timeout_s) as deadline:
                while True:
                    await self._take(_frame(await self._websocket.receive()), deadline)
        except TimeoutError:
            self._end(_Closing(_INIT_TIMEOUT, "Connection initialisation timeout"))
        except _Closing as closing:
            self._end(closing)
        except WebSocketDisconnect:
            pass
        except Exception:  # a fault of ours: the client sees a code, the log the rest
            log.exception("a socket failed")
            self._end(_Closing(1011, "Internal error"))

    async def _take(self, frame: Mapping[str, Any], deadline: asyncio.Timeout) -> None:
        match frame["type"]:
            case "connection_init":
                await self._initialise(frame.get("payload"), deadline)
            case "ping":
                await self._pong(frame)
            case "pong":
                pass
            case "subscribe":
                await self._subscribe(frame["id"], frame["payload"])
            case "complete":
                self._complete(frame["id"])

    async def _pong(self, frame: Mapping[str, Any]) -> None:
        try:
            payload = {"payload": frame["payload"]} if "payload" in frame else {}
            await self._write(orjson.dumps({"type": "pong", **payload}))
        except TypeError:
            # JSON is read deeper than it is written; whoever nests so deep wants nothing back.
            await self._send({"type": "pong"})

    async def _initialise(self, payload: Mapping[str, object] | None, deadline: asyncio.Timeout) -> None:
        if self._initialised:
            raise _Closing(_TOO_MANY_INITS, "Too many initialisation requests")
        self._initialised = True
        door = self._endpoint.door
        try:
            try:
                self._viewer = await door.recognise(credentials.credentials(self._websocket, payload))
            except Unauthenticated:
                await door.count(NOBODY, self._websocket)
                raise _Closing(_FORBIDDEN, "Forbidden") from None
            await door.count(self._viewer, self._websocket)
        except (ServiceUnavailable, RateLimited):
            raise _Closing(_TRY_AGAIN_LATER, "Try again later") from None
        except database.DatabaseError as error:
            # Clients come back after 1013, and stay away for good after most others.
            log.warning("a socket cannot be opened", error=type(error).__name__)
            raise _Closing(_TRY_AGAIN_LATER, "Try again later") from None
        deadline.reschedule(None)
        if self._viewer.is_nobody:
            self._leave_idle_nobody()
        self._registered.enter_context(self._endpoint.connections.opened(self._viewer, self._told))
        self._acknowledged = True
        await self._send({"type": "connection_ack"})

    def _leave_idle_nobody(self) -> None:
        """Close a socket on which nobody has signed in and nothing runs: there is little that it could be for."""

        def look() -> None:
            if self._running:
                self._idle = loop.call_later(self._endpoint.nobodys_life_s, look)
            else:
                self._end(_Closing(_UNAUTHORIZED, "Nobody has signed in"))

        loop = asyncio.get_running_loop()
        self._idle = loop.call_later(self._endpoint.nobodys_life_s, look)

    def _told(self, viewer: Viewer | None) -> None:
        if viewer is None:
            self._end(_Closing(_UNAUTHORIZED, ENDED))
        else:
            # What comes from now on is told with the new rights, and what is sent is asked with them.
            self._viewer = viewer
            for running in self._running.values():
                running.context.viewer = viewer

    async def _subscribe(self, key: str, payload: object) -> None:
        if not self._acknowledged:
            raise _Closing(_UNAUTHORIZED, "Unauthorized")
        if key in self._running:
            raise _Closing(_ID_TAKEN, "A subscriber with this id already exists")
        request_id = credentials.request_id(self._websocket.headers)
        try:
            self._check_room()
            await self._endpoint.door.count(self._viewer, self._websocket)
            operation = self._endpoint.operations.choose(self._endpoint.operations.read(payload))
        except NotRunnable as error:
            await self._fail(key, [operations.shown(each, request_id=request_id) for each in error.errors])
        except Exception as error:  # noqa: BLE001  # ends this operation, never the socket with all others on it
            await self._fail(key, [operations.shown(error, request_id=request_id)])
        else:
            address = credentials.address(self._websocket)
            context = self._endpoint.operations.context(self._viewer, request_id=request_id, address=address)
            task = asyncio.create_task(self._run(key, operation, context))
            self._running[key] = _Running(task, operation, context)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _check_room(self) -> None:
        most = self._endpoint.most_operations
        if len(self._running) >= most:
            raise RateLimited(f"A socket carries at most {most} operations at a time.", retry_after_ms=1000)

    async def _run(self, key: str, operation: Operation, context: Context) -> None:
        structlog.contextvars.bind_contextvars(request_id=context.request_id)
        try:
            tell = partial(self._tell, key, asyncio.current_task())
            async with aclosing(self._endpoint.operations.stream(operation, context, tell=tell)) as answers:
                async for answer in answers:
                    if not answer.started:
                        await self._finish(key, {"type": "error", "payload": answer.errors})
                        return
                    await self._next(key, answer)
            await self._finish(key, {"type": "complete"})
        except Exception as error:  # noqa: BLE001  # the operation's end says what happened, and the log the rest
            failed = operations.shown(error, request_id=context.request_id)
            await self._finish(key, {"type": "error", "payload": [failed]})
            if isinstance(error, TooSlow):
                self._end(_Closing(_TRY_AGAIN_LATER, "Reading too slowly"))
        finally:
            self._forget(key)

    def _complete(self, key: str) -> None:
        if running := self._running.pop(key, None):
            _stop(running)

    def _is_current(self, key: str) -> bool:
        running = self._running.get(key)
        return running is not None and running.task is asyncio.current_task()

    def _forget(self, key: str) -> None:
        # The id may belong to another operation by now: the client was free to use it again after `complete`.
        if self._is_current(key):
            del self._running[key]

    async def _next(self, key: str, answer: Answer) -> None:
        if self._is_current(key):
            await self._write(_next(key, answer))

    def _tell(self, key: str, task: asyncio.Task[Any] | None, answer: Answer) -> bool:
        """Send an answer of what runs in a task at once, where nothing waits to be read."""
        running = self._running.get(key)
        return running is not None and running.task is task and put(self._websocket.scope, _next(key, answer))

    async def _finish(self, key: str, message: Mapping[str, object]) -> None:
        # Forgotten first: whoever reads the end of an operation may use its id again at once.
        if self._is_current(key):
            self._forget(key)
            await self._send({"id": key, **message})

    async def _fail(self, key: str, errors: object) -> None:
        await self._send({"id": key, "type": "error", "payload": errors})

    async def _send(self, message: Mapping[str, object]) -> None:
        await self._write(encode(message))

    async def _write(self, message: bytes) -> None:
        try:
            # At once where the peer reads: neither a time-out nor a check of what is known to be text.
            if not put(self._websocket.scope, message):
                async with asyncio.timeout(self._endpoint.patience_s):
                    await self._websocket.send_text(message.decode())
        except TimeoutError:
            self._end(_Closing(_TRY_AGAIN_LATER, "Reading too slowly"))
        except (WebSocketDisconnect, RuntimeError):
            # Closed in the meantime, by either side: the reader learns of it too.
            pass

    def _end(self, closing: _Closing) -> None:
        if not self._closing.done():
            self._closing.set_result(closing)

    async def _close(self, closing: _Closing) -> None:
        with suppress(WebSocketDisconnect, RuntimeError, TimeoutError):
            async with asyncio.timeout(1.0):
                await self._websocket.close(closing.code, closing.reason)

    async def _end_all(self) -> None:
        for running in self._running.values():
            _stop(running)
        self._running.clear()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _next(key: str, answer: Answer) -> bytes:
    # Put together by hand: what follows `payload` may have been written for many sockets at once.
    return b'{"id":%b,"type":"next","payload":%b}' % (encode(key), answer.wire or encode(answer.body))


def _stop(running: _Running) -> None:
    # A mutation that has begun runs to its end, as it does over HTTP; only its answer is dropped.
    if running.operation.kind is not OperationType.MUTATION:
        running.task.cancel()


def _frame(event: Mapping[str, Any]) -> Mapping[str, Any]:
    """Read one frame. Raises `_Closing` for one that the protocol does not know."""
    if event["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(event.get("code", 1005))
    text = event.get("text")
    if text is None:
        raise _Closing(_BAD_FRAME, "Invalid message: text is expected")
    try:
        frame = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise _Closing(_BAD_FRAME, "Invalid message: it is no JSON") from None
    if not isinstance(frame, dict):
        raise _Closing(_BAD_FRAME, "Invalid message: an object is expected")
    match frame.get("type"):
        case "connection_init" | "ping" | "pong":
            fits = isinstance(frame.get("payload"), dict | None)
        case "subscribe":
            fits = _is_id(frame.get("id")) and _is_request(frame.get("payload"))
        case "complete":
            fits = _is_id(frame.get("id"))
        case _:
            raise _Closing(_BAD_FRAME, "Invalid message: unknown type")
    if not fits:
        raise _Closing(_BAD_FRAME, f"Invalid {frame['type']} message")
    return frame


def _is_id(value: object) -> bool:
    return isinstance(value, str) and bool(value)


# What may name a document that is not sent.
_NAMING: Final = frozenset({"documentId", "extensions"})


def _is_request(payload: object) -> bool:
    if not isinstance(payload, dict):
        return False
    return (
        (isinstance(payload.get("query"), str) or (payload.get("query") is None and bool(payload.keys() & _NAMING)))
        and isinstance(payload.get("operationName"), str | None)
        and isinstance(payload.get("variables"), dict | None)
        and isinstance(payload.get("extensions"), dict | None)
    )
