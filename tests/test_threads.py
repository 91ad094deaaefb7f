"""Threads and messages: sent once, delivered in order, paused, stopped."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from models.errors import BadInput, NotFound
from models.store.database import Database, Key
from models.threads import conversations
from tests.client import Client
from tests.factories import Person

THREAD = """query ($id: ID!) { thread(id: $id) {
  id key status createdAt updatedAt closedAt closedReason participants { name }
  messages { totalCount nodes { id } } } }"""
THREADS = """query ($status: ThreadStatus, $participant: AgentBy, $first: Int, $after: String) {
  threads(status: $status, participant: $participant, first: $first, after: $after) {
    totalCount pageInfo { hasNextPage endCursor } nodes { id key } } }"""


async def opened(name: str) -> str:
    """Open a thread by a name, and give its id."""
    row = await conversations.open_now(conversations.named(name), limit=1000, now=datetime.now(UTC))
    return conversations.id_of(row["_id"])


async def keys(client: Client, **asked: Any) -> list[str]:
    """List threads by their callers' names."""
    return [each["key"] for each in (await client.query(THREADS, **asked))["threads"]["nodes"]]


# ---------------------------------------------------------------- threads


async def test_a_named_thread_is_opened_once(user: Person, store: Database) -> None:
    found = await asyncio.gather(*(opened("  case 7 ") for _ in range(8)), opened("case 7"))

    assert len(set(found)) == 1
    thread = (await user.client.query(THREAD, id=found[0]))["thread"]
    assert thread.pop("createdAt") == thread.pop("updatedAt")
    assert thread == {
        "id": found[0],
        "key": "case 7",
        "status": "ACTIVE",
        "closedAt": None,
        "closedReason": None,
        "participants": [],
        "messages": {"totalCount": 0, "nodes": []},
    }


@pytest.mark.parametrize("name", ["", "   ", "a\nb", "x" * 201])
async def test_a_threads_name_is_one_line(name: str) -> None:
    with pytest.raises(BadInput) as caught:
        conversations.named(name)

    assert caught.value.field == "thread.key"


async def test_an_unknown_id_opens_nothing(user: Person, store: Database) -> None:
    with pytest.raises(NotFound):
        await conversations.open_now(conversations.Ref(Key()), limit=1000, now=datetime.now(UTC))

    assert await store.handle["threads"].count_documents({}) == 0
    assert (await user.client.query(THREAD, id=conversations.id_of(Key())))["thread"] is None


async def test_threads_are_listed_newest_first_and_by_page(user: Person) -> None:
    for number in range(5):
        await opened(f"case {number}")

    first = (await user.client.query(THREADS, first=3))["threads"]
    rest = await keys(user.client, first=3, after=first["pageInfo"]["endCursor"])

    assert [each["key"] for each in first["nodes"]] + rest == [f"case {number}" for number in (4, 3, 2, 1, 0)]
    assert first["totalCount"] == 5
    assert await keys(user.client, status="KILLED") == []
    assert len(await keys(user.client, status="ACTIVE")) == 5
