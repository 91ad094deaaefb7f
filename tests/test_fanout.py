"""Subscribers who would read the same share an answer, and nobody reads another's."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest

from auth.viewer import Viewer, anybody_like
from models import ratings
from models.store.database import Database, Key
from tests import factories
from tests.client import Client
from tests.factories import Person
from tests.test_agents import create
from tests.test_alerts import rule
from tests.test_ratings import RATE
from tests.test_usage import collect, event

WATCH = "subscription ($after: String) { thresholdAlerts(after: $after) { %s } }"
PLAIN = WATCH % "id agent { name owner { email } } rule { name }"
MINE = f"{WATCH % 'agent { rating { ...Stars } }'} fragment Stars on RatingSummary {{ count mine }}"
DAYS = "subscription ($days: Int) { thresholdAlerts { agent { usageTimeline(days: $days) { day } } } }"


async def heard(
    stack: AsyncExitStack, client: Client, document: str, variables: dict[str, Any] | None = None
) -> asyncio.Task[Any]:
    """Subscribe over a socket of its own, and give the task that hears the next event."""
    socket = await stack.enter_async_context(client.socket())
    await socket.initialise(client.token)
    await socket.subscribe("1", document, variables)
    await socket.subscribe("ready", "{ __typename }")
    assert await anext(socket.events("ready"))
    return asyncio.create_task(anext(socket.events("1")))


async def alert(admin: Person) -> None:
    """Raise one."""
    await collect(admin.client, event("1", promptTokens=200_000))


async def test_everybody_reads_what_is_theirs_to_read(
    *, client: Client, admin: Person, user: Person, another_user: Person
) -> None:
    await rule(admin)
    await create(user.client, "Scout")
    for person, stars in ((admin, 1), (user, 4), (another_user, 5)):
        await person.client.query(RATE, agent={"name": "Scout"}, stars=stars)
    key = await factories.api_key(admin, "READ")
    async with AsyncExitStack() as stack:
        callers = [admin.client, user.client, another_user.client, key]
        mine = [await heard(stack, each, MINE) for each in callers for _ in range(3)]
        plain = [await heard(stack, each, PLAIN) for each in callers for _ in range(3)]

        await alert(admin)

        given = [(await each)["thresholdAlerts"]["agent"]["rating"] for each in mine]
        seen = [(await each)["thresholdAlerts"] for each in plain]
    assert given == [{"count": 3, "mine": own} for own in (1, 4, 5, None) for _ in range(3)]
    assert [each["rule"] for each in seen] == [{"name": "Tokens"}] * 3 + [None] * 9
    assert {each["agent"]["owner"]["email"] for each in seen} == {user.email}


async def test_an_answer_is_made_once_for_many(client: Client, admin: Person, user: Person, store: Database) -> None:
    await rule(admin)
    async with AsyncExitStack() as stack:
        waiting = [await heard(stack, user.client, PLAIN, {"after": None}) for _ in range(10)]
        waiting += [await heard(stack, user.client, PLAIN) for _ in range(10)]
        await store.handle.command("profile", 2)
        try:
            await alert(admin)
            answers = [await each for each in waiting]
        finally:
            await store.handle.command("profile", 0)
        profile = store.handle["system.profile"]
        asked = {"op": "query", "ns": "agenthub_test.agents", "command.filter._id": {"$exists": True}}
        reads = await profile.count_documents(asked)
        await profile.drop()

    assert len({str(each) for each in answers}) == 1
    assert reads == 1


async def test_variables_that_shape_an_answer_keep_it_apart(client: Client, admin: Person) -> None:
    await rule(admin)
    async with AsyncExitStack() as stack:
        waiting = [await heard(stack, admin.client, DAYS, {"days": days}) for days in (1, 2, 3, 2)]

        await alert(admin)

        lengths = [len((await each)["thresholdAlerts"]["agent"]["usageTimeline"]) for each in waiting]
    assert lengths == [1, 2, 3, 2]


async def test_one_who_leaves_takes_nothing_from_the_others(client: Client, admin: Person) -> None:
    await rule(admin)
    async with AsyncExitStack() as stack:
        leaving = [await stack.enter_async_context(client.socket()) for _ in range(5)]
        for socket in leaving:
            await socket.initialise(admin.access_token)
            await socket.subscribe("1", PLAIN)
        waiting = [await heard(stack, admin.client, PLAIN) for _ in range(5)]

        reporting = asyncio.create_task(alert(admin))
        for socket in leaving:
            await socket.raw.close()

        answers = [await each for each in waiting]
        await reporting
    assert len(answers) == 5


async def test_a_shared_answer_cannot_read_who_asks(store: Database) -> None:
    shared = anybody_like(Viewer(user=Key()))

    assert shared.is_person
    with pytest.raises(Exception, match="cannot encode object"):
        await ratings.given_by([Key()], user=shared.user)  # type: ignore[arg-type]  # what a forgotten mark would do
