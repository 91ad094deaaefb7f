"""Messages to agents with an endpoint: posted, signed, in order, tried again, given up, one at a time."""

import asyncio
import base64
import hashlib
import hmac
import json
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from models.store.database import Database
from tests.client import Client
from tests.listening import listening
from tests.processes import Server
from tests.talking import KILL, Cast, apart

NAME = "posting_test"
SECRET = "query ($agent: AgentBy!) { agent(by: $agent) { endpointSecret } }"
DELIVERY = "query ($id: ID!) { node(id: $id) { ... on Message { delivery { status attempts error deliveredAt } } } }"
PATIENCE_SECONDS = 30


@dataclass
class Endpoint:
    """Plays an agent behind an endpoint; `answers` says what to do with the next posts, then it takes all."""

    url: str = ""
    answers: list[int | asyncio.Event] = field(default_factory=list)
    posts: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    busy: Counter[str] = field(default_factory=Counter)
    most_at_once: int = 0
    arrived: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def take(self, request: web.Request) -> web.Response:
        """Take one post; an event holds its answer back."""
        body = await request.read()
        said = json.loads(body)["data"]
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        self.busy[said["thread"]] += 1
        self.most_at_once = max(self.most_at_once, self.busy[said["thread"]])
        async with self.arrived:
            self.posts.append(said)
            self.arrived.notify_all()
        answer = self.answers.pop(0) if self.answers else 200
        try:
            if isinstance(answer, asyncio.Event):
                await answer.wait()
                return web.Response(status=200)
            return web.Response(status=answer, headers={"Location": f"{self.url}/x"} if answer == 302 else {})
        finally:
            self.busy[said["thread"]] -= 1

    async def until(self, count: int) -> None:
        """Wait until so many posts have come."""
        async with asyncio.timeout(PATIENCE_SECONDS), self.arrived:
            await self.arrived.wait_for(lambda: len(self.posts) >= count)


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    """Run an endpoint on a real socket."""
    made = Endpoint()
    async with listening(made.take) as made.url:
        yield made


@pytest.fixture(scope="module")
async def servers(mongodb_uri: str, bound: Database) -> AsyncIterator[list[Server]]:
    """Run two servers that deliver from one database of their own."""
    settings = {
        "MESSAGE_ATTEMPTS": "3",
        "MESSAGE_RETRY_SECONDS": "0.05",
        "MONGODB_DBNAME": NAME,
        "SECRET_KEY": "0123456789abcdef0123456789abcdef",
        "WEBHOOKS_TO_PRIVATE_ADDRESSES": "true",
    }
    async with Server(mongodb_uri, **settings) as first, Server(mongodb_uri, **settings) as second:
        yield [first, second]
    await bound.client.drop_database(NAME)


@pytest.fixture
async def cast(servers: list[Server], store: Database, session: aiohttp.ClientSession, endpoint: Endpoint) -> Cast:
    """Give an agent with an endpoint, and one without."""
    cast = await apart(store, Client(session, servers[0].graphql), NAME)
    await cast.add("Mouth", "Ear")
    await cast.declare("Mouth", peers=("Ear",))
    await cast.declare("Ear", endpoint=f"{endpoint.url}/messages")
    return cast


async def until(cast: Cast, message: dict[str, Any], status: str) -> dict[str, Any]:
    """Wait until a message has come so far."""
    found: dict[str, Any] = {}
    for _ in range(PATIENCE_SECONDS * 20):
        found = (await cast.boss.client.query(DELIVERY, id=message["id"]))["node"]["delivery"]
        if found["status"] == status:
            return found
        await asyncio.sleep(0.05)
    raise AssertionError(found)


async def test_a_message_is_posted_signed_and_taken_by_a_status_of_success(cast: Cast, endpoint: Endpoint) -> None:
    sent = await cast.send("Mouth", "Ear", {"n": [1, None, "é"]}, thread={"key": "case"})

    found = await until(cast, sent, "DELIVERED")

    assert found["attempts"] == 1
    assert endpoint.posts == [
        {
            "message": sent["id"],
            "thread": sent["thread"]["id"],
            "sender": {"id": cast.ids["Mouth"], "name": "Mouth"},
            "senderName": "Mouth",
            "recipient": {"id": cast.ids["Ear"], "name": "Ear"},
            "payloadType": "task",
            "payload": {"n": [1, None, "é"]},
            "depth": 0,
            "attempt": 1,
        }
    ]
    secret = (await cast.boss.client.query(SECRET, agent={"name": "Ear"}))["agent"]["endpointSecret"]
    key = base64.b64decode(secret.removeprefix("whsec_"))
    headers = endpoint.headers[0]
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + endpoint.bodies[0]
    expected = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert (await cast.clients["Mouth"].query(SECRET, agent={"name": "Ear"}))["agent"]["endpointSecret"] is None
    assert (await cast.boss.client.query(SECRET, agent={"name": "Mouth"}))["agent"]["endpointSecret"] is None


async def test_messages_of_a_thread_are_posted_one_after_the_other(cast: Cast, endpoint: Endpoint) -> None:
    endpoint.answers = [500, 200, 503]
    async with asyncio.TaskGroup() as sending:
        for thread in range(3):
            sending.create_task(_send_all(cast, thread))

    await endpoint.until(32)

    for thread in range(3):
        taken = [post["payload"]["n"] for post in endpoint.posts if post["payload"]["thread"] == thread]
        # Only those that were refused come twice, and before what follows them.
        assert list(dict.fromkeys(taken)) == list(range(10))
        assert taken == sorted(taken)
    assert endpoint.most_at_once == 1
    assert Counter(post["message"] for post in endpoint.posts).total() == 32
    await _settled(cast)


async def _send_all(cast: Cast, thread: int) -> None:
    for number in range(10):
        await cast.send("Mouth", "Ear", {"n": number, "thread": thread}, thread={"key": f"case {thread}"})


async def _settled(cast: Cast) -> None:
    for _ in range(PATIENCE_SECONDS * 20):
        if (await cast.look("Ear"))["queueDepth"] == 0:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(await cast.look("Ear"))


@pytest.mark.parametrize(
    ("answers", "status", "attempts", "error"),
    [
        ([500, 302], "DELIVERED", 3, None),
        ([500, 302, 404], "FAILED", 3, "The receiver answered with status 404."),
        ([410], "FAILED", 1, "The receiver answered with status 410."),
    ],
)
async def test_what_is_not_taken_is_posted_again_until_it_is_given_up(
    *, cast: Cast, endpoint: Endpoint, answers: list[int | asyncio.Event], status: str, attempts: int, error: str | None
) -> None:
    endpoint.answers = answers

    sent = await cast.inject("Ear", {"n": 1})
    found = await until(cast, sent, status)

    assert (found["attempts"], found["error"]) == (attempts, error)
    assert len({headers["webhook-id"] for headers in endpoint.headers}) == 1
    assert [post["attempt"] for post in endpoint.posts] == list(range(1, attempts + 1))
    assert (await cast.look("Ear"))["state"] == ("ERROR" if status == "FAILED" else "IDLE")


async def test_a_paused_agent_is_posted_nothing_until_it_is_resumed(cast: Cast, endpoint: Endpoint) -> None:
    await cast.pause("Ear")
    for number in range(3):
        last = await cast.send("Mouth", "Ear", {"n": number}, thread={"key": "case"})
    # Another agent's messages go out meanwhile, by the same workers.
    await cast.add("Nose")
    await cast.declare("Nose", endpoint=f"{endpoint.url}/nose")
    await until(cast, await cast.inject("Nose", {}), "DELIVERED")
    assert [post["recipient"]["name"] for post in endpoint.posts] == ["Nose"]

    await cast.resume("Ear")

    await until(cast, last, "DELIVERED")
    assert [post["payload"].get("n") for post in endpoint.posts] == [None, 0, 1, 2]


async def test_a_killed_thread_is_posted_no_more(cast: Cast, endpoint: Endpoint) -> None:
    answered = asyncio.Event()
    endpoint.answers = [answered]
    sent = [await cast.send("Mouth", "Ear", {"n": number}, thread={"key": "case"}) for number in range(2)]
    await endpoint.until(1)

    await cast.boss.client.query(KILL, thread=sent[0]["thread"]["id"])
    answered.set()
    other = await cast.inject("Ear", {})
    await until(cast, other, "DELIVERED")

    assert [(await until(cast, each, "WITHDRAWN"))["status"] for each in sent] == ["WITHDRAWN"] * 2
    assert [post["message"] for post in endpoint.posts] == [sent[0]["id"], other["id"]]


async def test_what_a_lost_process_held_is_posted_again(cast: Cast, endpoint: Endpoint) -> None:
    answered = asyncio.Event()
    endpoint.answers = [answered]
    sent = await cast.inject("Ear", {"n": 1})
    await endpoint.until(1)

    # As if whoever holds it were gone, and its lease over.
    past = datetime.now(UTC) - timedelta(seconds=1)
    await cast.handle["messages"].update_one({"status": "LEASED"}, {"$set": {"due": past}})
    found = await until(cast, sent, "DELIVERED")
    answered.set()

    assert found["attempts"] == 2
    assert [post["attempt"] for post in endpoint.posts] == [1, 2]


async def test_an_agent_that_loses_its_endpoint_fetches_what_it_was_not_posted(cast: Cast, endpoint: Endpoint) -> None:
    endpoint.answers = [500]
    await cast.pause("Ear")
    await cast.inject("Ear", {"n": 1})
    await cast.declare("Ear")
    await cast.resume("Ear")

    async with cast.inbox("Ear") as ear:
        assert await ear.take() == {"n": 1}
    assert endpoint.posts == []


async def test_an_endpoint_that_does_not_answer_holds_up_nobody_else(cast: Cast, endpoint: Endpoint) -> None:
    await cast.declare("Mouth", endpoint=f"{endpoint.url}/mouth")
    answering = asyncio.Event()
    endpoint.answers = [answering] * 1000
    # More than both servers post at once.
    for _ in range(6):
        await asyncio.gather(*(cast.inject("Ear", {}) for _ in range(40)))

    await cast.inject("Mouth", {})
    async with asyncio.timeout(PATIENCE_SECONDS), endpoint.arrived:
        await endpoint.arrived.wait_for(lambda: any(post["recipient"]["name"] == "Mouth" for post in endpoint.posts))
    assert len(endpoint.posts) <= 2 * 20 + 1

    answering.set()
    await endpoint.until(241)


async def test_an_endpoint_within_our_own_network_is_not_posted_to(
    mongodb_uri: str, store: Database, session: aiohttp.ClientSession, endpoint: Endpoint
) -> None:
    async with Server(mongodb_uri, MONGODB_DBNAME="posting_outward_test") as server:
        cast = await apart(store, Client(session, server.graphql), "posting_outward_test")
        await cast.add("Ear")
        await cast.declare("Ear", endpoint=endpoint.url)

        found = await until(cast, await cast.inject("Ear", {}), "FAILED")

    assert (found["attempts"], found["error"]) == (1, "The URL leads to an address that is not public.")
    assert endpoint.posts == []
    await store.client.drop_database("posting_outward_test")
