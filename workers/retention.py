"""Removes old runs, on a slow clock; what they came to stays."""

import asyncio
import random
from datetime import timedelta
from types import TracebackType
from typing import Final, Self
from zoneinfo import ZoneInfo

import structlog

from models.errors import ServiceUnavailable
from models.runs import retention
from models.store.database import DatabaseError

log = structlog.get_logger()

_EVERY: Final = timedelta(hours=1)


class Retention:
    """Removes runs that began so many days ago. Any number of processes may: one of them does, once an hour."""

    def __init__(self, days: int | None, zone: ZoneInfo) -> None:
        """`days`: for how long runs are kept, for ever when None; `zone`: whose days figures are kept by."""
        self._days = days
        self._zone = zone
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        if self._days is not None:
            self._task = asyncio.create_task(self._keep(timedelta(days=self._days)), name="retention")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A transaction that is cut off has removed nothing.
        while self._task and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task], timeout=1.0)

    async def _keep(self, after: timedelta) -> None:
        while True:
            try:
                if removed := await retention.remove(after=after, every=_EVERY, zone=self._zone):
                    log.info("retention: runs removed", runs=removed)
            except (DatabaseError, ServiceUnavailable) as error:
                log.warning("retention: cannot remove runs, trying again", error=type(error).__name__)
            # Not all processes at once.
            await asyncio.sleep(_EVERY.total_seconds() * random.uniform(0.2, 1))  # noqa: S311  # spreads them
