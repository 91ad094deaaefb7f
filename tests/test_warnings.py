"""Agents are warned in their inbox when the budget of their thread runs out."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from models import agents
from models.store import database
from models.store.database import Database, Key, Session
from models.threads import conversations, putting, warnings
from models.threads.conversations import Ref, Thread, ThreadStatus
from models.threads.putting import Draft
from tests.factories import Person

CREATE = "mutation ($name: String!) { createAgent(input: {name: $name, discipline: CREATIVE}) { agent { id } } }"


@dataclass(frozen=True)
class Scope:
    """The scope of a budget: a thread."""

    key: str


@dataclass(frozen=True)
class Crossing:
    """As budgets tell of it."""

    scope: Scope
    percent: int
    used: int
    limit: int = 1000


async def opened(*names: str) -> Key:
    """Open a thread in which the first agent has written to each of the others."""
    rows = [await agents.require(name) for name in names]
    ref = Ref(Key(), is_new=True)

    async def body(session: Session) -> None:
        for row in rows[1:]:
            thread = await conversations.open_now(ref, limit=1000, now=datetime.now(UTC), session=session)
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
    return ref.thread


async def tell(*crossings: Crossing) -> None:
    """Tell of crossings, in a transaction as the change that causes them does."""
    await database.transaction(Thread, lambda session: warnings.tell(crossings, session=session))


async def told(store: Database) -> list[tuple[str, dict[str, Any]]]:
    """Read what agents were told, in order."""
    names = {row["_id"]: row["name"] async for row in store.handle["agents"].find()}
    cursor = store.handle["messages"].find({"sender_name": "system"}).sort("number", 1)
    return [(names[row["recipient"]], json.loads(row["payload"])) async for row in cursor]


async def test_each_agent_of_a_thread_is_told_once_for_each_percent(user: Person, store: Database) -> None:
    for name in ("Ear", "Mouth", "Elsewhere"):
        await user.client.query(CREATE, name=name)
    thread = Scope(str(await opened("Mouth", "Ear")))

    await tell(Crossing(thread, 75, 760))
    await tell(Crossing(thread, 75, 760), Crossing(thread, 90, 960), Crossing(thread, 95, 960))
    await tell(Crossing(thread, 100, 1200), Crossing(Scope(str(Key())), 75, 800))

    expected = [
        {"severity": "WARNING", "percent": 75, "used": 760, "left": 240, "limit": 1000},
        {"severity": "HIGH", "percent": 90, "used": 960, "left": 40, "limit": 1000},
        {"severity": "CRITICAL", "percent": 95, "used": 960, "left": 40, "limit": 1000},
        {"severity": "EXHAUSTED", "percent": 100, "used": 1200, "left": 0, "limit": 1000},
    ]
    assert await told(store) == [(name, each) for each in expected for name in ("Mouth", "Ear")]


async def test_a_raised_limit_warns_anew_and_retired_agents_and_listeners_are_not_told(
    user: Person, store: Database
) -> None:
    for name in ("Ear", "Mouth", "Gone"):
        await user.client.query(CREATE, name=name)
    thread = Scope(str(await opened("Mouth", "Ear", "Gone")))
    said = {"is_agent": True, "peers": [], "payload_types": [], "endpoint": None, "capabilities": []}
    for name, more in (("Ear", {"is_agent": False, "retired_at": None}), ("Gone", {"retired_at": datetime.now(UTC)})):
        await store.handle["agents"].update_one({"name": name}, {"$set": {"declared": {**said, **more}}})

    await tell(Crossing(thread, 90, 900))
    await tell(Crossing(thread, 90, 1800, 2000))

    assert [(name, each["limit"]) for name, each in await told(store)] == [("Mouth", 1000), ("Mouth", 2000)]


@pytest.mark.parametrize("status", [ThreadStatus.KILLED, ThreadStatus.COMPLETED, ThreadStatus.FAILED])
async def test_nobody_is_told_in_a_thread_that_has_ended(user: Person, store: Database, status: ThreadStatus) -> None:
    for name in ("Ear", "Mouth"):
        await user.client.query(CREATE, name=name)
    thread = await opened("Mouth", "Ear")

    async def end(session: Session) -> None:
        row = await conversations.require(thread, session=session)
        await conversations.close(row, status, reason=None, session=session)

    await database.transaction(Thread, end)
    await tell(Crossing(Scope(str(thread)), 90, 900))

    assert await told(store) == []


async def test_a_thread_is_exhausted_and_reopened(user: Person, store: Database) -> None:
    for name in ("Ear", "Mouth"):
        await user.client.query(CREATE, name=name)
    thread = await opened("Mouth", "Ear")

    async def status() -> tuple[str, bool]:
        row = await conversations.require(thread)
        return row["status"], row["closed_at"] is not None

    for _ in range(2):
        await database.transaction(Thread, lambda session: conversations.exhaust(thread, session=session))
        assert await status() == ("EXHAUSTED", True)
    for _ in range(2):
        await database.transaction(Thread, lambda session: conversations.reopen(thread, session=session))
        assert await status() == ("ACTIVE", False)

    async def kill(session: Session) -> None:
        row = await conversations.require(thread, session=session)
        await conversations.close(row, ThreadStatus.KILLED, reason="Enough.", session=session)

    await database.transaction(Thread, kill)
    await database.transaction(Thread, lambda session: conversations.reopen(thread, session=session))
    await database.transaction(Thread, lambda session: conversations.exhaust(thread, session=session))
    assert await status() == ("KILLED", True)
    events = await store.handle["control_events"].find({"kind": "THREAD"}).sort("_id", 1).to_list(None)
    assert [each["status"] for each in events] == ["ACTIVE", "EXHAUSTED", "ACTIVE", "KILLED"]
    taking_part = set((await conversations.require(thread))["participants"])
    assert all(set(each["agents"]) == taking_part for each in events)
