"""E-mails and webhooks: each arrives, whatever fails on the way, and nothing waits for them."""

import asyncio
import base64
import hashlib
import hmac
import json
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from models.store import database, outbox
from models.store.database import Database, Session
from models.store.outbox import Message, OutboxItem
from tests import factories
from tests.client import Client
from tests.factories import PASSWORD, Person
from tests.listening import listening
from tests.processes import Server
from tests.test_agents import refusal
from tests.test_alerts import rule
from tests.test_usage import collect, event
from workers.webhooks import is_public

DELIVERIES = """
{ alerts(first: 100) { nodes { id agent { name } deliveries {
  id channel status attempts nextAttemptAt deliveredAt error user { email }
} } } }
"""
RETRY = "mutation ($id: ID!) { retryDelivery(input: {id: $id}) { delivery { status attempts } } }"
CREATE_ADMIN = "mutation ($input: CreateUserInput!) { createUser(input: $input) { user { id } } }"
SECRET = "{ alertRules { id webhookSecret } }"
PATIENCE_SECONDS = 40
NAME = "delivery_test"


@dataclass
class Receiver:
    """Plays Mailgun and receivers of webhooks: `answers` says what to do with the next requests, then it accepts."""

    url: str = ""
    answers: list[int | asyncio.Event] = field(default_factory=list)
    received: list[tuple[Mapping[str, str], Mapping[str, Any], bytes]] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    async def take(self, request: web.Request) -> web.Response:
        """Take one request; an event holds its answer back."""
        form = {k: str(v) for k, v in (await request.post()).items()}
        body = await request.read()
        self.received.append((dict(request.headers), form, body))
        self.arrived.set()
        answer = self.answers.pop(0) if self.answers else 200
        if isinstance(answer, asyncio.Event):
            await answer.wait()
            return web.Response(status=200)
        return web.Response(status=answer, headers={"Location": f"{self.url}/elsewhere"} if answer == 302 else {})


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """Run a receiver on a real socket."""
    made = Receiver()
    async with listening(made.take) as made.url:
        yield made


class Hub:
    """A server with mail set up, on a database of its own: of others that have none set up, one might be first."""

    def __init__(self, server: Server, store: Any, client: Client) -> None:  # Motor's database
        self.server = server
        self.store = store
        self.client = client
        self.boss: Person

    async def deliveries(self) -> list[dict[str, Any]]:
        """Read all deliveries, in the order of their keys."""
        nodes = (await self.boss.client.query(DELIVERIES))["alerts"]["nodes"]
        return [each for node in nodes[::-1] for each in node["deliveries"]]

    async def hurry(self) -> None:
        """Have pauses and leases be over."""
        await self.store["outbox"].update_many(
            {"status": {"$in": ["PENDING", "LEASED"]}}, {"$set": {"due": datetime.now(UTC) - timedelta(seconds=1)}}
        )

    async def until(self, *statuses: str, hurry: bool = False) -> list[dict[str, Any]]:
        """Wait until the deliveries have been tried and have these statuses."""
        found: list[dict[str, Any]] = []
        for _ in range(PATIENCE_SECONDS * 10):
            found = await self.deliveries()
            if sorted(each["status"] for each in found if each["attempts"]) == sorted(statuses):
                return found
            if hurry and "PENDING" in {each["status"] for each in found}:
                await self.hurry()
            await asyncio.sleep(0.1)
        raise AssertionError(f"{found}\n" + "\n".join(self.server.lines))


@pytest.fixture
async def hub(
    mongodb_uri: str, receiver: Receiver, bound: Database, session: aiohttp.ClientSession
) -> AsyncIterator[Hub]:
    """Run the server, with one admin."""
    await bound.client.drop_database(NAME)
    async with Server(
        mongodb_uri,
        MONGODB_DBNAME=NAME,
        MAILGUN_API_KEY="key-that-nobody-sees",
        MAILGUN_DOMAIN="mail.example.com",
        MAILGUN_BASE_URL=receiver.url,
        WEBHOOKS_TO_PRIVATE_ADDRESSES="true",
        ADMIN_EMAIL="boss@example.com",
        ADMIN_PASSWORD=PASSWORD,
    ) as server:
        made = Hub(server, bound.client[NAME], Client(session, server.graphql))
        made.boss = await factories.sign_in(made.client, email="boss@example.com")
        yield made
    await bound.client.drop_database(NAME)


async def another_admin(hub: Hub, email: str) -> str:
    """Add an admin and give their id."""
    values = {"email": email, "name": "Another", "password": PASSWORD, "role": "ADMIN"}
    made: str = (await hub.boss.client.query(CREATE_ADMIN, input=values))["createUser"]["user"]["id"]
    return made


async def spend(hub: Hub, *, agent: str = "Scout", key: str = "1") -> None:
    """Use more than the default rule's threshold."""
    await collect(hub.boss.client, event(key, agent={"name": agent}, promptTokens=200_000))


# ---------------------------------------------------------------- e-mail


async def test_each_admin_gets_one_email_that_says_what_happened(hub: Hub, receiver: Receiver) -> None:
    await another_admin(hub, "second@example.com")
    await factories.sign_up(hub.client, email="no-admin@example.com")

    await spend(hub)

    found = await hub.until("DELIVERED", "DELIVERED")
    assert [each["user"]["email"] for each in found] == ["boss@example.com", "second@example.com"]
    assert all(each["deliveredAt"] and each["attempts"] == 1 and each["error"] is None for each in found)
    forms = sorted((form for _, form, _ in receiver.received), key=lambda form: str(form["to"]))
    assert [form["to"] for form in forms] == ["boss@example.com", "second@example.com"]
    assert forms[0]["from"] == "AgentHub <noreply@mail.example.com>"
    assert forms[0]["subject"] == "Scout has reached 100 % of 100,000 tokens"
    assert "200,005 total tokens" in forms[0]["text"]
    headers = receiver.received[0][0]
    assert base64.b64decode(headers["Authorization"].removeprefix("Basic ")).decode() == "api:key-that-nobody-sees"
    assert len({form["h:Message-Id"] for form in forms}) == 2


async def test_an_email_comes_through_failures_and_a_receiver_that_hangs(hub: Hub, receiver: Receiver) -> None:
    hanging = asyncio.Event()
    receiver.answers = [500, 503, hanging]

    await spend(hub)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(receiver.received) < 3:
            await hub.hurry()
            await asyncio.sleep(0.2)
    # While Mailgun holds an answer back, collecting and reading go on.
    for number in range(20):
        await spend(hub, key=f"more {number}")
    assert not hanging.is_set()

    (sent,) = await hub.until("DELIVERED", hurry=True)
    assert sent["attempts"] == 4
    assert len({form["h:Message-Id"] for _, form, _ in receiver.received}) == 1
    hanging.set()


async def test_a_worker_killed_between_sending_and_recording_sends_the_same_again(hub: Hub, receiver: Receiver) -> None:
    hanging = asyncio.Event()
    receiver.answers = [hanging]
    await spend(hub)
    await asyncio.wait_for(receiver.arrived.wait(), PATIENCE_SECONDS)

    await hub.server.kill()
    hanging.set()
    await hub.server.start()
    assert [each["status"] for each in await hub.deliveries()] == ["LEASED"]
    await hub.hurry()

    (sent,) = await hub.until("DELIVERED")
    assert sent["attempts"] == 2
    first, second = [form for _, form, _ in receiver.received]
    assert first == second


async def test_what_is_given_up_says_why_and_can_be_sent_again(hub: Hub, receiver: Receiver) -> None:
    receiver.answers = [401]
    await spend(hub)
    (waiting,) = await hub.until("PENDING")
    assert waiting["error"] == "Mailgun answered with status 401."
    assert waiting["nextAttemptAt"]

    receiver.answers = [500]
    await hub.store["outbox"].update_many({}, {"$set": {"give_up_at": datetime.now(UTC)}})
    await hub.hurry()
    (failed,) = await hub.until("FAILED")
    assert (failed["error"], failed["nextAttemptAt"]) == ("Mailgun answered with status 500.", None)
    somebody = await factories.sign_up(hub.client, email="user@example.com")
    assert (await somebody.client.execute(RETRY, {"id": failed["id"]})).codes == ["FORBIDDEN"]
    assert (await somebody.client.query(DELIVERIES))["alerts"]["nodes"][0]["deliveries"] is None

    again = await hub.boss.client.query(RETRY, id=failed["id"])

    assert again["retryDelivery"]["delivery"] == {"status": "PENDING", "attempts": 0}
    await hub.until("DELIVERED")
    assert not [line for line in hub.server.lines if "key-that-nobody-sees" in line]


async def test_an_admin_who_is_none_any_more_gets_no_email(hub: Hub, receiver: Receiver) -> None:
    receiver.answers = [500]
    other = await another_admin(hub, "second@example.com")
    deactivate = "mutation ($input: UpdateUserInput!) { updateUser(input: $input) { user { active } } }"
    receiver.answers = [500, 500]
    await spend(hub)
    await hub.until("PENDING", "PENDING")

    await hub.boss.client.query(deactivate, input={"user": other, "active": False})
    await hub.hurry()

    found = await hub.until("DELIVERED", "WITHDRAWN")
    assert [each["error"] for each in found] == [None, "This person is no active admin any more."]


async def test_names_are_text_in_an_email_and_on_one_line(hub: Hub, receiver: Receiver) -> None:
    nasty = '<script>alert("x")</script> & Co\u2009Bcc: x@example.com'
    await spend(hub, agent=nasty)

    await hub.until("DELIVERED")

    form = receiver.received[0][1]
    assert "<script>" not in form["html"]
    assert "&lt;script&gt;" in form["html"]
    assert "&amp; Co" in form["html"]
    assert "\n" not in form["subject"]
    assert "\r" not in form["subject"]
    assert nasty.replace("\u2009", " ") in form["text"]


async def test_without_settings_nothing_is_sent_and_nothing_waits(admin: Person) -> None:
    await rule(admin, channels=["EMAIL"], threshold="1")
    await collect(admin.client, event("1"))

    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            nodes = (await admin.client.query(DELIVERIES))["alerts"]["nodes"]
            (found,) = nodes[0]["deliveries"]
            if found["status"] == "WITHDRAWN":
                break
            await asyncio.sleep(0.1)
    assert found["error"].startswith("E-mail is not set up here")


# ---------------------------------------------------------------- webhooks


def is_signed(secret: str, headers: Mapping[str, str], body: bytes) -> bool:
    """Check a signature as a receiver does who follows Standard Webhooks."""
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    key = base64.b64decode(secret.removeprefix("whsec_"))
    expected = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return expected in headers["webhook-signature"].split(" ")


async def test_two_processes_deliver_twenty_alerts_once_each(hub: Hub, receiver: Receiver, mongodb_uri: str) -> None:
    await rule(hub.boss, channels=["WEBHOOK"], webhookUrl=f"{receiver.url}/hook", threshold="1")
    secret = (await hub.boss.client.query(SECRET))["alertRules"][1]["webhookSecret"]
    async with Server(mongodb_uri, **hub.server.settings):
        await collect(hub.boss.client, *(event(f"{n}", agent={"name": f"Agent {n}"}) for n in range(20)))
        await hub.until(*["DELIVERED"] * 20)

    assert Counter(headers["webhook-id"] for headers, _, _ in receiver.received).most_common(1)[0][1] == 1
    assert len(receiver.received) == 20
    assert all(is_signed(secret, headers, body) for headers, _, body in receiver.received)
    assert not any(is_signed(secret, headers, body + b" ") for headers, _, body in receiver.received)
    told = [json.loads(body) for _, _, body in receiver.received]
    assert {each["type"] for each in told} == {"alert.raised"}
    assert {each["data"]["agent"]["name"] for each in told} == {f"Agent {n}" for n in range(20)}
    node = "query ($id: ID!) { node(id: $id) { ... on Alert { value threshold agent { id } } } }"
    first = told[0]["data"]
    assert (await hub.boss.client.query(node, id=first["alert"]))["node"] == {
        "value": first["value"],
        "threshold": first["threshold"],
        "agent": {"id": first["agent"]["id"]},
    }


async def test_a_repeat_of_a_webhook_carries_the_same_id(hub: Hub, receiver: Receiver) -> None:
    receiver.answers = [500]
    await rule(hub.boss, channels=["WEBHOOK"], webhookUrl=f"{receiver.url}/hook", threshold="1")

    await collect(hub.boss.client, event("1"))
    await hub.until("DELIVERED", hurry=True)

    first, second = [headers["webhook-id"] for headers, _, _ in receiver.received]
    assert first == second


async def test_redirects_are_not_followed(hub: Hub, receiver: Receiver) -> None:
    receiver.answers = [302]
    await rule(hub.boss, channels=["WEBHOOK"], webhookUrl=f"{receiver.url}/hook", threshold="1")

    await collect(hub.boss.client, event("1"))

    (waiting,) = await hub.until("PENDING")
    assert waiting["error"] == "The receiver answered with status 302; redirects are not followed."
    assert len(receiver.received) == 1


async def test_a_receiver_that_is_gone_is_given_up_at_once(hub: Hub, receiver: Receiver) -> None:
    receiver.answers = [410]
    await rule(hub.boss, channels=["WEBHOOK"], webhookUrl=f"{receiver.url}/hook", threshold="1")

    await collect(hub.boss.client, event("1"))

    (failed,) = await hub.until("FAILED")
    assert failed["attempts"] == 1


async def test_a_secret_outlives_a_new_secret_key_while_the_old_one_is_kept(
    hub: Hub, receiver: Receiver, mongodb_uri: str
) -> None:
    await rule(hub.boss, channels=["WEBHOOK"], webhookUrl=f"{receiver.url}/hook", threshold="1")
    secret = (await hub.boss.client.query(SECRET))["alertRules"][1]["webhookSecret"]
    old = hub.server.settings["SECRET_KEY"]
    await hub.server.stop()

    changed = hub.server.settings | {"SECRET_KEY": "another secret key of many bytes", "SECRET_KEY_OLDER": old}
    async with Server(mongodb_uri, **changed) as server:
        client = Client(hub.client.session, server.graphql, token=hub.boss.access_token)
        renewed = (await client.query(SECRET))["alertRules"][1]["webhookSecret"]
        await collect(client, event("1"))
        await asyncio.wait_for(receiver.arrived.wait(), PATIENCE_SECONDS)

    headers, _, body = receiver.received[0]
    assert renewed != secret
    assert is_signed(secret, headers, body)
    assert is_signed(renewed, headers, body)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "0.0.0.1", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "127.1"]
)
async def test_a_webhook_does_not_lead_inward(admin: Person, receiver: Receiver, host: str) -> None:
    url = f"http://{host}:{receiver.url.rpartition(':')[2]}/hook"
    await rule(admin, channels=["WEBHOOK"], webhookUrl=url, threshold="1")

    await collect(admin.client, event("1"))

    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            (found,) = (await admin.client.query(DELIVERIES))["alerts"]["nodes"][0]["deliveries"]
            if found["status"] == "FAILED":
                break
            assert found["status"] in {"PENDING", "LEASED"}
            assert found["error"] is None, found
            await asyncio.sleep(0.1)
    assert found["error"] in {"The URL leads to an address that is not public.", "The URL cannot be used."}
    assert receiver.received == []


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::", False),
        ("::ffff:10.0.0.1", False),
        ("2002:7f00:1::", False),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::5db8:d822", True),
    ],
)
def test_addresses_are_known_as_public_or_not(address: str, public: bool) -> None:  # a parameter of the table
    assert is_public(address) is public


# ---------------------------------------------------------------- the outbox


async def put(*keys: str) -> None:
    """Write messages of a kind that nobody else claims."""
    now = datetime.now(UTC) - timedelta(seconds=1)

    async def body(session: Session) -> None:
        await outbox.put([Message(key, "test", "TEST", {}) for key in keys], now=now, session=session)

    await database.transaction(OutboxItem, body)


async def test_who_claims_at_once_gets_another_message_each(store: Database) -> None:
    await put(*(f"m{number}" for number in range(20)))

    claimed = await asyncio.gather(*(outbox.claim(["TEST"]) for _ in range(25)))

    keys = [item["_id"] for item in claimed if item]
    assert sorted(keys) == sorted(f"m{number}" for number in range(20))


async def test_a_lease_that_ran_out_is_worth_nothing(store: Database) -> None:
    await put("m")
    slow = await outbox.claim(["TEST"])
    assert slow
    assert await outbox.claim(["TEST"]) is None
    await store.handle["outbox"].update_one({}, {"$set": {"due": datetime.now(UTC) - timedelta(seconds=1)}})
    quick = await outbox.claim(["TEST"])
    assert quick

    await outbox.delivered(slow)
    late = await outbox.find("m")
    await outbox.failed(quick, "$price: no such thing")
    after = await outbox.find("m")

    assert late
    assert late["status"] == "LEASED"
    assert after
    assert (after["status"], after["error"], after["attempts"]) == ("PENDING", "$price: no such thing", 2)
    assert timedelta(seconds=4) < after["due"] - datetime.now(UTC) < timedelta(seconds=11)


async def test_what_is_being_sent_cannot_be_asked_for_again(admin: Person, store: Database) -> None:
    await put("m")
    await outbox.claim(["TEST"])
    identifier = database.global_id("AlertDelivery", "m")

    error = await refusal(admin.client, RETRY, id=identifier)
    missing = await refusal(admin.client, RETRY, id=database.global_id("AlertDelivery", "none"))

    assert (error.code, error.field) == ("CONFLICT", "id")
    assert (missing.code, missing.field) == ("NOT_FOUND", "id")
