"""graphql-sse, distinct connections: an operation by POST, its answers as events, for who has no WebSocket."""

import asyncio
from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing, suppress
from typing import Any, Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from auth.viewer import Viewer
from graph.context import Context
from models.errors import Unauthenticated
from server.connections import ENDED, Connections
from server.negotiation import EVENT_STREAM
from server.operations import Answer, encode, shown

_HEADERS: Final = {"Content-Type": f"{EVENT_STREAM}; charset=utf-8", "X-Accel-Buffering": "no"}
# LF alone: urql splits events at two line feeds and never sees the end of one that is written with CR LF.
_COMPLETE: Final = b"event: complete\ndata:\n\n"
_KEEP_ALIVE: Final = b":\n\n"


def whole(answer: Answer) -> Response:
    """Give the one answer of a query or a mutation, all at once."""
    return Response(_next(answer) + _COMPLETE, headers=_HEADERS)


def _next(answer: Answer) -> bytes:
    return b"event: next\ndata: " + (answer.wire or encode(answer.body)) + b"\n\n"


class EventStreams:
    """The streams of this process, all of which end when it stops."""

    def __init__(self, connections: Connections, *, keep_alive_s: float = 12.0, patience_s: float = 20.0) -> None:
        """`keep_alive_s`: silence after which a comment is sent; `patience_s`: how long a reader may not read."""
        self.connections = connections
        self.keep_alive_s = keep_alive_s
        self.patience_s = patience_s
        self.stopping = asyncio.Event()

    def respond(self, answers: AsyncGenerator[Answer, None], *, context: Context) -> Response:
        """Give the answers of a subscription as they come, until what the viewer signed in with ends."""
        return _Stream(self, answers, context=context)


class _Stream(Response):
    """Written out instead of Starlette's own, whose way of cancelling lets nothing be closed in peace."""

    def __init__(
        self,
        streams: EventStreams,
        answers: AsyncGenerator[Answer, None],
        *,
        context: Context,
    ) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers(_HEADERS)
        self._streams = streams
        self._answers = answers
        self._context = context
        self._signed_out = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  # ASGI's signature
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        # A stream that is cut for want of a reader, or by our end, has no `complete`: the client is to come back.
        with suppress(TimeoutError):
            with self._streams.connections.opened(self._context.viewer, self._told):
                async with aclosing(self._frames(receive)) as frames:
                    async for frame in frames:
                        async with asyncio.timeout(self._streams.patience_s):
                            await send({"type": "http.response.body", "body": frame, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _frames(self, receive: Receive) -> AsyncGenerator[bytes, None]:
        signed_out = asyncio.create_task(self._signed_out.wait())
        ends: set[asyncio.Task[Any]] = {
            asyncio.create_task(_gone(receive)),
            asyncio.create_task(self._streams.stopping.wait()),
            signed_out,
        }
        upcoming: asyncio.Task[Answer | None] | None = None
        try:
            async with aclosing(self._answers) as answers:
                while True:
                    upcoming = upcoming or asyncio.create_task(_upcoming(answers))
                    done, _ = await asyncio.wait(
                        {upcoming, *ends}, timeout=self._streams.keep_alive_s, return_when=asyncio.FIRST_COMPLETED
                    )
                    if done & ends:
                        await _cancelled([upcoming])
                        if signed_out not in done:
                            return
                        yield self._failed(Unauthenticated(f"{ENDED}. Sign in again."))
                        break
                    if done:
                        answer, upcoming = upcoming.result(), None
                        if answer is None:
                            break
                        yield _next(answer)
                    else:
                        yield _KEEP_ALIVE
            yield _COMPLETE
        except Exception as error:  # noqa: BLE001  # the stream's end says what happened, and the log the rest
            yield self._failed(error)
            yield _COMPLETE
        finally:
            await _cancelled([*ends, *([upcoming] if upcoming else [])])

    def _failed(self, error: Exception) -> bytes:
        return _next(Answer([shown(error, request_id=self._context.request_id)]))

    def _told(self, viewer: Viewer | None) -> None:
        if viewer is None:
            self._signed_out.set()
        else:
            # What comes from now on is told with the new rights.
            self._context.viewer = viewer


async def _upcoming(answers: AsyncGenerator[Answer, None]) -> Answer | None:
    return await anext(answers, None)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _cancelled(tasks: Collection[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
