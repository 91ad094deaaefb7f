"""Who waits at an inbox is woken when there may be something in it: one look at each event, however many wait."""

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

import structlog

from models.errors import ServiceUnavailable, TooSlow
from models.store import database
from models.store.database import DatabaseError, Key, Row
from models.store.live import Live
from models.store.outbox import DeliveryStatus
from models.threads.events import ControlEvent
from models.threads.messaging import Messaging

log = structlog.get_logger()

_AWAY_S = 0.5


class Inboxes:
    """The subscribers of this process."""

    def __init__(self, live: Live, messaging: Messaging) -> None:
        self._live = live
        self._messaging = messaging
        self._waiting: dict[Key, set[asyncio.Event]] = {}
        self._following: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._following = asyncio.create_task(self._follow(), name="inboxes")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._following and not self._following.done():
            self._following.cancel()
            await asyncio.wait([self._following], timeout=1.0)

    async def items(self, agent: Key, *, most: int) -> AsyncIterator[Row]:
        """Give the messages of an agent's inbox as they come, each with a lease; `most` at a time without an answer."""
        stirred = asyncio.Event()
        holder = Key()
        self._waiting.setdefault(agent, set()).add(stirred)
        try:
            while True:
                stirred.clear()
                while (row := await self._next(agent, holder=holder, most=most)) is not None:
                    yield row
                await stirred.wait()
        finally:
            self._waiting[agent].discard(stirred)
            if not self._waiting[agent]:
                del self._waiting[agent]

    async def _next(self, agent: Key, *, holder: Key, most: int) -> Row | None:
        while True:
            try:
                return await self._messaging.hand_out(agent, holder=holder, most=most)
            except (ServiceUnavailable, DatabaseError) as error:
                if isinstance(error, DatabaseError) and not database.is_passing(error):
                    raise
                # Whoever waits need not know that the database was away.
                await asyncio.sleep(_AWAY_S)

    async def _follow(self) -> None:
        while True:
            try:
                async for event in self._live.follow(ControlEvent, after=None, where=_may_bring_something):
                    for agent in event["agents"]:
                        for each in self._waiting.get(agent, ()):
                            each.set()
            except (TooSlow, DatabaseError) as error:
                log.warning("inboxes: following anew", error=type(error).__name__)
                await asyncio.sleep(_AWAY_S)
            # What was missed meanwhile is in the store.
            for waiting in self._waiting.values():
                for each in waiting:
                    each.set()


def _may_bring_something(event: Row) -> bool:
    # That a message was handed out is no news for others who wait.
    return bool(event["status"] != DeliveryStatus.LEASED)
