"""A small collection that every process holds in memory: read as a whole, and again as soon as it has changed."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import Final, Generic, Self, TypeVar

import structlog
from beanie import Document

from models.store import database
from models.store.database import Database, DatabaseError, Row

T = TypeVar("T")

log = structlog.get_logger()

_EVERY_S: Final = 5.0
"""How often it is read all the same, should the change stream be away."""


class Held(Generic[T]):
    """What `read` makes of a collection, kept up to date by a change stream; `value` costs nothing to look at."""

    def __init__(self, opened: Database, document: type[Document], read: Callable[[], Awaitable[T]]) -> None:
        """`read` reads the whole collection of `document` and makes of it what is held."""
        self._database = opened
        self._document = document
        self._read = read
        self._turn = asyncio.Lock()
        self._stirred = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._value: T | None = None

    @property
    def value(self) -> T:
        """What was read last."""
        if self._value is None:
            raise RuntimeError("It has not been read yet.")
        return self._value

    async def __aenter__(self) -> Self:
        await self.look()
        self._tasks = [asyncio.create_task(self._keep()), asyncio.create_task(self._watch())]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        running = set(self._tasks)
        while running:
            # Again, should one of them have been in the midst of something that swallows a cancellation.
            for task in running:
                task.cancel()
            _, running = await asyncio.wait(running, timeout=1.0)

    async def look(self) -> None:
        """Read it now: whoever has changed it in this process sees the change once this is done."""
        # One at a time: an older reading must not take the place of a newer one.
        async with self._turn:
            self._value = await self._read()

    async def _keep(self) -> None:
        while True:
            # Not wait_for: in Python 3.11 it loses a cancellation that meets the event, and the process would not stop.
            with suppress(TimeoutError):
                async with asyncio.timeout(_EVERY_S):
                    await self._stirred.wait()
            self._stirred.clear()
            try:
                await self.look()
            except DatabaseError as error:
                log.warning("held: cannot read, trying again", what=self._name, error=type(error).__name__)

    async def _watch(self) -> None:
        pipeline: list[Row] = [{"$match": {"ns.coll": self._name}}, {"$project": {"_id": 1}}]
        while True:
            try:
                async with await self._database.handle.watch(pipeline, max_await_time_ms=1000) as stream:
                    self._stirred.set()
                    while stream.alive:
                        if await stream.try_next() is not None:
                            self._stirred.set()
            except DatabaseError as error:
                log.warning("held: change stream ended, opening it again", error=type(error).__name__)
            await asyncio.sleep(0.2)

    @property
    def _name(self) -> str:
        return database.collection(self._document).name
