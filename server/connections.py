"""Open streams and who opened them, so that what they signed in with ends them when it ends, on every process."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import TracebackType
from typing import Final, Self

import structlog
from prometheus_client import Gauge

from auth.authenticator import Authenticator
from auth.viewer import Viewer
from models.store.database import DatabaseError

log = structlog.get_logger()

ENDED: Final = "What you signed in with has ended"

_OPEN: Final = Gauge("agenthub_open_streams", "Open WebSockets and event streams.", multiprocess_mode="livesum")

Told = Callable[[Viewer | None], None]


class Connections:
    """Asks every second about everybody who has a stream open: one read for all sessions, one for all keys.

    Asking, rather than being told, works the same whether a session was ended here, by another process or in the
    database; a second is how long it may take.
    """

    def __init__(self, authenticator: Authenticator, *, every_s: float = 1.0) -> None:
        self._authenticator = authenticator
        self._every_s = every_s
        self._open: dict[Viewer, set[Told]] = {}
        self._whose: dict[Told, Viewer] = {}
        self._asking: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._asking = asyncio.create_task(self._ask(), name="connections")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._asking and not self._asking.done():
            self._asking.cancel()
            await asyncio.wait([self._asking], timeout=1.0)

    @contextmanager
    def opened(self, viewer: Viewer, told: Told) -> Iterator[None]:
        """Have `told` called while a stream is open: with the viewer anew when their rights change, None at the end."""
        self._add(viewer, told)
        _OPEN.inc()
        try:
            yield
        finally:
            _OPEN.dec()
            # By now the viewer may have been replaced.
            by_now = self._whose.pop(told, None)
            streams = self._open.get(by_now, set()) if by_now else set()
            streams.discard(told)
            if by_now and not streams:
                self._open.pop(by_now, None)

    def _add(self, viewer: Viewer, told: Told) -> None:
        self._open.setdefault(viewer, set()).add(told)
        self._whose[told] = viewer

    async def _ask(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            now = datetime.now(UTC)
            for viewer in [each for each in self._open if each.expires_at and each.expires_at <= now]:
                self._tell(viewer, None)
            asked = [viewer for viewer in self._open if not viewer.is_nobody]
            if not asked:
                continue
            try:
                found = await self._authenticator.again(asked)
            except DatabaseError as error:
                log.warning("connections: cannot ask, trying again", error=type(error).__name__)
                continue
            for viewer, by_now in found.items():
                if by_now != viewer:
                    self._tell(viewer, by_now)

    def _tell(self, viewer: Viewer, by_now: Viewer | None) -> None:
        for told in self._open.pop(viewer, set()):
            del self._whose[told]
            if by_now is not None:
                self._add(by_now, told)
            told(by_now)
