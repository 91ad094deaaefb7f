"""What the budget of a thread does to it: agents and people are told, it stops, a raised limit lets it go on."""

import asyncio
import json
from collections.abc import Awaitable
from datetime import UTC, datetime
from typing import Any

import pytest

from models import agents
from models.store import database
from models.store.database import Database, Key, Session
from models.threads import conversations, putting
from models.threads.conversations import Ref, Thread
from models.threads.putting import Draft
from tests.client import Client, GraphQLErrors
from tests.factories import Person
from tests.processes import Server
from tests.talking import INJECT, KILL, Cast
from tests.test_budgets import LIMIT, reserve, settle
from tests.test_keys import mint

CREATE = "mutation ($name: String!) { createAgent(input: {name: $name, discipline: CREATIVE}) { agent { id } } }"
THREAD = "query ($id: ID!) { thread(id: $id) { status closedReason budget { exhausted } } }"
ALERTS = """{ alerts(first: 100) { nodes {
  rule { id } agent { name } thread { id } metric window threshold percent value windowStart raisedAt } } }"""
LIVE = "subscription ($after: String) { thresholdAlerts(after: $after) { percent thread { id } } }"


async def talking(client: Client, *names: str, limit: int = 1000) -> str:
    """Open a thread in which the first agent has written to each of the others, and give its id."""
    for name in names:
        await client.query(CREATE, name=name)
    rows = [await agents.require(name) for name in names]
    ref = Ref(Key(), is_new=True)

    async def body(session: Session) -> None:
        for row in rows[1:]:
            thread = await conversations.open_now(ref, limit=limit, now=datetime.now(UTC), session=session)
            draft = Draft(
                key=Key(),
                sender=rows[0]["_id"],
                sender_name=names[0],
                recipient=row,
                payload_type="note",
                payload="{}",
                depth=0,
                parent=None,
                content=b"",
            )
            await putting.put(draft, thread, session=session)

    await database.transaction(Thread, body)
    return conversations.id_of(ref.thread)


async def spend(client: Client, thread: str, tokens: int, key: str, **more: object) -> None:
    """Reserve nearly nothing and settle more."""
    held = await reserve(client, thread, 1, key, **more)
    await settle(client, held["reservation"]["id"], tokens, 0)


async def told(store: Database) -> list[tuple[str, int, int, int]]:
    """Read what agents were told, in order: who, at what percent, how much is left, of what limit."""
    names = {row["_id"]: row["name"] async for row in store.handle["agents"].find()}
    cursor = store.handle["messages"].find({"sender_name": "system"}).sort("number", 1)
    said = [(names[row["recipient"]], json.loads(row["payload"])) async for row in cursor]
    return [(name, each["percent"], each["left"], each["limit"]) for name, each in said]


async def alerts(client: Client) -> list[dict[str, Any]]:
    """Read the alerts, oldest first."""
    found: list[dict[str, Any]] = (await client.query(ALERTS))["alerts"]["nodes"]
    return found[::-1]


async def test_agents_and_people_are_told_once_at_each_percent(user: Person, store: Database) -> None:
    thread = await talking(user.client, "Mouth", "Ear")

    for number, tokens in enumerate((700, 49, 1, 1, 160, 60)):
        await spend(user.client, thread, tokens, f"{number}")

    raised = await alerts(user.client)
    assert await told(store) == [
        (name, percent, left, 1000) for percent, left in ((75, 250), (90, 89), (95, 29)) for name in ("Mouth", "Ear")
    ]
    assert [(each["percent"], each["value"]) for each in raised] == [(75, "750"), (90, "911"), (95, "971")]
    assert all(each.pop("raisedAt") for each in raised)
    assert raised[0] == {
        "rule": None,
        "agent": {"name": "Mouth"},
        "thread": {"id": thread},
        "metric": "TOTAL_TOKENS",
        "window": "LIFETIME",
        "threshold": "1000",
        "percent": 75,
        "value": "750",
        "windowStart": None,
    }


async def test_an_alert_is_about_whose_spending_it_was(user: Person) -> None:
    thread = await talking(user.client, "Mouth", "Ear")

    await spend(user.client, thread, 800, "k", agent={"name": "Ear"})

    assert [(each["agent"]["name"], each["percent"]) for each in await alerts(user.client)] == [("Ear", 75)]


async def test_a_thread_without_agents_raises_no_alert_and_is_exhausted_all_the_same(user: Person) -> None:
    row = await conversations.open_now(conversations.named("nobody"), limit=10, now=datetime.now(UTC))
    thread = conversations.id_of(row["_id"])

    await spend(user.client, thread, 10, "k")

    assert await alerts(user.client) == []
    assert (await user.client.query(THREAD, id=thread))["thread"]["status"] == "EXHAUSTED"


async def test_a_crossing_is_told_once_however_many_cross_it_at_once(user: Person, store: Database) -> None:
    thread = await talking(user.client, "Mouth", "Ear")
    held = [await reserve(user.client, thread, 50, f"{number}") for number in range(20)]

    await asyncio.gather(*(settle(user.client, each["reservation"]["id"], 30, 20) for each in held for _ in range(2)))

    assert [each["percent"] for each in await alerts(user.client)] == [75, 90, 95, 100]
    assert [(name, percent) for name, percent, _, _ in await told(store)] == [
        (name, percent) for percent in (75, 90, 95, 100) for name in ("Mouth", "Ear")
    ]


async def test_an_exhausted_thread_stops_and_goes_on_when_its_limit_is_raised(admin: Person, store: Database) -> None:
    thread = await talking(admin.client, "Mouth", "Ear")

    await spend(admin.client, thread, 1000, "k")
    stopped = (await admin.client.query(THREAD, id=thread))["thread"]
    await admin.client.query(LIMIT, input={"thread": thread, "maxTokens": 2000})
    going_on = (await admin.client.query(THREAD, id=thread))["thread"]
    await spend(admin.client, thread, 600, "l")

    assert stopped == {
        "status": "EXHAUSTED",
        "closedReason": "Its token budget is used up.",
        "budget": {"exhausted": True},
    }
    assert going_on == {"status": "ACTIVE", "closedReason": None, "budget": {"exhausted": False}}
    # What the new limit took back is told again.
    assert [each["percent"] for each in await alerts(admin.client)] == [75, 90, 95, 100, 75]
    assert [(percent, limit) for name, percent, _, limit in await told(store) if name == "Ear"] == [
        (75, 1000),
        (90, 1000),
        (95, 1000),
        (100, 1000),
        (75, 2000),
    ]
    log = store.handle["control_events"].find({"kind": "THREAD", "status": {"$ne": "ACTIVE"}})
    assert [row["status"] async for row in log] == ["EXHAUSTED"]


async def test_a_lowered_limit_stops_at_once(admin: Person) -> None:
    thread = await talking(admin.client, "Mouth", "Ear")
    await spend(admin.client, thread, 500, "k")

    await admin.client.query(LIMIT, input={"thread": thread, "maxTokens": 500})

    assert (await admin.client.query(THREAD, id=thread))["thread"]["status"] == "EXHAUSTED"
    assert [each["percent"] for each in await alerts(admin.client)] == [75, 90, 95, 100]


async def test_alerts_of_budgets_are_heard_live(user: Person) -> None:
    thread = await talking(user.client, "Mouth", "Ear")
    await spend(user.client, thread, 800, "k")
    last = (await user.client.query("{ alerts { nodes { cursor } } }"))["alerts"]["nodes"][0]["cursor"]

    async with user.client.subscribe(LIVE, after=last) as events:
        hearing = asyncio.ensure_future(anext(events))
        await spend(user.client, thread, 100, "l")
        heard = await hearing

    assert heard["thresholdAlerts"] == {"percent": 90, "thread": {"id": thread}}


# ---------------------------------------------------------------- agents that talk

UPDATES = "subscription ($thread: ID!) { threadUpdates(thread: $thread) { type status thread { status } } }"
NODE = "query ($id: ID!) { node(id: $id) { id } }"
BUDGETS = "{ threadBudgets { totalCount } }"


@pytest.fixture
async def cast(admin: Person, store: Database) -> Cast:
    """Give two agents that talk, and one that does not."""
    made = Cast(admin, store.handle)
    await made.add("Mouth", "Ear", "Nose")
    await made.declare("Mouth", peers=("Ear",))
    await made.declare("Ear", peers=("Mouth",))
    return made


async def refused(sending: Awaitable[Any]) -> GraphQLErrors:
    """Have something refused, for one reason."""
    with pytest.raises(GraphQLErrors) as caught:
        await sending
    return caught.value


async def test_an_exhausted_thread_takes_no_message_until_its_limit_is_raised(cast: Cast) -> None:
    client = cast.boss.client
    thread = (await cast.send("Mouth", "Ear", {}))["thread"]["id"]
    await client.query(LIMIT, input={"thread": thread, "maxTokens": 1000})
    await reserve(client, thread, 100, "held")
    await spend(client, thread, 1000, "k")

    for sending in (
        cast.send("Mouth", "Ear", {}, thread={"id": thread}),
        cast.inject("Ear", {}, thread={"id": thread}),
    ):
        error = await refused(sending)
        extensions = error.errors[0]["extensions"]
        assert error.code == "BUDGET_EXHAUSTED"
        assert (extensions["limit"], extensions["spent"], extensions["reserved"]) == (1000, 1000, 100)
    await client.query(LIMIT, input={"thread": thread, "maxTokens": 2000})

    assert (await cast.send("Mouth", "Ear", {}, thread={"id": thread}))["thread"]["status"] == "ACTIVE"


async def test_who_watches_a_thread_hears_on_any_process_that_it_stops_and_goes_on(
    cast: Cast, server: Server, mongodb_uri: str
) -> None:
    client = cast.boss.client
    thread = (await cast.send("Mouth", "Ear", {}))["thread"]["id"]
    await client.query(LIMIT, input={"thread": thread, "maxTokens": 1000})

    async with Server(mongodb_uri, **server.settings) as another:
        elsewhere = Client(client.session, another.graphql, cast.boss.access_token)
        async with elsewhere.subscribe(UPDATES, thread=thread) as updates:
            snapshot = (await anext(updates))["threadUpdates"]
            await spend(client, thread, 1000, "k")
            await client.query(LIMIT, input={"thread": thread, "maxTokens": 2000})
            heard: list[str] = []
            while len(heard) < 2:
                update = (await anext(updates))["threadUpdates"]
                heard += [update["status"]] if update["type"] == "THREAD" else []

    assert snapshot["thread"]["status"] == "ACTIVE"
    assert heard == ["EXHAUSTED", "ACTIVE"]


async def test_agents_find_the_warnings_in_their_inbox(cast: Cast) -> None:
    thread = (await cast.send("Mouth", "Ear", {}))["thread"]["id"]
    await cast.boss.client.query(LIMIT, input={"thread": thread, "maxTokens": 1000})
    await spend(cast.boss.client, thread, 920, "k")

    async with cast.inbox("Mouth") as inbox:
        warnings = [await inbox.take() for _ in range(2)]

    assert warnings == [
        {"severity": "WARNING", "percent": 75, "used": 920, "left": 80, "limit": 1000},
        {"severity": "HIGH", "percent": 90, "used": 920, "left": 80, "limit": 1000},
    ]


async def test_in_a_thread_that_is_killed_nothing_is_reserved(cast: Cast) -> None:
    thread = (await cast.send("Mouth", "Ear", {}))["thread"]["id"]
    held = await reserve(cast.boss.client, thread, 100, "1")
    await cast.boss.client.query(KILL, thread=thread)

    error = await refused(reserve(cast.boss.client, thread, 100, "2"))
    settled = await settle(cast.boss.client, held["reservation"]["id"], 40, 0)

    assert (error.code, error.field) == ("CONFLICT", "thread")
    assert settled["budget"]["totalTokens"] == 40


async def test_an_agent_spends_in_its_own_threads_alone(cast: Cast) -> None:
    thread = (await cast.send("Mouth", "Ear", {}))["thread"]["id"]
    await cast.boss.client.query(LIMIT, input={"thread": thread, "maxTokens": 1000})
    ear, nose = cast.clients["Ear"], cast.clients["Nose"]

    held = (await reserve(ear, thread, 900, "k", agent={"name": "Mouth"}))["reservation"]["id"]
    longer = "mutation ($input: ExtendReservationInput!) { extendReservation(input: $input) { reservation { id } } }"
    for sending, field in (
        (reserve(nose, thread, 1, "l"), "thread"),
        (settle(nose, held, 1, 0), "reservation"),
        (nose.query(longer, input={"reservation": held}), "reservation"),
    ):
        error = await refused(sending)
        assert (error.code, error.field) == ("NOT_FOUND", field)
    for forbidden in (
        ear.query(BUDGETS),
        ear.query(LIMIT, input={"thread": thread, "maxTokens": 9}),
    ):
        assert (await refused(forbidden)).code == "FORBIDDEN"
    await settle(ear, held, 800, 0)

    assert (await ear.query(NODE, id=held))["node"] == {"id": held}
    assert (await nose.query(NODE, id=held))["node"] is None
    # It speaks for itself, whomever it names.
    assert [(each["agent"]["name"], each["percent"]) for each in await alerts(cast.boss.client)] == [("Ear", 75)]
    assert [each["thread"] for each in await alerts(ear)] == [{"id": thread}]
    assert [each["thread"] for each in await alerts(nose)] == [None]


async def test_the_hottest_budgets_are_read_off_an_index(store: Database) -> None:
    cursor = store.handle["budgets"].find({"kind": "THREAD"}).sort([("percent", -1), ("_id", -1)]).limit(21)

    plan = str((await cursor.explain())["queryPlanner"]["winningPlan"])

    assert "'indexName': 'hottest'" in plan
    assert "'stage': 'SORT'" not in plan


@pytest.mark.parametrize(
    "document",
    [
        "query ($first: Int) { threadBudgets(first: $first) { nodes { remaining thread { key } } } }",
        "query ($first: Int) { threads(first: $first) { nodes { budget { percentUsed thread { key } } } } }",
    ],
)
async def test_a_list_of_budgets_costs_as_many_commands_however_long_it_is(
    user: Person, store: Database, document: str
) -> None:
    for number in range(20):
        await conversations.open_now(conversations.named(f"{number}"), limit=1, now=datetime.now(UTC))

    async def commands(first: int) -> list[str]:
        await store.handle.command("profile", 2)
        try:
            await user.client.query(document, first=first)
        finally:
            await store.handle.command("profile", 0)
        profile = store.handle["system.profile"]
        read = profile.find({"op": "query", "ns": {"$regex": r"\.(budgets|threads)$"}})
        sent = sorted([each["ns"].rpartition(".")[2] async for each in read])
        await profile.drop()
        return sent

    few = await commands(2)

    assert set(few) == {"budgets", "threads"}
    assert await commands(20) == few


async def test_a_thread_has_the_tokens_that_are_set_and_what_is_done_to_it_holds_on_every_process(
    cast: Cast, server: Server, mongodb_uri: str
) -> None:
    async with Server(mongodb_uri, **server.settings, DEFAULT_THREAD_TOKENS="500") as another:
        elsewhere = Client(cast.boss.client.session, another.graphql, cast.boss.access_token)
        default = (await elsewhere.query("{ defaultThreadTokens }"))["defaultThreadTokens"]
        opening = {"to": {"name": "Ear"}, "payloadType": "task", "payload": {}}
        thread = (await elsewhere.query(INJECT, input=opening))["injectMessage"]["message"]["thread"]["id"]
        too_many = await refused(reserve(cast.boss.client, thread, 501, "1"))
        await cast.boss.client.query(LIMIT, input={"thread": thread, "maxTokens": 501})
        held = await reserve(elsewhere, thread, 501, "1")
        await cast.boss.client.query(KILL, thread=thread)
        killed = await refused(reserve(elsewhere, thread, 1, "2"))

    assert default == 500
    assert too_many.code == "BUDGET_EXHAUSTED"
    assert held["budget"]["maxTokens"] == 501
    assert killed.code == "CONFLICT"


async def test_who_may_report_and_not_read_is_not_shown_the_thread(admin: Person, store: Database) -> None:
    thread = await talking(admin.client, "Ada", "Bob")
    service, _ = await mint(admin, "COLLECT")
    document = """mutation ($input: ReserveTokensInput!) { reserveTokens(input: $input) { %s } }"""
    given = {"thread": thread, "tokens": 1, "idempotencyKey": "k"}

    for asked in ("budget { thread { messages { nodes { payload } } } }", "reservation { budget { remaining } }"):
        assert (await service.execute(document % asked, {"input": given})).codes == ["FORBIDDEN"]
    assert await store.handle["reservations"].count_documents({}) == 0
    held = await service.query(document % "reservation { id tokens } budget { remaining }", input=given)
    assert held["reserveTokens"]["budget"]["remaining"] == 999
    held = await admin.client.query(document % "budget { thread { status } }", input=given)
    assert held["reserveTokens"]["budget"]["thread"]["status"] == "ACTIVE"
