"""What is stored reaches those who watch: one change stream per process, bounded subscribers, resume by number."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from types import MappingProxyType, TracebackType
from typing import Any, Final, Protocol, Self

import structlog
from beanie import Document
from prometheus_client import Gauge

from models.errors import TooSlow
from models.store import database
from models.store.database import ASCENDING, Database, DatabaseError, Row

log = structlog.get_logger()

_PAGE = 500
_HASTE_S: Final = 0.05
_LAG: Final = Gauge(
    "agenthub_change_stream_lag_seconds",
    "From the last followed change to its arrival here, by the clocks of database and process.",
    multiprocess_mode="livemax",
)
_SEEN: Final = Gauge(
    "agenthub_last_number", "Number of the last document of a followed kind.", ["kind"], multiprocess_mode="max"
)


class Teller(Protocol):
    """Tells one subscriber at once, without waking the task that follows for it."""

    def key(self) -> Hashable | None:
        """Give what is the same for all who are told the same; None for who cannot be told so now."""
        ...

    async def answer(self, row: Row) -> Any:  # noqa: ANN401  # what `tell` is then given
        """Make what is told of a row, once for all of the same key."""
        ...

    def tell(self, answer: Any) -> bool:  # noqa: ANN401  # what `answer` has made
        """Tell it; false where it would have to wait."""
        ...


class _Subscriber:
    def __init__(self, where: Callable[[Row], bool], after: int, *, bound: int, teller: Teller | None) -> None:
        self._where = where
        self.after = after
        """The number of the last row that was handed on."""
        self._bound = bound
        self.teller = teller
        self._waits = False
        self._rows: deque[Row] = deque()
        self._arrived = asyncio.Event()
        self._overflowed_in: int | None = None
        self._too_slow = False

    def key(self, row: Row) -> Hashable | None:
        """Give the key under which it may be told of a row at once: one that has all that came before."""
        if not self._waits or self.teller is None or not self._wants(row):
            return None
        return self.teller.key()

    def tell(self, row: Row, answer: object) -> bool:
        """Tell it at once; false where the row is to be put into its queue."""
        if not self._waits or self.teller is None or not self.teller.tell(answer):
            return False
        self.after = row["_id"]
        return True

    def _wants(self, row: Row) -> bool:
        return row["_id"] > self.after and self._where(row)

    def put(self, row: Row, *, burst: int) -> None:
        if not self._wants(row):
            return
        self._waits = False
        if self._overflowed_in is not None:
            # More than one burst has come since, and it has not stirred.
            self._too_slow = self._too_slow or burst > self._overflowed_in
            return
        if len(self._rows) >= self._bound:
            self._overflowed_in = burst
            self._rows.clear()
        else:
            self._rows.append(row)
        self._arrived.set()

    async def next(self) -> Row | None:
        """Give the next row; None when some were dropped and are to be read from the store."""
        while not self._rows and self._overflowed_in is None:
            self._arrived.clear()
            self._waits = True
            await self._arrived.wait()
        if self._too_slow:
            raise TooSlow(
                "You read too slowly. Subscribe again with `after` set to the last cursor you saw.",
                retry_after_ms=1000,
            )
        if self._overflowed_in is not None:
            return None
        row = self._rows.popleft()
        self.after = row["_id"]
        return row


class Live:
    """Follows collections whose `_id` is a number from `sequences`, so that its order is the order of commit.

    The collection is the log; the change stream only says "look now". A process reads what lies behind the last number
    it has seen, whenever the stream stirs and every two seconds besides. No resume token is kept, so that a stream
    that ends for whatever reason (a failover, an oplog rolled over, a dropped collection) is simply opened again.
    """

    def __init__(
        self, database: Database, topics: Sequence[type[Document]], *, bound: int = 200, every_s: float = 2.0
    ) -> None:
        """`topics`: the documents that may be followed; `bound`: rows a subscriber may lag behind."""
        self._database = database
        self._topics = tuple(topics)
        self._bound = bound
        self._every_s = every_s
        self._seen: dict[type[Document], int] = {}
        self._subscribers: dict[type[Document], set[_Subscriber]] = {topic: set() for topic in topics}
        self._burst = 0
        self._stirred = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.is_watching = False
        """Whether the change stream is open; without it changes are seen two seconds late."""

    async def __aenter__(self) -> Self:
        for topic in self._topics:
            last = await database.collection(topic, majority=True).find_one({}, {"_id": 1}, sort=[("_id", -1)])
            self._seen[topic] = last["_id"] if last else 0
        self._tasks = [
            asyncio.create_task(self._watch(), name="live: change stream"),
            asyncio.create_task(self._broadcast(), name="live: broadcast"),
        ]
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

    def look(self) -> None:
        """Look now: this very process has stored something, which the change stream would tell a little later."""
        self._stirred.set()

    async def follow(
        self,
        topic: type[Document],
        *,
        after: int | None,
        where: Callable[[Row], bool] = lambda _: True,
        stored: Row = MappingProxyType({}),
        teller: Teller | None = None,
    ) -> AsyncIterator[Row]:
        """Give the rows numbered above `after` (above the newest, when None), first the stored ones, then live.

        None is left out and none comes twice. `where` picks the rows that count for this subscriber; `stored` says as
        much of it as an index can, for the rows that are read from the store. What `teller` can tell at once is not
        given here. Raises `TooSlow` when more than the bound has piled up and the reader has not stirred by the next
        burst.
        """
        last = self._seen[topic] if after is None else after
        while True:
            while last < self._seen[topic]:
                broadcast = self._seen[topic]
                rows = await self._read(topic, last, stored)
                for row in rows:
                    last = row["_id"]
                    if where(row):
                        yield row
                if len(rows) < _PAGE:
                    # All that had been broadcast when this was read has been looked at.
                    last = max(last, broadcast)
            # Nothing was awaited since `last` reached what has been broadcast: whatever comes now comes to the queue.
            subscriber = _Subscriber(where, last, bound=self._bound, teller=teller)
            self._subscribers[topic].add(subscriber)
            try:
                # A burst that is larger than the queue sends the reader back to the store, where nothing is dropped.
                while (next_row := await subscriber.next()) is not None:
                    yield next_row
            finally:
                self._subscribers[topic].discard(subscriber)
            last = subscriber.after

    async def _read(self, topic: type[Document], after: int, stored: Row = MappingProxyType({})) -> Sequence[Row]:
        # Majority: what a subscriber has seen must survive a failover.
        cursor = database.collection(topic, majority=True).find({**stored, "_id": {"$gt": after}})
        rows: Sequence[Row] = await cursor.sort("_id", ASCENDING).limit(_PAGE).to_list(_PAGE)
        return rows

    async def _broadcast(self) -> None:
        while True:
            # Not wait_for: in Python 3.11 it loses a cancellation that meets the event, and the process would not stop.
            with suppress(TimeoutError):
                async with asyncio.timeout(self._every_s):
                    await self._stirred.wait()
            self._stirred.clear()
            for topic in self._topics:
                try:
                    await self._pass_on(topic)
                except DatabaseError as error:
                    log.warning("live: cannot read, trying again", topic=topic.__name__, error=type(error).__name__)

    async def _pass_on(self, topic: type[Document]) -> None:
        self._burst += 1
        while rows := await self._read(topic, self._seen[topic]):
            for row in rows:
                answers = await self._answers(topic, row)
                # Nothing is awaited from here on: who comes meanwhile would miss the row, or have it twice.
                for subscriber in self._subscribers[topic]:
                    if subscriber not in answers or not subscriber.tell(row, answers[subscriber]):
                        subscriber.put(row, burst=self._burst)
                self._seen[topic] = row["_id"]
            _SEEN.labels(topic.__name__).set(rows[-1]["_id"])

    async def _answers(self, topic: type[Document], row: Row) -> Mapping[_Subscriber, Any]:
        """Make what is told of a row at once, for each who is told: a thousand who read the same are not woken."""
        together: dict[Hashable, list[_Subscriber]] = {}
        for subscriber in self._subscribers[topic]:
            if (key := subscriber.key(row)) is not None:
                together.setdefault(key, []).append(subscriber)
        if not together:
            return {}
        making = {asyncio.create_task(each[0].teller.answer(row)): each for each in together.values() if each[0].teller}
        # Who asks for much is told later by a task of its own, and holds up nobody.
        done, late = await asyncio.wait(making, timeout=_HASTE_S)
        for task in late:
            task.cancel()
        return {each: task.result() for task in done if task.exception() is None for each in making[task]}

    async def _watch(self) -> None:
        names = [database.collection(topic).name for topic in self._topics]
        pipeline: Sequence[Row] = [
            {"$match": {"operationType": "insert", "ns.coll": {"$in": names}}},
            {"$project": {"_id": 1, "wallTime": 1}},
        ]
        while True:
            try:
                async with await self._database.handle.watch(pipeline, max_await_time_ms=1000) as stream:
                    self._stirred.set()
                    self.is_watching = True
                    while stream.alive:
                        if (change := await stream.try_next()) is not None:
                            _LAG.set((datetime.now(UTC) - change["wallTime"]).total_seconds())
                            self._stirred.set()
            except DatabaseError as error:
                log.warning("live: change stream ended, opening it again", error=type(error).__name__)
            self.is_watching = False
            await asyncio.sleep(0.2)
