"""Lease, send, back off, give up: takes messages out of the outbox and past the ways out, never in anybody's way."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Final, Protocol, Self

import structlog
from prometheus_client import Counter

from models import agents, users
from models.alerts import raised, rules
from models.store import outbox
from models.store.database import DatabaseError, Row
from workers.letters import Notice

log = structlog.get_logger()

_TRIES: Final = Counter("agenthub_delivery_attempts", "Tries to send a message, by channel.", ["channel"])
_AT_ONCE: Final = 20
_PATIENCE_S: Final = 10.0
_LAST_WORDS_S: Final = 2.0


class NotTaken(Exception):
    """The other side did not take a message; says why, in words that an admin may read."""

    def __init__(self, reason: str, *, for_good: bool = False) -> None:
        """`for_good`: trying again is of no use."""
        super().__init__(reason)
        self.reason = reason
        self.for_good = for_good


class Withdrawn(Exception):
    """A message need not be sent any more; says why."""


class Channel(Protocol):
    """A way out."""

    async def send(self, item: Row) -> None:
        """Send one message. Raises `NotTaken` and `Withdrawn`."""


class Delivery:
    """Sends what is due, several at a time. Any number of processes do this; each message is leased to one of them."""

    def __init__(self, channels: Mapping[str, Channel], *, every_s: float = 1.0) -> None:
        """`channels`: by kind of message."""
        self._channels = channels
        self._every_s = every_s
        self._taking: asyncio.Task[None] | None = None
        self._sending: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._taking = asyncio.create_task(self._take(), name="delivery")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._taking and not self._taking.done():
            self._taking.cancel()
            await asyncio.wait([self._taking], timeout=1.0)
        # What is not out by then comes back when its lease has run out.
        if self._sending:
            await asyncio.wait(self._sending, timeout=_LAST_WORDS_S)
        for task in self._sending:
            task.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)

    async def _take(self) -> None:
        while True:
            try:
                item = await outbox.claim(self._channels) if len(self._sending) < _AT_ONCE else None
            except DatabaseError as error:
                log.warning("delivery: cannot read the outbox, trying again", error=type(error).__name__)
                item = None
            if item is None:
                await asyncio.sleep(self._every_s)
                continue
            task = asyncio.create_task(self._send(item))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def _send(self, item: Row) -> None:
        _TRIES.labels(item["kind"]).inc()
        structlog.contextvars.bind_contextvars(message=item["_id"])
        # A result that cannot be recorded is like one that never came: the message is tried again.
        with suppress(DatabaseError):
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    await self._channels[item["kind"]].send(item)
            except Withdrawn as reason:
                await outbox.withdrawn(item, str(reason))
            except NotTaken as error:
                log.warning("delivery: not taken", attempt=item["attempts"], reason=error.reason)
                await outbox.failed(item, error.reason, for_good=error.for_good)
            except TimeoutError:
                log.warning("delivery: no answer in time", attempt=item["attempts"])
                await outbox.failed(item, f"No answer within {_PATIENCE_S:g} s.")
            except DatabaseError:
                raise
            except Exception:  # a fault of ours: the log has it all, the admin is told that there is one
                log.exception("delivery: failed")
                await outbox.failed(item, "An error of the service; its log says more.")
            else:
                await outbox.delivered(item)


async def notice(item: Row) -> Notice:
    """Read what a message about an alert is about. Raises `Withdrawn` when the rule is gone."""
    alert = await raised.find(item["payload"]["alert"])
    if alert is None:
        raise Withdrawn("The alert is gone.")
    rule = (await rules.by_keys([alert["rule"]])).get(alert["rule"])
    agent = (await agents.by_keys([alert["agent"]])).get(alert["agent"])
    if rule is None or agent is None:
        raise Withdrawn("The rule has been deleted." if rule is None else "The agent is gone.")
    return Notice(alert, agent, rule)


async def recipient(item: Row) -> Row:
    """Read whom a message is for. Raises `Withdrawn` when they are no active admin any more."""
    person = await users.find(item["payload"]["user"])
    if person is None or not users.is_acting_admin(person):
        raise Withdrawn("This person is no active admin any more.")
    return person
