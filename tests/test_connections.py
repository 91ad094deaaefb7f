"""Open streams end with what opened them, on every process, and keep to new rights."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta

import pytest

from models.keys import ApiKey
from models.store import database
from tests import factories
from tests.client import Client, GraphQLErrors
from tests.factories import PASSWORD, Person
from tests.processes import Server
from tests.test_alerts import rule
from tests.test_keys import REVOKE, mint
from tests.test_sockets import ALERTS
from tests.test_usage import collect, event
from tests.test_users import CHANGE, UPDATE


@pytest.fixture(scope="module")
async def another(server: Server, mongodb_uri: str) -> AsyncIterator[Server]:
    """Run a second process beside the first."""
    async with Server(mongodb_uri, **server.settings) as running:
        yield running


PATIENCE_SECONDS = 10


async def all_end(client: Client, another: Server, token: str, *, after: Callable[[], Awaitable[object]]) -> None:
    """Open a socket and an event stream on each of two processes, and see all four end after something."""
    async with AsyncExitStack() as stack:
        sockets, streams = [], []
        for url in (client.url, another.graphql):
            there = Client(client.session, url, token=token)
            socket = await stack.enter_async_context(there.socket())
            await socket.initialise(token)
            await socket.subscribe("1", ALERTS)
            await socket.subscribe("2", "{ __typename }")
            assert await anext(socket.events("2")) == {"__typename": "Query"}
            sockets.append(socket)
            streams.append(await stack.enter_async_context(there.stream(ALERTS)))

        await after()

        async with asyncio.timeout(PATIENCE_SECONDS):
            closed = [await socket.until_closed() for socket in sockets]
            heard = [[event async for event in stream.events()] for stream in streams]
    assert [each.code for each in closed] == [4401, 4401]
    for events in heard:
        assert [name for name, _ in events] == ["next", "complete"]
        assert events[0][1]["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"


async def test_signing_out_ends_streams(client: Client, user: Person, another: Server) -> None:
    await all_end(
        client, another, user.access_token, after=lambda: user.client.query("mutation { logout { success } }")
    )


async def test_a_new_password_ends_the_streams_of_other_sessions(client: Client, user: Person, another: Server) -> None:
    here = await factories.sign_in(client, email=user.email)
    change = {"currentPassword": PASSWORD, "newPassword": "a better horse"}

    async with client.socket() as mine:
        await mine.initialise(here.access_token)
        await all_end(client, another, user.access_token, after=lambda: here.client.query(CHANGE, input=change))
        await mine.subscribe("1", "{ me { email } }")
        assert await anext(mine.events("1")) == {"me": {"email": user.email}}


async def test_shutting_somebody_out_ends_their_streams(
    client: Client, user: Person, admin: Person, another: Server
) -> None:
    out = {"user": user.id, "active": False}

    await all_end(client, another, user.access_token, after=lambda: admin.client.query(UPDATE, input=out))


async def test_shutting_somebody_out_ends_the_streams_of_their_keys(
    client: Client, user: Person, admin: Person, another: Server
) -> None:
    key, _ = await mint(user, "READ")
    out = {"user": user.id, "active": False}

    await all_end(client, another, str(key.token), after=lambda: admin.client.query(UPDATE, input=out))


async def test_revoking_a_key_ends_its_streams(client: Client, user: Person, another: Server) -> None:
    key, identifier = await mint(user, "READ")

    await all_end(client, another, str(key.token), after=lambda: user.client.query(REVOKE, id=identifier))


async def test_a_key_that_expires_ends_its_streams(client: Client, user: Person, another: Server) -> None:
    key, _ = await mint(user, "READ")
    soon = datetime.now(UTC) + timedelta(seconds=2)
    await database.collection(ApiKey).update_many({}, {"$set": {"expires_at": soon}})

    async def nothing() -> None:
        pass

    await all_end(client, another, str(key.token), after=nothing)


async def test_an_open_socket_keeps_to_new_rights(client: Client, admin: Person) -> None:
    other = await factories.sign_in_admin(client, email="second@example.com")

    async with client.socket() as socket:
        await socket.initialise(admin.access_token)
        await socket.subscribe("1", "{ users { totalCount } }")
        assert await anext(socket.events("1"))
        await other.client.query(UPDATE, input={"user": admin.id, "role": "USER"})

        async def until_refused() -> None:
            for number in range(2, 1000):
                await socket.subscribe(str(number), "{ users { totalCount } }")
                await anext(socket.events(str(number)))
                await asyncio.sleep(0.05)

        with pytest.raises(GraphQLErrors) as caught:
            await asyncio.wait_for(until_refused(), PATIENCE_SECONDS)
        assert caught.value.code == "FORBIDDEN"
        await socket.subscribe("last", "{ me { role } }")
        assert await anext(socket.events("last")) == {"me": {"role": "USER"}}


async def test_what_an_open_subscription_tells_keeps_to_new_rights(client: Client, admin: Person) -> None:
    other = await factories.sign_in_admin(client, email="second@example.com")
    key, _ = await mint(admin, "READ", "MANAGE")
    await rule(other, name="Watched", threshold="100")
    asked = "subscription { thresholdAlerts { rule { name } deliveries { id } } }"
    async with (
        client.socket() as mine,
        client.socket() as keys,
        Client(client.session, client.url, token=admin.access_token).stream(asked) as stream,
    ):
        for socket, token in ((mine, admin.access_token), (keys, str(key.token))):
            await socket.initialise(token)
            await socket.subscribe("1", asked)
            await socket.send({"type": "ping"})
            assert (await socket.receive())["type"] == "pong"
        await other.client.query(UPDATE, input={"user": admin.id, "role": "USER"})
        async with asyncio.timeout(PATIENCE_SECONDS):
            for number in range(1000):
                await mine.subscribe(f"probe {number}", "{ users { totalCount } }")
                probe = await mine.receive()
                if probe["payload"].get("errors"):
                    break
                await mine.receive()
                await asyncio.sleep(0.05)
            await asyncio.sleep(1.0)
        while (await mine.receive())["type"] != "complete":
            pass

        await collect(other.client, event("1", promptTokens=150))

        told = [
            (await anext(mine.events("1")))["thresholdAlerts"],
            (await anext(keys.events("1")))["thresholdAlerts"],
            (await anext(stream.events()))[1]["data"]["thresholdAlerts"],
        ]
    assert [each["rule"] for each in told] == [None] * 3
