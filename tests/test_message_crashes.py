"""What is acknowledged is delivered, in order, and none is stuck: servers are killed while agents talk.

A failure tells its seed: run again with CRASH_SEED set to it, and the same load meets kills drawn from the same dice.
"""

import asyncio
import itertools
import json
import os
import random
import secrets
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
import pytest
from aiohttp import web
from pymongo.errors import PyMongoError

from models.store import sequences
from models.store.database import Database
from models.store.orphans import Orphans
from tests.client import Client, Closed, GraphQLErrors
from tests.factories import Person
from tests.listening import listening
from tests.processes import KILLS, Server
from tests.talking import Cast, apart

MESSAGES: Final = 50 * KILLS
SENDERS: Final = 8
THREADS: Final = 5
NAME: Final = "message_crashes_test"
LEASE_SECONDS: Final = 2
DEADLINE_SECONDS: Final = 360.0
SEND: Final = "mutation ($input: InjectMessageInput!) { injectMessage(input: $input) { message { id } } }"
READ: Final = 'subscription { inbox(agent: {name: "Inbox"}) { lease message { id payload } } }'
TAKEN: Final = """
mutation ($message: ID!, $lease: ID!) {
  acknowledgeMessage(input: {message: $message, lease: $lease}) { message { id } }
}
"""
# What a careful client sends again after, and, of its answers to messages, what it need not mind.
PASSING: Final = frozenset({"SERVICE_UNAVAILABLE"})
LOST: Final = frozenset({"SERVICE_UNAVAILABLE", "CONFLICT"})


@dataclass
class Load:
    """Senders and two agents, one that reads its inbox and one behind an endpoint; remembers what was said and came."""

    clients: Sequence[Client]
    sent: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    came: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    acknowledged: int = 0
    resent: int = 0
    ending: bool = False
    progress: asyncio.Condition = field(default_factory=asyncio.Condition)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Send for as long as the context lasts and at least so many; at its end all that was begun is acknowledged."""
        async with asyncio.TaskGroup() as senders:
            for number in range(SENDERS):
                senders.create_task(self.send(number))
            try:
                yield
            finally:
                self.ending = True

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[None]:
        """Read the inbox from both servers for as long as the context lasts."""
        readers = [asyncio.create_task(self.read(client)) for client in self.clients]
        try:
            yield
        finally:
            for reader in readers:
                reader.cancel()
            ends = await asyncio.gather(*readers, return_exceptions=True)
        assert [type(end) for end in ends] == [asyncio.CancelledError] * len(readers), ends

    async def more(self, count: int) -> None:
        """Wait until so many more messages have been acknowledged."""
        wanted = self.acknowledged + count
        async with self.progress:
            await self.progress.wait_for(lambda: self.acknowledged >= wanted)

    async def complete(self) -> None:
        """Wait until all that was acknowledged has come."""
        async with self.progress:
            await self.progress.wait_for(
                lambda: all(set(sent) <= set(self.came[queue]) for queue, sent in self.sent.items())
            )

    async def send(self, sender: int) -> None:
        """Send messages one after the other, each until it is acknowledged."""
        servers = itertools.cycle(self.clients)
        for number in itertools.count():
            queue = f"{sender} {number % THREADS}"
            values = {
                "to": {"name": ("Inbox", "Endpoint")[sender % 2]},
                "payloadType": "task",
                "payload": {"queue": queue},
                "thread": {"key": queue},
                "idempotencyKey": f"{sender} {number}",
            }
            self.sent[queue].append(await self.insist(servers, values))
            async with self.progress:
                self.acknowledged += 1
                self.progress.notify_all()
            if self.ending and self.acknowledged >= MESSAGES:
                return

    async def insist(self, servers: Iterator[Client], values: dict[str, Any]) -> str:
        """Send a message until it is acknowledged, and give its id."""
        while True:
            try:
                data = await next(servers).query(SEND, input=values)
            except (aiohttp.ClientError, GraphQLErrors) as error:
                _must_be(error, PASSING)
                self.resent += 1
                await _back_off()
            else:
                identifier: str = data["injectMessage"]["message"]["id"]
                return identifier

    async def arrive(self, queue: str, message: str) -> None:
        """Note that a message has come."""
        async with self.progress:
            self.came[queue].append(message)
            self.progress.notify_all()

    async def take(self, request: web.Request) -> web.Response:
        """Be the agent behind the endpoint."""
        said = json.loads(await request.read())["data"]
        await self.arrive(said["payload"]["queue"], said["message"])
        return web.Response()

    async def read(self, client: Client) -> None:
        """Be the agent that reads its inbox, and comes back when its server is gone."""
        while True:
            try:
                async with client.subscribe(READ) as events:
                    async for event in events:
                        await self.answer(client, event["inbox"])
            except (aiohttp.ClientError, TimeoutError, Closed, GraphQLErrors) as error:
                _must_be(error, LOST)
            await _back_off()

    async def answer(self, client: Client, item: dict[str, Any]) -> None:
        """Take a message."""
        await self.arrive(item["message"]["payload"]["queue"], item["message"]["id"])
        await client.query(TAKEN, message=item["message"]["id"], lease=item["lease"])


def _must_be(error: Exception, codes: Collection[str]) -> None:
    """See that an error is an absence, or says one of these codes."""
    assert not isinstance(error, GraphQLErrors) or set(error.codes) <= set(codes), error


async def _back_off() -> None:
    """Be a client that waits a little before it tries again."""
    await asyncio.sleep(0.02)


async def kill(server: Server, load: Load, dice: random.Random) -> None:
    """Kill a server again and again, each time after some messages more."""
    for _ in range(KILLS // 2):
        await load.more(dice.randrange(40))
        for _ in range(dice.randrange(300)):
            await asyncio.sleep(0)
        await server.kill()
        await server.start()


@pytest.mark.timeout(DEADLINE_SECONDS + 20)
async def test_killed_servers_deliver_every_acknowledged_message_in_order(
    mongodb_uri: str, store: Database, session: aiohttp.ClientSession
) -> None:
    seed = int(os.environ.get("CRASH_SEED") or secrets.randbelow(2**32))
    dice = random.Random(seed)
    settings = {
        "MESSAGE_LEASE_SECONDS": str(LEASE_SECONDS),
        # A kill may cost any message one try.
        "MESSAGE_ATTEMPTS": "100",
        "MESSAGE_RETRY_SECONDS": "0.05",
        "MONGODB_DBNAME": NAME,
        "REQUESTS_PER_MINUTE": "0",
        "WEBHOOKS_TO_PRIVATE_ADDRESSES": "true",
    }
    load = Load([])
    try:
        async with (
            asyncio.timeout(DEADLINE_SECONDS),
            Server(mongodb_uri, **settings) as first,
            Server(mongodb_uri, **first.settings) as second,
            listening(load.take) as url,
        ):
            cast = await apart(store, Client(session, first.graphql), NAME)
            await cast.add("Inbox", "Endpoint")
            await cast.declare("Endpoint", endpoint=url)
            load.clients = [cast.boss.client, Client(session, second.graphql, cast.boss.access_token)]
            async with load.reading():
                async with load.running():
                    await asyncio.gather(
                        *(kill(server, load, random.Random(dice.random())) for server in (first, second))
                    )
                async with asyncio.timeout(60):
                    await load.complete()
                for name in ("Inbox", "Endpoint"):
                    await _is_idle(cast, name)

            assert load.acknowledged >= MESSAGES
            # Nothing is stored that was not acknowledged, and whatever came twice came before what follows it.
            for queue, sent in load.sent.items():
                assert list(dict.fromkeys(load.came[queue])) == sent
            assert await cast.handle["messages"].count_documents({}) == load.acknowledged
            assert await cast.handle["messages"].count_documents({"status": {"$ne": "DELIVERED"}}) == 0
    except BaseException as error:
        error.add_note(f"CRASH_SEED={seed}: {load.acknowledged} acknowledged, {load.resent} times sent again")
        raise
    finally:
        await store.client.drop_database(NAME)


async def _is_idle(cast: Cast, name: str) -> None:
    """Wait until the last answer is recorded, and see that nothing is left."""
    for _ in range(600):
        seen = await cast.look(name)
        if not seen["queueDepth"]:
            break
        await asyncio.sleep(0.1)
    assert (seen["queueDepth"], seen["state"]) == (0, "IDLE")


async def test_what_a_dead_process_has_begun_is_in_nobodys_way_for_long(admin: Person, store: Database) -> None:
    """The server is to answer within ten seconds; MongoDB itself would wait for a minute, as it does by default."""
    mongod = store.client.admin
    before = await mongod.command({"getParameter": 1, "transactionLifetimeLimitSeconds": 1})
    await mongod.command({"setParameter": 1, "transactionLifetimeLimitSeconds": 60})
    cast = Cast(admin, store.handle)
    await cast.add("Ear")
    await cast.inject("Ear", {})
    try:
        async with store.client.start_session() as session:
            # As a process leaves it that is killed: begun, holding what every message needs, and never ended.
            await Orphans().begin(session)
            await session.start_transaction()
            await sequences.take("control", 1, session=session)

            await cast.inject("Ear", {}, idempotencyKey="in the way")

            with suppress(PyMongoError):
                await session.abort_transaction()
    finally:
        lifetime = before["transactionLifetimeLimitSeconds"]
        await mongod.command({"setParameter": 1, "transactionLifetimeLimitSeconds": lifetime})

    assert (await cast.look("Ear"))["queueDepth"] == 2
