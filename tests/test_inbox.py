"""Inboxes: in order, at least once, to one at a time; paused, killed, given up; the same on every process."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest

from graph.threads.watching import cursor
from models.store.database import Database, Key
from tests import factories
from tests.client import Client, GraphQLErrors
from tests.processes import Server
from tests.talking import COMPLETE, FAIL, KILL, STATES, Cast, Inbox, acknowledge, apart, fail

NAME = "inbox_test"
# More than one transaction can change before it has lasted too long.
MANY = 15_000
STORED = "query ($id: ID!) { node(id: $id) { ... on Message { delivery { status attempts error leasedUntil } } } }"
EVERYBODY = """
{ agents(first: 50) { nodes { state queueDepth messageCount lastActivityAt currentThread { id } } } }
"""


@dataclass(frozen=True)
class Pair:
    """Two servers on one database, as two hosts would be."""

    first: Server
    second: Server


@pytest.fixture(scope="module")
async def pair(mongodb_uri: str, bound: Database) -> AsyncIterator[Pair]:
    """Run two servers with short leases, on a database of their own: nobody else's clock ends them."""
    terms = {"MESSAGE_LEASE_SECONDS": "2", "MESSAGE_ATTEMPTS": "3", "MESSAGE_RETRY_SECONDS": "0.05"}
    shared = {**terms, "MONGODB_DBNAME": NAME, "SECRET_KEY": "0123456789abcdef0123456789abcdef"}
    async with Server(mongodb_uri, **shared) as first, Server(mongodb_uri, **shared) as second:
        yield Pair(first, second)
    await bound.client.drop_database(NAME)


@pytest.fixture
async def cast(pair: Pair, store: Database, session: aiohttp.ClientSession) -> Cast:
    """Give two agents that know each other; everybody speaks to the first server."""
    cast = await apart(store, Client(session, pair.first.graphql), NAME)
    await cast.add("Mouth", "Ear")
    await cast.declare("Mouth", peers=("Ear",))
    await cast.declare("Ear", peers=("Mouth",))
    return cast


def elsewhere(cast: Cast, pair: Pair) -> Cast:
    """Give the same people and agents, speaking to the second server."""
    clients = {name: replace(client, url=pair.second.graphql) for name, client in cast.clients.items()}
    boss = replace(cast.boss, client=replace(cast.boss.client, url=pair.second.graphql))
    return Cast(boss, cast.handle, cast.ids, clients)


async def stored(cast: Cast, message: str) -> dict[str, Any]:
    """Read how far a message has come."""
    found: dict[str, Any] = (await cast.boss.client.query(STORED, id=message))["node"]["delivery"]
    return found


async def let_go(cast: Cast) -> None:
    """Have leases and pauses be over."""
    past = datetime.now(UTC) - timedelta(seconds=1)
    await cast.handle["messages"].update_many({"way": "TIMED"}, {"$set": {"due": past}})


async def refused(sending: Any) -> tuple[str, str | None]:  # whatever is awaited
    """Have something refused, for one reason; gives code and field."""
    with pytest.raises(GraphQLErrors) as caught:
        await sending
    return caught.value.code, caught.value.field


@asynccontextmanager
async def silence(inbox: Inbox) -> AsyncIterator[asyncio.Task[dict[str, Any]]]:
    """Wait for the next item of an inbox, which is not to come within this block; gives the waiting."""
    waiting = asyncio.create_task(inbox.next())
    yield waiting
    assert not waiting.done()


async def pile_up(cast: Cast, *, in_one_thread: bool) -> str:
    """Have very many messages wait for Ear, as sending them would: in one thread, or each in its own."""
    sent = await cast.send("Mouth", "Ear", {"n": 0}, thread={"key": "case"})
    rows = cast.handle["messages"]
    first = await rows.find_one({})
    assert first is not None
    if in_one_thread:
        same = {name: value for name, value in first.items() if name not in {"head", "way", "due"}}
        copies = [{**same, "_id": Key(), "number": first["number"] + 10**9 + n} for n in range(MANY)]
    else:
        copies = [{**first, "_id": Key(), "thread": Key(), "number": first["number"] - 1 - n} for n in range(MANY)]
        whole = await cast.handle["threads"].find_one({})
        assert whole is not None
        await cast.handle["threads"].insert_many([{**whole, "_id": each["thread"], "key": None} for each in copies])
    await rows.insert_many(copies, ordered=False)
    await cast.handle["agent_activity"].update_one({"_id": first["recipient"]}, {"$inc": {"queued": MANY}})
    thread: str = sent["thread"]["id"]
    return thread


async def until(cast: Cast, count: int, **where: Any) -> None:
    """Wait until so many messages are so."""
    async with asyncio.timeout(60):
        while await cast.handle["messages"].count_documents(where) != count:  # noqa: ASYNC110  # another process does it
            await asyncio.sleep(0.05)


# ---------------------------------------------------------------- order, leases


async def test_messages_of_a_thread_come_one_after_the_other_and_threads_side_by_side(cast: Cast) -> None:
    for number in range(4):
        for thread in ("a", "b"):
            await cast.send("Mouth", "Ear", {"n": number}, thread={"key": thread})

    async with cast.inbox("Ear") as ear:
        for number in range(4):
            both = [await ear.next(), await ear.next()]
            assert {each["message"]["thread"]["key"] for each in both} == {"a", "b"}
            assert [each["message"]["payload"]["n"] for each in both] == [number, number]
            assert all(each["attempt"] == 1 for each in both)
            for each in both:
                taken = await ear.acknowledge(each)
                assert taken["delivery"]["status"] == "DELIVERED"
                assert taken["delivery"]["deliveredAt"] is not None

    assert (await cast.look("Ear"))["queueDepth"] == 0


async def test_what_is_sent_while_an_inbox_is_open_comes_from_any_process(cast: Cast, pair: Pair) -> None:
    there = elsewhere(cast, pair)
    async with cast.inbox("Ear") as ear:
        for number in range(10):
            await (cast, there)[number % 2].send("Mouth", "Ear", {"n": number}, thread={"key": "case"})
            assert await ear.take() == {"n": number}


async def test_a_lease_that_ends_without_an_answer_hands_the_message_out_again(cast: Cast) -> None:
    await cast.send("Mouth", "Ear", {"n": 1}, thread={"key": "case"})
    await cast.send("Mouth", "Ear", {"n": 2}, thread={"key": "case"})

    async with cast.inbox("Ear") as ear:
        first = await ear.next()
        again = await ear.next()

        assert (first["attempt"], again["attempt"]) == (1, 2)
        assert first["message"]["id"] == again["message"]["id"]
        assert first["lease"] != again["lease"]
        assert first["leaseExpiresAt"] < again["leaseExpiresAt"]
        assert await refused(ear.acknowledge(first)) == ("CONFLICT", "lease")
        assert await refused(fail(ear.client, first)) == ("CONFLICT", "lease")
        await ear.acknowledge(again)
        assert await ear.take() == {"n": 2}


async def test_an_answer_may_be_sent_twice(cast: Cast) -> None:
    await cast.inject("Ear", {"n": 1})
    await cast.inject("Mouth", {"n": 2})

    async with cast.inbox("Ear") as ear, cast.inbox("Mouth") as mouth:
        item, other = await ear.next(), await mouth.next()
        taken = [await ear.acknowledge(item) for _ in range(2)]
        failed = [await fail(mouth.client, other) for _ in range(2)]

        assert taken[0] == taken[1]
        assert failed[0]["delivery"]["attempts"] == failed[1]["delivery"]["attempts"] == 1
        assert await refused(fail(ear.client, item)) == ("CONFLICT", "lease")
        assert (await cast.look("Ear"))["queueDepth"] == 0


async def test_nobody_else_answers_for_an_agent(cast: Cast) -> None:
    await cast.inject("Ear", {"n": 1})
    keys = await factories.api_key(cast.boss, "OPERATE")

    async with cast.inbox("Ear") as ear:
        item = await ear.next()
        assert await refused(acknowledge(cast.clients["Mouth"], item)) == ("NOT_FOUND", "message")
        assert await refused(fail(cast.clients["Mouth"], item)) == ("NOT_FOUND", "message")
        assert await refused(acknowledge(ear.client, {**item, "lease": "65" * 12})) == ("CONFLICT", "lease")
        assert await refused(acknowledge(ear.client, {**item, "lease": "x"})) == ("BAD_USER_INPUT", "lease")
        assert (await stored(cast, item["message"]["id"]))["status"] == "LEASED"
        taken = await acknowledge(keys, item)
        assert taken["delivery"]["status"] == "DELIVERED"


async def test_an_agents_key_reads_no_other_inbox(cast: Cast) -> None:
    for name in ("Mouth", "Nobody"):
        with pytest.raises(GraphQLErrors) as caught:
            async with cast.inbox(name, client=cast.clients["Ear"]) as inbox:
                await inbox.next()
        assert (caught.value.code, caught.value.field) == ("FORBIDDEN", "agent")


async def test_two_subscribers_of_an_inbox_share_it(cast: Cast, pair: Pair) -> None:
    for number in range(40):
        await cast.send("Mouth", "Ear", {"n": number}, thread={"key": f"case {number % 4}"})
    taken: list[int] = []
    seen: set[str] = set()

    async def read(inbox: Inbox) -> None:
        while True:
            item = await inbox.next()
            # Of one thread nobody holds two at a time, and nothing comes to both.
            assert item["message"]["id"] not in seen
            seen.add(item["message"]["id"])
            taken.append(item["message"]["payload"]["n"])
            await inbox.acknowledge(item)
            if len(taken) == 40:
                finished.set()

    finished = asyncio.Event()
    async with AsyncExitStack() as stack:
        inboxes = [
            await stack.enter_async_context(each.inbox("Ear", most=2)) for each in (cast, elsewhere(cast, pair)) * 2
        ]
        readers = [asyncio.create_task(read(inbox)) for inbox in inboxes]
        ended = asyncio.create_task(finished.wait())
        await asyncio.wait([*readers, ended], return_when=asyncio.FIRST_COMPLETED, timeout=30)
        assert ended.done(), [task.exception() for task in readers if task.done()]
        for task in readers:
            task.cancel()
        await asyncio.gather(*readers, return_exceptions=True)

    assert sorted(taken) == list(range(40))
    for thread in range(4):
        assert [n for n in taken if n % 4 == thread] == list(range(thread, 40, 4))


async def test_a_subscriber_holds_no_more_than_it_asks_for(cast: Cast) -> None:
    for number in range(5):
        await cast.send("Mouth", "Ear", {"n": number}, thread={"key": f"case {number}"})

    async with cast.inbox("Ear", most=2) as ear:
        held = [await ear.next(), await ear.next()]
        async with silence(ear) as waiting:
            assert await cast.handle["messages"].count_documents({"status": "LEASED"}) == 2
            assert (await cast.look("Ear"))["queueDepth"] == 5
        await ear.acknowledge(held[0])
        third = await waiting

    assert sorted(each["message"]["payload"]["n"] for each in [*held, third]) == [0, 1, 2]


# ---------------------------------------------------------------- failure


async def test_a_message_that_fails_comes_again_until_it_is_given_up(cast: Cast) -> None:
    first = await cast.send("Mouth", "Ear", {"n": 1}, thread={"key": "case"})
    await cast.send("Mouth", "Ear", {"n": 2}, thread={"key": "case"})

    async with cast.inbox("Ear") as ear:
        for attempt in (1, 2, 3):
            item = await ear.next()
            assert (item["attempt"], item["message"]["payload"]) == (attempt, {"n": 1})
            told = (await fail(ear.client, item, f"No, {attempt}."))["delivery"]
            assert (told["status"], told["error"]) == ("FAILED" if attempt == 3 else "PENDING", f"No, {attempt}.")
        assert (await cast.look("Ear"))["state"] == "ERROR"
        second = await ear.next()
        assert (await cast.look("Ear"))["state"] == "RUNNING"
        await ear.acknowledge(second)

    assert (await stored(cast, first["id"]))["status"] == "FAILED"
    assert second["message"]["payload"] == {"n": 2}
    assert (await cast.look("Ear"))["state"] == "IDLE"
    assert (await cast.look("Mouth"))["state"] == "WAITING"


async def test_one_that_nobody_ever_answers_is_given_up_too(cast: Cast) -> None:
    sent = await cast.send("Mouth", "Ear", {"n": 1}, thread={"key": "case"})
    await cast.send("Mouth", "Ear", {"n": 2}, thread={"key": "case"})

    async with cast.inbox("Ear") as ear:
        for attempt in (1, 2, 3):
            assert (await ear.next())["attempt"] == attempt
            await let_go(cast)
        assert await ear.take() == {"n": 2}

    found = await stored(cast, sent["id"])
    assert (found["status"], found["attempts"]) == ("FAILED", 3)
    assert found["error"] == "No answer within the lease. It was handed out 3 times."


@pytest.mark.parametrize("error", ["", "x" * 501, "a\nb"])
async def test_a_failure_has_a_reason(cast: Cast, error: str) -> None:
    await cast.inject("Ear", {"n": 1})
    async with cast.inbox("Ear") as ear:
        item = await ear.next()
        values = {"message": item["message"]["id"], "lease": item["lease"], "error": error}
        assert await refused(ear.client.query(FAIL, **values)) == ("BAD_USER_INPUT", "error")
        await ear.acknowledge(item)


# ---------------------------------------------------------------- pause, resume


async def test_a_paused_agent_keeps_its_queue_on_every_process(cast: Cast, pair: Pair) -> None:
    there = elsewhere(cast, pair)
    async with cast.inbox("Ear") as ear, there.inbox("Ear") as ear_there:
        await cast.send("Mouth", "Ear", {"n": 0}, thread={"key": "case"})
        first = {asyncio.create_task(ear.next()), asyncio.create_task(ear_there.next())}
        done, waiting = await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        held = done.pop().result()

        assert await there.pause("Ear") == {"name": "Ear", "state": "PAUSED", "queueDepth": 1}
        assert (await cast.pause("Ear"))["state"] == "PAUSED"
        for number in (1, 2, 3):
            await cast.send("Mouth", "Ear", {"n": number}, thread={"key": "case"})
        # What it holds may still be answered; what follows stays where it is.
        await acknowledge(cast.clients["Ear"], held)
        await cast.inject("Ear", {"n": 9})
        await let_go(cast)
        assert await cast.handle["messages"].count_documents({"status": "LEASED"}) == 0
        assert not next(iter(waiting)).done()
        assert (await cast.look("Ear"))["queueDepth"] == 4

        assert (await cast.resume("Ear"))["state"] != "PAUSED"
        got = [(await waiting.pop())["message"]["payload"]["n"]]
        assert got[0] in {1, 9}


async def test_a_resumed_agent_gets_what_waited_in_order(cast: Cast, pair: Pair) -> None:
    there = elsewhere(cast, pair)
    await there.pause("Ear")
    for number in range(5):
        await cast.send("Mouth", "Ear", {"n": number}, thread={"key": "case"})

    async with cast.inbox("Ear") as ear:
        async with silence(ear) as waiting:
            # Whatever else goes on, on either process, nothing comes to a paused one.
            async with there.inbox("Mouth") as mouth:
                await cast.inject("Mouth", {"n": 0})
                assert await mouth.take() == {"n": 0}
        await there.resume("Ear")
        got = [await waiting]
        await ear.acknowledge(got[0])
        for _ in range(4):
            got.append(await ear.next())
            await ear.acknowledge(got[-1])

    assert [each["message"]["payload"]["n"] for each in got] == list(range(5))
    assert all(each["attempt"] == 1 for each in got)


async def test_a_lease_that_ends_in_a_pause_is_handed_out_after_it(cast: Cast) -> None:
    await cast.inject("Ear", {"n": 1})
    async with cast.inbox("Ear") as ear:
        held = await ear.next()
        await cast.pause("Ear")
        past = datetime.now(UTC) - timedelta(seconds=1)
        await cast.handle["messages"].update_many({}, {"$set": {"due": past, "leased_until": past}})
        async with silence(ear) as waiting:
            async with cast.inbox("Mouth") as mouth:
                await cast.inject("Mouth", {"n": 0})
                await mouth.take()
        await cast.resume("Ear")
        again = await waiting

    assert (again["message"]["id"], again["attempt"]) == (held["message"]["id"], 2)


async def test_pausing_races_with_sending_and_nothing_slips_through(cast: Cast, pair: Pair) -> None:
    there = elsewhere(cast, pair)
    async with cast.inbox("Ear") as ear:
        for round_ in range(5):
            sending = [cast.send("Mouth", "Ear", {"n": n}, thread={"key": f"{round_} {n}"}) for n in range(8)]
            await asyncio.gather(*sending, there.pause("Ear"))
            assert await cast.handle["messages"].count_documents({"way": {"$exists": True}}) == 0
            await there.resume("Ear")
            for _ in range(8):
                await ear.take()
    assert (await cast.look("Ear"))["queueDepth"] == 0


async def test_an_agent_is_paused_and_resumed_however_much_waits_for_it(cast: Cast, pair: Pair) -> None:
    await pile_up(cast, in_one_thread=False)

    async with elsewhere(cast, pair).inbox("Ear", most=1) as ear:
        await ear.next()
        assert (await cast.pause("Ear"))["state"] == "PAUSED"
        # One is held, and the others are out of reach at once, though the last of them is put aside later.
        async with silence(ear) as waiting:
            await until(cast, 0, way={"$in": ["INBOX", "POST"]})
            assert await cast.handle["messages"].count_documents({"attempts": {"$gt": 1}}) <= 1
        assert (await cast.look("Ear"))["queueDepth"] == MANY + 1
        await let_go(cast)
        await until(cast, 0, status="LEASED")
        assert (await cast.look("Ear"))["state"] == "PAUSED"

        await cast.resume("Ear")
        await waiting
        await until(cast, 0, head=True, way={"$exists": False})


# ---------------------------------------------------------------- threads


async def test_a_killed_thread_withdraws_what_is_not_delivered(cast: Cast, pair: Pair) -> None:
    there = elsewhere(cast, pair)
    sent = [await cast.send("Mouth", "Ear", {"n": n}, thread={"key": "case"}) for n in range(3)]
    thread = sent[0]["thread"]["id"]
    async with cast.inbox("Ear") as ear:
        await ear.take()
        held = await ear.next()

        killed = (await there.boss.client.query(KILL, thread=thread, reason="Enough."))["killThread"]["thread"]
        again = (await cast.boss.client.query(KILL, thread=thread, reason="Again."))["killThread"]["thread"]

        assert killed == again
        assert (killed["status"], killed["closedReason"]) == ("KILLED", "Enough.")
        assert await refused(ear.acknowledge(held)) == ("CONFLICT", "lease")
        statuses = [(await stored(cast, each["id"]))["status"] for each in sent]
        assert statuses == ["DELIVERED", "WITHDRAWN", "WITHDRAWN"]
        looked = await cast.look("Ear")
        assert (looked["state"], looked["queueDepth"], looked["currentThread"]) == ("IDLE", 0, None)
        assert (await cast.look("Mouth"))["state"] == "IDLE"
        # The next thread goes on as ever.
        await cast.send("Mouth", "Ear", {"n": 7}, thread={"key": "another"})
        assert await ear.take() == {"n": 7}


async def test_a_thread_is_killed_however_much_waits_in_it(cast: Cast) -> None:
    thread = await pile_up(cast, in_one_thread=True)

    async with cast.inbox("Ear") as ear:
        held = await ear.next()
        killed = (await cast.boss.client.query(KILL, thread=thread))["killThread"]["thread"]

        assert killed["status"] == "KILLED"
        assert await refused(ear.acknowledge(held)) == ("CONFLICT", "lease")
        async with silence(ear) as waiting:
            await until(cast, MANY + 1, status="WITHDRAWN")
        looked = await cast.look("Ear")
        assert (looked["state"], looked["queueDepth"], looked["currentThread"]) == ("IDLE", 0, None)
        assert await cast.handle["messages"].count_documents({"$or": [{"way": {"$exists": True}}, {"open": True}]}) == 0
        await cast.send("Mouth", "Ear", {"n": 7}, thread={"key": "another"})
        assert (await waiting)["message"]["payload"] == {"n": 7}


async def test_an_endpoint_that_changes_while_messages_are_sent_finds_them_all(cast: Cast) -> None:
    keys = {row["name"]: row["_id"] async for row in cast.handle["agents"].find()}
    await cast.send("Mouth", "Ear", {"n": 0}, thread={"key": "first"})
    await cast.declare("Ear", peers=("Mouth",), endpoint="http://127.0.0.1:9/nobody")
    activity = cast.handle["agent_activity"]

    await activity.update_one({"_id": keys["Ear"]}, {"$set": {"unaligned_at": datetime.now(UTC)}})

    await until(cast, 0, way="INBOX")
    assert await activity.count_documents({"unaligned_at": {"$type": "date"}}) == 0


async def test_a_completed_thread_delivers_what_was_sent(cast: Cast) -> None:
    sent = await cast.send("Mouth", "Ear", {"n": 1}, thread={"key": "case"})
    done = await cast.clients["Mouth"].query(COMPLETE, thread=sent["thread"]["id"])

    assert done["completeThread"]["thread"]["status"] == "COMPLETED"
    assert (await cast.look("Mouth"))["state"] == "IDLE"
    async with cast.inbox("Ear") as ear:
        assert await ear.take() == {"n": 1}
    failing = cast.boss.client.query(COMPLETE, thread=sent["thread"]["id"], failed=True)
    assert await refused(failing) == ("CONFLICT", "thread")


# ---------------------------------------------------------------- states


async def test_an_agents_state_follows_from_its_messages(cast: Cast) -> None:
    never = await cast.look("Mouth")
    assert never == {
        "state": "IDLE",
        "queueDepth": 0,
        "currentThread": None,
        "lastActivityAt": None,
        "messageCount": 0,
    }
    sent = await cast.send("Mouth", "Ear", {"n": 1}, thread={"key": "case"})
    mouth = await cast.look("Mouth")
    assert (mouth["state"], mouth["messageCount"]) == ("WAITING", 1)
    assert mouth["lastActivityAt"] is not None
    assert (await cast.look("Ear"))["lastActivityAt"] is None
    async with cast.inbox("Ear") as ear:
        item = await ear.next()
        running = await cast.look("Ear")
        hidden = (await cast.clients["Mouth"].query(STATES, agent={"name": "Ear"}))["agent"]
        await cast.add("Stranger")
        unseen = (await cast.clients["Stranger"].query(STATES, agent={"name": "Ear"}))["agent"]
        await ear.acknowledge(item)
    assert (running["state"], running["currentThread"]) == ("RUNNING", {"id": sent["thread"]["id"]})
    assert hidden["currentThread"] == {"id": sent["thread"]["id"]}
    assert unseen["currentThread"] is None
    done = await cast.look("Ear")
    assert (done["state"], done["queueDepth"], done["currentThread"], done["messageCount"]) == ("IDLE", 0, None, 1)


async def test_nobody_waits_for_an_answer_of_its_own_or_of_a_listener(cast: Cast) -> None:
    await cast.add("Wall")
    await cast.declare("Mouth", peers=("Mouth", "Wall", "Ear"))
    await cast.declare("Wall")
    await cast.handle["agents"].update_one({"name": "Wall"}, {"$set": {"declared.is_agent": False}})

    await cast.send("Mouth", "Wall", {})
    await cast.send("Mouth", "Mouth", {})
    assert (await cast.look("Mouth"))["state"] == "IDLE"

    await cast.send("Mouth", "Ear", {})
    assert (await cast.look("Mouth"))["state"] == "WAITING"


async def test_states_of_many_agents_take_one_read_each(cast: Cast, store: Database) -> None:
    names = [f"Agent {number}" for number in range(20)]
    for name in names:
        await cast.boss.client.query(
            "mutation ($n: String!) { createAgent(input: {name: $n, discipline: CREATIVE}) { agent { id } } }", n=name
        )
        await cast.inject(name, {"n": 1}, thread={"key": "one"})
    await cast.handle.command("profile", 2)
    try:
        found = (await cast.boss.client.query(EVERYBODY))["agents"]["nodes"]
    finally:
        await cast.handle.command("profile", 0)
    profile = cast.handle["system.profile"]
    reads = await profile.count_documents({"ns": f"{NAME}.agent_activity"})
    await profile.drop()

    assert len(found) == 22
    assert sum(each["queueDepth"] for each in found) == 20
    assert reads == 1


async def test_what_goes_on_costs_no_more_with_history(cast: Cast) -> None:
    handle = cast.handle
    await cast.inject("Ear", {"n": 0}, thread={"key": "old"})
    async with cast.inbox("Ear") as ear:
        await ear.take()
    row = await handle["messages"].find_one({})
    assert row is not None
    copies = [{**row, "_id": None, "number": -number} for number in range(1, 3001)]
    for each in copies:
        del each["_id"]
    await handle["messages"].insert_many(copies)
    await handle.command("profile", 2)
    try:
        async with cast.inbox("Ear") as ear:
            await cast.inject("Ear", {"n": 1}, thread={"key": "old"})
            await ear.take()
            await cast.look("Ear")
    finally:
        await handle.command("profile", 0)
    examined = [each async for each in handle["system.profile"].find({"ns": f"{NAME}.messages"})]
    await handle["system.profile"].drop()

    assert examined
    assert max(each.get("docsExamined", 0) for each in examined) <= 2
    assert max(each.get("keysExamined", 0) for each in examined) <= 5


# ---------------------------------------------------------------- updates of a thread

WATCH = """
subscription ($thread: ID!, $after: String) {
  threadUpdates(thread: $thread, after: $after) {
    cursor type status at thread { id status messages { totalCount } } message { id payload delivery { status } }
  }
}
"""


async def update(events: AsyncGenerator[Any, None]) -> dict[str, Any]:
    """Give the next update."""
    found: dict[str, Any] = (await anext(events))["threadUpdates"]
    return found


async def test_a_thread_is_watched_from_a_snapshot_on_and_after_a_cursor(cast: Cast, pair: Pair) -> None:
    there = elsewhere(cast, pair)
    thread = (await cast.send("Mouth", "Ear", {"n": 0}, thread={"key": "case"}))["thread"]["id"]
    async with there.boss.client.subscribe(WATCH, thread=thread) as events, cast.inbox("Ear") as ear:
        snapshot = await update(events)
        heard = [await update(events)]
        await ear.acknowledge(await _held(ear, heard, events))
        heard.append(await update(events))
        other = await cast.inject("Ear", {"n": 5})
        second = await cast.send("Mouth", "Ear", {"n": 1}, thread={"id": thread})
        heard.append(await update(events))
        heard.append(await update(events))
        await cast.boss.client.query(KILL, thread=thread)
        heard.append(await update(events))
        assert other["thread"]["id"] != thread

    assert (snapshot["type"], snapshot["status"], snapshot["message"]) == ("SNAPSHOT", None, None)
    assert (snapshot["thread"]["status"], snapshot["thread"]["messages"]) == ("ACTIVE", {"totalCount": 1})
    assert [(each["type"], each["status"]) for each in heard] == [
        ("MESSAGE", "LEASED"),
        ("MESSAGE", "DELIVERED"),
        ("MESSAGE", "PENDING"),
        ("MESSAGE", "LEASED"),
        ("THREAD", "KILLED"),
    ]
    assert heard[2]["message"]["id"] == second["id"]
    assert heard[-1]["thread"]["status"] == "KILLED"
    for place, each in enumerate(heard[:-1]):
        async with cast.boss.client.subscribe(WATCH, thread=thread, after=each["cursor"]) as events:
            again = [await update(events) for _ in heard[place + 1 :]]
        assert [item["cursor"] for item in again] == [item["cursor"] for item in heard[place + 1 :]]


async def _held(inbox: Inbox, heard: list[dict[str, Any]], events: AsyncGenerator[Any, None]) -> dict[str, Any]:
    """Give the item that an inbox has just been handed."""
    item = await inbox.next()
    assert heard[0]["message"]["id"] == item["message"]["id"]
    return item


async def test_who_was_away_for_longer_than_updates_are_kept_begins_with_a_snapshot(cast: Cast) -> None:
    thread = (await cast.inject("Ear", {"n": 0}, thread={"key": "case"}))["thread"]["id"]
    async with cast.boss.client.subscribe(WATCH, thread=thread) as events:
        start = (await update(events))["cursor"]
    await cast.inject("Ear", {"n": 1}, thread={"id": thread})
    async with cast.boss.client.subscribe(WATCH, thread=thread, after=start) as events:
        assert (await update(events))["type"] == "MESSAGE"

    await cast.handle["control_events"].delete_many({})

    async with cast.boss.client.subscribe(WATCH, thread=thread, after=start) as events:
        begun = await update(events)
        assert (begun["type"], begun["thread"]["messages"]["totalCount"]) == ("SNAPSHOT", 2)
        sent = await cast.inject("Ear", {"n": 2}, thread={"id": thread})
        following = await update(events)
    assert (following["type"], following["message"]["id"]) == ("MESSAGE", sent["id"])


async def test_a_cursor_of_what_has_not_happened_begins_with_a_snapshot(cast: Cast) -> None:
    # As after a backup was put back: what is numbered so is still to come, and nothing until then would be told.
    ahead = cursor(await cast.handle["control_events"].count_documents({}) + 10**6)
    thread = (await cast.inject("Ear", {"n": 0}, thread={"key": "case"}))["thread"]["id"]

    async with cast.boss.client.subscribe(WATCH, thread=thread, after=ahead) as events:
        assert (await update(events))["type"] == "SNAPSHOT"
        await cast.inject("Ear", {"n": 1}, thread={"id": thread})
        assert (await update(events))["type"] == "MESSAGE"


async def test_an_agent_watches_its_own_threads_and_messages_alone(cast: Cast) -> None:
    await cast.add("Nose")
    mine = (await cast.send("Mouth", "Ear", {"n": 0}, thread={"key": "case"}))["thread"]["id"]
    other = (await cast.inject("Nose", {}))["thread"]["id"]
    with pytest.raises(GraphQLErrors) as caught:
        async with cast.clients["Mouth"].subscribe(WATCH, thread=other) as events:
            await update(events)
    assert (caught.value.code, caught.value.field) == ("NOT_FOUND", "thread")

    async with (
        cast.clients["Mouth"].subscribe(WATCH, thread=mine) as mouth,
        cast.clients["Ear"].subscribe(WATCH, thread=mine) as ear,
    ):
        assert (await update(mouth))["type"] == (await update(ear))["type"] == "SNAPSHOT"
        await cast.inject("Ear", {"n": 1}, thread={"id": mine})
        await cast.send("Mouth", "Ear", {"n": 2}, thread={"id": mine})
        assert [(await update(ear))["message"]["payload"]["n"] for _ in range(2)] == [1, 2]
        seen = await update(mouth)
    assert (seen["message"]["payload"], seen["thread"]["messages"]["totalCount"]) == ({"n": 2}, 2)
