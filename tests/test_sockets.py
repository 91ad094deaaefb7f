"""graphql-transport-ws, frame by frame: what ends an operation, what ends the socket, and with which code."""

import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest

from auth.minting import Minting
from graph.language.nodes import decode
from models.keys import ApiKeyScope
from tests.client import Client
from tests.factories import Person
from tests.processes import Server

TYPENAME = "{ __typename }"
ALERTS = "subscription { thresholdAlerts { __typename } }"


# ---------------------------------------------------------------- handshake


async def test_another_protocol_is_not_spoken(client: Client) -> None:
    async with client.socket(protocols=["graphql-ws"]) as socket:
        closed = await socket.until_closed()

    assert closed.code == 4406


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "nonsense"])
async def test_a_foreign_page_gets_no_socket(client: Client, user: Person, origin: str) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        async with client.socket(Origin=origin, Cookie=f"agenthub={user.access_token}"):
            pass

    assert refused.value.status == 403


async def test_our_own_page_gets_a_socket(client: Client) -> None:
    async with client.socket(Origin=client.url.removesuffix("/graphql")) as socket:
        await socket.initialise()


async def test_a_silent_client_is_closed(client: Client) -> None:
    async with client.socket() as socket:
        closed = await socket.until_closed()

    assert closed.code == 4408


async def test_a_second_init_closes(client: Client) -> None:
    async with client.socket() as socket:
        await socket.initialise()
        await socket.send({"type": "connection_init"})

        assert (await socket.until_closed()).code == 4429


async def test_subscribing_before_init_closes(client: Client) -> None:
    async with client.socket() as socket:
        await socket.subscribe("1", TYPENAME)

        assert (await socket.until_closed()).code == 4401


@pytest.mark.parametrize("value", ["Bearer nonsense", "nonsense", "Bearer ", "Basic YTpi"])
async def test_bad_credentials_close(client: Client, value: str) -> None:
    async with client.socket() as socket:
        await socket.send({"type": "connection_init", "payload": {"authorization": value}})

        assert (await socket.until_closed()).code == 4403


@pytest.mark.parametrize("name", ["authorization", "Authorization", "AUTHORIZATION"])
async def test_a_token_in_the_init_signs_in(client: Client, user: Person, name: str) -> None:
    async with client.socket() as socket:
        await socket.send({"type": "connection_init", "payload": {name: f"Bearer {user.access_token}"}})
        assert await socket.receive() == {"type": "connection_ack"}
        await socket.subscribe("1", "{ me { email } }")

        assert await anext(socket.events("1")) == {"me": {"email": user.email}}


async def test_the_cookie_signs_in(client: Client, user: Person) -> None:
    async with client.socket(Cookie=f"agenthub={user.access_token}") as socket:
        await socket.initialise()
        await socket.subscribe("1", "{ me { email } }")

        assert await anext(socket.events("1")) == {"me": {"email": user.email}}


async def test_a_key_that_expires_closes_its_sockets(client: Client, user: Person) -> None:
    now = datetime.now(UTC)
    _, secret = await Minting().mint_for(
        decode(user.id, "User"),
        {"name": "short", "scopes": [ApiKeyScope.READ], "expires_at": now + timedelta(seconds=1.5)},
        is_admin=False,
        now=now,
    )

    async with client.socket() as socket:
        await socket.initialise(secret)
        await socket.subscribe("1", ALERTS)

        assert (await socket.until_closed()).code == 4401


# ---------------------------------------------------------------- frames


@pytest.mark.parametrize(
    "frame",
    [
        "[]",
        '"s"',
        "null",
        "1",
        "{",
        "",
        "{}",
        '{"type": 1}',
        '{"type": "nonsense"}',
        '{"type": "connection_ack"}',
        '{"type": "next", "id": "1", "payload": {}}',
        '{"type": "ping", "payload": []}',
        '{"type": "connection_init", "payload": "x"}',
        '{"type": "subscribe", "id": "1"}',
        '{"type": "subscribe", "id": "1", "payload": null}',
        '{"type": "subscribe", "id": "1", "payload": []}',
        '{"type": "subscribe", "id": "1", "payload": {}}',
        '{"type": "subscribe", "id": "1", "payload": {"query": 1}}',
        '{"type": "subscribe", "id": 1, "payload": {"query": "{ __typename }"}}',
        '{"type": "subscribe", "id": "", "payload": {"query": "{ __typename }"}}',
        '{"type": "subscribe", "payload": {"query": "{ __typename }"}}',
        '{"type": "subscribe", "id": "1", "payload": {"query": "{ __typename }", "variables": []}}',
        '{"type": "subscribe", "id": "1", "payload": {"query": "{ __typename }", "operationName": 1}}',
        '{"type": "complete"}',
        '{"type": "complete", "id": 1}',
        '{"type": "pong", "payload": "\\ud800"}',
        "[" * 20_000,
    ],
    ids=lambda frame: frame[:60],
)
@pytest.mark.parametrize("ready", [False, True], ids=["before init", "after init"])
async def test_a_broken_frame_closes_with_a_code(client: Client, frame: str, *, ready: bool) -> None:
    async with client.socket() as socket:
        if ready:
            await socket.initialise()
        await socket.send(frame)

        assert (await socket.until_closed()).code == 4400


async def test_a_binary_frame_closes_with_a_code(client: Client) -> None:
    async with client.socket() as socket:
        await socket.raw.send_bytes(json.dumps({"type": "connection_init"}).encode())

        assert (await socket.until_closed()).code == 4400


@pytest.mark.parametrize("payload", [{}, {"payload": None}, {"payload": {"a": [1]}}])
async def test_a_ping_is_answered_with_its_payload(client: Client, payload: dict[str, Any]) -> None:
    async with client.socket() as socket:
        await socket.send({"type": "ping", **payload})

        assert await socket.receive() == {"type": "pong", **payload}


async def test_a_null_payload_is_no_payload(client: Client) -> None:
    async with client.socket() as socket:
        await socket.send({"type": "connection_init", "payload": None})

        assert await socket.receive() == {"type": "connection_ack"}


# ---------------------------------------------------------------- operations


async def test_queries_and_mutations_run_too(client: Client) -> None:
    async with client.socket() as socket:
        await socket.initialise()
        for key, document, name in (("1", TYPENAME, "Query"), ("2", "mutation { __typename }", "Mutation")):
            await socket.subscribe(key, document)

            assert await socket.receive() == {"id": key, "type": "next", "payload": {"data": {"__typename": name}}}
            assert await socket.receive() == {"id": key, "type": "complete"}


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ("{", "GRAPHQL_PARSE_FAILED"),
        ("", "BAD_USER_INPUT"),
        ("{ nothing }", "GRAPHQL_VALIDATION_FAILED"),
        ("query A { __typename } query B { __typename }", "BAD_USER_INPUT"),
        ("query ($skip: Boolean!) { __typename @skip(if: $skip) }", "BAD_USER_INPUT"),
        (ALERTS, "UNAUTHENTICATED"),
    ],
)
async def test_what_cannot_run_ends_alone(client: Client, document: str, code: str) -> None:
    async with client.socket() as socket:
        await socket.initialise()
        await socket.subscribe("bad", document)

        frame = await socket.receive()
        assert (frame["id"], frame["type"]) == ("bad", "error")
        assert [error["extensions"]["code"] for error in frame["payload"]] == [code]
        # Its id is free again, and the socket lives.
        await socket.subscribe("bad", TYPENAME)
        assert (await socket.receive())["payload"] == {"data": {"__typename": "Query"}}


async def test_an_id_in_use_closes(client: Client, user: Person) -> None:
    async with client.socket() as socket:
        await socket.initialise(user.access_token)
        await socket.subscribe("1", ALERTS)
        await socket.subscribe("1", ALERTS)

        assert (await socket.until_closed()).code == 4409


async def test_an_id_is_free_again_after_complete(client: Client, user: Person) -> None:
    async with client.socket() as socket:
        await socket.initialise(user.access_token)
        for _ in range(3):
            await socket.subscribe("1", ALERTS)
            await socket.complete("1")
        await socket.complete("never was")
        await socket.subscribe("1", TYPENAME)

        assert await anext(socket.events("1")) == {"__typename": "Query"}


async def test_a_socket_carries_a_hundred_operations_and_no_more(client: Client, user: Person) -> None:
    async with client.socket() as socket:
        await socket.initialise(user.access_token)
        for number in range(101):
            await socket.subscribe(str(number), ALERTS)

        frame = await socket.receive()
        assert (frame["id"], frame["type"]) == ("100", "error")
        assert [error["extensions"]["code"] for error in frame["payload"]] == ["RATE_LIMITED"]
        await socket.complete("0")
        await socket.subscribe("100", TYPENAME)
        assert await anext(socket.events("100")) == {"__typename": "Query"}


async def test_a_client_that_leaves_takes_nothing_with_it(client: Client, user: Person) -> None:
    async with client.socket() as socket:
        await socket.initialise(user.access_token)
        await socket.subscribe("1", ALERTS)

    assert await client.query(TYPENAME) == {"__typename": "Query"}


async def test_a_frame_too_large_closes(client: Client) -> None:
    async with client.socket() as socket:
        await socket.initialise()
        # The connection may be gone before all of it is sent.
        with suppress(ConnectionError):
            await socket.send({"type": "ping", "payload": {"text": "x" * 5_000_000}})

        assert (await socket.until_closed()).code in {1009, 1006}


# ---------------------------------------------------------------- noise


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(b"\x89\x80\x00\x00\x00\x00", id="pings"),
        pytest.param(b"\x8a\x80\x00\x00\x00\x00", id="pongs"),
        pytest.param(b"\x00\x80\x00\x00\x00\x00", id="empty fragments"),
    ],
)
async def test_a_socket_that_sends_nothing_but_noise_is_closed(client: Client, frame: bytes) -> None:
    async with client.socket() as socket:
        await socket.initialise()
        # aiohttp sends no such frames by itself.
        transport: Any = socket.raw._writer.transport  # noqa: SLF001
        # A message that is not at its end yet, for what follows to go on with.
        transport.write(b"\x01\x80\x00\x00\x00\x00" * (frame[0] == 0) + frame * 1000)

        assert (await socket.until_closed()).code == 1008


async def test_a_ping_that_nests_deeper_than_can_be_written_is_answered_all_the_same(client: Client) -> None:
    async with client.socket() as socket:
        await socket.send('{"type": "ping", "payload": {"a": ' + "[" * 400 + "]" * 400 + "}}")

        assert await socket.receive() == {"type": "pong"}


async def test_opening_sockets_is_counted_like_requests(client: Client, server: Server, mongodb_uri: str) -> None:
    async with Server(mongodb_uri, **server.settings | {"REQUESTS_PER_MINUTE_SIGNED_OUT": "20"}) as another:
        codes = []
        for _ in range(30):
            async with Client(client.session, another.graphql).socket() as socket:
                await socket.send({"type": "connection_init", "payload": {"authorization": "Bearer ahk_nonsense"}})
                codes.append((await socket.until_closed()).code)

    assert codes[:20] == [4403] * 20
    assert 1013 in codes[20:]
