"""What happens to runs, as it happens: a process follows the database's changes while somebody watches.

Runs are many and written by all processes at once: a number that gives them one order, as alerts have, would be one
document that every writer waits for. The order is the database's own, that of its log, and so is the cursor: as far
back as the log reaches, usually hours.
"""

import asyncio
import re
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

import structlog

from models.errors import BadInput, ServiceUnavailable, TooSlow
from models.runs.reports import AgentRun, RunStatus
from models.store import database
from models.store.database import DatabaseError, Row

log = structlog.get_logger()

_ACTIONS: Final[Mapping[str, str]] = {
    RunStatus.RUNNING.value: "started",
    RunStatus.COMPLETED.value: "completed",
    RunStatus.FAILED.value: "failed",
    RunStatus.TIMED_OUT.value: "timed out",
    RunStatus.CANCELLED.value: "was cancelled",
}
_CHANGES: Final[Sequence[Row]] = [
    {"$match": {"operationType": {"$in": ["insert", "replace"]}}},
    {"$project": {"fullDocument": 1}},
]
_CURSOR: Final = re.compile(r"[0-9A-F]{2,1000}")
_KEPT: Final = 10_000
_AT_ONCE: Final = 40
"""Those who catch up have a connection to the database each, until the next run is heard of; there are a hundred."""

_WAIT_MS: Final = 1000
_PATIENCE_S: Final = 1.0


def action(status: str) -> str:
    """Say what a run of this status has done."""
    return _ACTIONS[status]


@dataclass(frozen=True, slots=True)
class Happening:
    """A run as it was stored, and the place of that in the database's log."""

    cursor: str
    row: Row


@dataclass(slots=True, eq=False)
class _Watcher:
    waiting: deque[Happening] = field(default_factory=deque)
    stirred: asyncio.Event = field(default_factory=asyncio.Event)
    taken: asyncio.Event = field(default_factory=asyncio.Event)
    ended: Exception | None = None
    catches_up: bool = False


class Happenings:
    """One stream of changes for all who watch in this process, open while anybody does."""

    def __init__(self, *, bound: int = 1000) -> None:
        """`bound`: what a watcher may lag behind."""
        self._bound = bound
        self._watchers: set[_Watcher] = set()
        self._task: asyncio.Task[None] | None = None
        self._opened = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    async def follow(
        self, *, after: str | None = None, where: Callable[[Row], bool] = lambda _: True
    ) -> AsyncGenerator[Happening, None]:
        """Give what happens from now on, or after a cursor; none is left out and none comes twice.

        Raises `BadInput` for an `after` that is no cursor, or is too old, `TooSlow` when more than the bound has piled
        up, and `ServiceUnavailable` when the stream was cut off and what came meanwhile is not known, or when too many
        come back at once.
        """
        if after is not None and not _CURSOR.fullmatch(after):
            raise _no_cursor()
        async with self._joined() as watcher:
            passed: OrderedDict[str, None] = OrderedDict()
            if after is not None:
                if sum(each.catches_up for each in self._watchers) >= _AT_ONCE:
                    raise ServiceUnavailable("Many come back at once. Subscribe again in a moment.")
                watcher.catches_up = True
                async for each in self._since(after, watcher, passed):
                    if where(each.row):
                        yield each
                watcher.catches_up = False
            while True:
                while watcher.waiting:
                    each = watcher.waiting.popleft()
                    watcher.taken.set()
                    if each.cursor not in passed and where(each.row):
                        yield each
                if watcher.ended:
                    raise watcher.ended
                watcher.stirred.clear()
                await watcher.stirred.wait()

    async def _since(self, after: str, watcher: _Watcher, passed: OrderedDict[str, None]) -> AsyncIterator[Happening]:
        """Give what came after a cursor, from a stream of its own, until it has met the one that all share.

        Both tell the same in the same order: they have met when this one has passed what the watcher waits to hear
        first. The rest of what it has passed is then not to be heard again.
        """
        try:
            async with await database.collection(AgentRun).watch(
                _CHANGES, resume_after={"_data": after}, max_await_time_ms=_WAIT_MS
            ) as stream:
                while not (watcher.waiting and watcher.waiting[0].cursor in passed) and not watcher.ended:
                    # The shared one may be a little behind who told of the cursor. Cursors sort as they came.
                    while watcher.waiting and watcher.waiting[0].cursor <= after:
                        watcher.waiting.popleft()
                    if (change := await stream.try_next()) is not None:
                        happening = _read(change)
                        passed[happening.cursor] = None
                        if len(passed) > _KEPT:
                            passed.popitem(last=False)
                        yield happening
        except DatabaseError as error:
            if database.is_passing(error):
                raise ServiceUnavailable from error
            raise _no_cursor() from error

    @asynccontextmanager
    async def _joined(self) -> AsyncIterator[_Watcher]:
        watcher = _Watcher()
        self._watchers.add(watcher)
        if self._task is None:
            self._opened.clear()
            self._task = asyncio.create_task(self._watch(), name="runs: change stream")
        try:
            await self._opened.wait()
            yield watcher
        finally:
            self._watchers.discard(watcher)
            watcher.taken.set()
            if not self._watchers:
                await self._close()

    async def _close(self) -> None:
        task, self._task = self._task, None
        while task and not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=1.0)

    async def _watch(self) -> None:
        token: Mapping[str, Any] | None = None
        while True:
            try:
                async with await database.collection(AgentRun).watch(
                    _CHANGES, resume_after=token, max_await_time_ms=_WAIT_MS
                ) as stream:
                    self._opened.set()
                    while stream.alive:
                        change = await stream.try_next()
                        token = stream.resume_token
                        if change is not None:
                            await self._tell(_read(change))
            except DatabaseError as error:
                log.warning("runs: change stream ended, opening it again", error=type(error).__name__)
                if not database.is_passing(error):
                    # What came meanwhile cannot be told any more.
                    token = None
                    self._end(ServiceUnavailable("What happened meanwhile is not known. Subscribe again."))
            await asyncio.sleep(0.2)

    async def _tell(self, happening: Happening) -> None:
        for watcher in [each for each in self._watchers if not each.ended]:
            if watcher.catches_up and len(watcher.waiting) >= self._bound:
                # It has all of it from a stream of its own.
                watcher.waiting.clear()
            watcher.waiting.append(happening)
            watcher.stirred.set()
        # A burst may be larger than the bound: what is read on waits a little for those who do read.
        if full := [each for each in self._watchers if self._is_full(each)]:
            await asyncio.gather(*(self._drained(watcher) for watcher in full))

    def _is_full(self, watcher: _Watcher) -> bool:
        return len(watcher.waiting) >= self._bound and not watcher.ended and not watcher.catches_up

    async def _drained(self, watcher: _Watcher) -> None:
        try:
            async with asyncio.timeout(_PATIENCE_S):
                while len(watcher.waiting) > self._bound // 2 and watcher in self._watchers:
                    watcher.taken.clear()
                    await watcher.taken.wait()
        except TimeoutError:
            watcher.waiting.clear()
            watcher.ended = TooSlow(
                "You read too slowly. Subscribe again with `after` set to the last cursor you saw.",
                retry_after_ms=1000,
            )
            watcher.stirred.set()

    def _end(self, error: Exception) -> None:
        # Whoever waits for it to open is told too.
        self._opened.set()
        for watcher in self._watchers:
            watcher.ended = error
            watcher.stirred.set()


def _read(change: Mapping[str, Any]) -> Happening:
    return Happening(change["_id"]["_data"], change["fullDocument"])


def _no_cursor() -> BadInput:
    return BadInput.at(
        "after",
        "`after` is no cursor of an activity, or the database's log does not reach back so far. Read `recentActivity` "
        "and subscribe without it.",
    )
