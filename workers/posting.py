"""Posts messages to agents that have an endpoint, signed; and has leases end that have run out."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
import orjson
import structlog

from models import agents
from models.alerts.signing import Signing
from models.errors import AgentHubError, ServiceUnavailable
from models.store.database import DatabaseError, Key, Row, global_id
from models.threads.messaging import Messaging
from workers import webhooks
from workers.delivery import NotTaken

log = structlog.get_logger()

_AT_ONCE: Final = 100
# So many of them to one agent: where nobody answers, the others go on.
_TO_ONE: Final = 20
_PATIENCE_S: Final = 10.0
_LAST_WORDS_S: Final = 2.0
_OF_THE_LEASE: Final = 0.8


class Posting:
    """Any number of processes do this; each message is leased to one of them. What a lost one held comes back."""

    def __init__(
        self, messaging: Messaging, session: aiohttp.ClientSession, signing: Signing, *, every_s: float = 1.0
    ) -> None:
        """`every_s`: how often to look for what other processes have left."""
        self._messaging = messaging
        self._session = session
        self._signing = signing
        self._every_s = every_s
        self._patience_s = min(_PATIENCE_S, messaging.lease_s * _OF_THE_LEASE)
        self._holder = Key()
        self._tasks: list[asyncio.Task[None]] = []
        self._sending: set[asyncio.Task[None]] = set()
        self._load: Counter[Key] = Counter()

    async def __aenter__(self) -> Self:
        self._tasks = [
            asyncio.create_task(self._always(self._take), name="posting"),
            asyncio.create_task(self._always(self._sweep), name="posting: leases"),
        ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        running = set(self._tasks)
        while running:
            for task in running:
                task.cancel()
            _, running = await asyncio.wait(running, timeout=1.0)
        # What is not out by then comes back when its lease has run out.
        if self._sending:
            await asyncio.wait(self._sending, timeout=_LAST_WORDS_S)
        for sending in self._sending:
            sending.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)

    async def _always(self, once: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await once()
            except (DatabaseError, ServiceUnavailable) as error:
                log.warning("posting: the database is away, trying again", error=type(error).__name__)
                await asyncio.sleep(self._every_s)

    async def _take(self) -> None:
        stirred = self._messaging.stirred
        stirred.clear()
        while len(self._sending) < _AT_ONCE:
            busy = [agent for agent, count in self._load.items() if count >= _TO_ONE]
            row = await self._messaging.hand_out(None, holder=self._holder, busy=busy)
            if row is None:
                break
            self._load[row["recipient"]] += 1
            task = asyncio.create_task(self._send(row))
            self._sending.add(task)
            task.add_done_callback(partial(self._sent, row["recipient"]))
        # Not wait_for: in Python 3.11 it loses a cancellation that meets the event, and the process would not stop.
        with suppress(TimeoutError):
            async with asyncio.timeout(self._every_s):
                await stirred.wait()

    def _sent(self, recipient: Key, task: asyncio.Task[None]) -> None:
        self._load -= Counter([recipient])
        self._sending.discard(task)
        self._messaging.stirred.set()

    async def _sweep(self) -> None:
        if not await self._messaging.sweep():
            await asyncio.sleep(self._every_s)

    async def _send(self, row: Row) -> None:
        structlog.contextvars.bind_contextvars(message=str(row["_id"]))
        answer: dict[str, Any] = {"lease": row["lease"], "agent": None}
        # A result that cannot be recorded is like one that never came: the message is posted again.
        try:
            try:
                async with asyncio.timeout(self._patience_s):
                    await self._post(row)
            except NotTaken as error:
                log.warning("posting: not taken", attempt=row["attempts"], reason=error.reason)
                await self._messaging.fail(row["_id"], **answer, error=error.reason, for_good=error.for_good)
            except TimeoutError:
                log.warning("posting: no answer in time", attempt=row["attempts"])
                await self._messaging.fail(row["_id"], **answer, error=f"No answer within {self._patience_s:g} s.")
            else:
                await self._messaging.acknowledge(row["_id"], **answer)
        except (DatabaseError, AgentHubError) as error:
            log.warning("posting: the result was not recorded", error=type(error).__name__)
        except Exception:  # the worker must outlive whatever one message does
            log.exception("posting: failed")

    async def _post(self, row: Row) -> None:
        found = await agents.by_keys([key for key in (row["recipient"], row["sender"]) if key is not None])
        recipient = found[row["recipient"]]
        url = (recipient.get("declared") or {}).get("endpoint")
        if recipient["deleted_at"] is not None:
            raise NotTaken("The agent was deleted.", for_good=True)
        if url is None:
            raise NotTaken("The agent has no endpoint any more.")
        body = orjson.dumps(_body(row, recipient, found.get(row["sender"])))
        signed = self._signing.headers(
            recipient["_id"], of="agent", message=str(row["_id"]), timestamp=int(time.time()), body=body
        )
        await webhooks.post(self._session, url, body=body, headers=signed)


def _body(row: Row, recipient: Row, sender: Row | None) -> Mapping[str, Any]:
    """Write a message: ids as in GraphQL. The same id comes with every try, so that a repeat can be told."""
    return {
        "type": "message",
        "timestamp": row["created_at"].isoformat().replace("+00:00", "Z"),
        "data": {
            "message": global_id("Message", row["_id"]),
            "thread": global_id("Thread", row["thread"]),
            "sender": _named(sender) if sender else None,
            "senderName": row["sender_name"],
            "recipient": _named(recipient),
            "payloadType": row["payload_type"],
            "payload": orjson.Fragment(row["payload"]),
            "depth": row["depth"],
            "attempt": row["attempts"],
        },
    }


def _named(agent: Row) -> Mapping[str, str]:
    return {"id": global_id("Agent", agent["_id"]), "name": agent["name"]}
