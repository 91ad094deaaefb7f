"""Runs are watched as they begin and end: from any process, in one order, resumed by cursor."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from models.errors import ServiceUnavailable, TooSlow
from models.runs.happenings import Happening, Happenings
from models.store.database import Database, Key
from tests.client import Client, GraphQLErrors
from tests.factories import Person
from tests.processes import Server
from tests.test_runs import record, run

WATCH = """subscription ($agents: [AgentBy!], $after: String) { activity(agents: $agents, after: $after) {
  cursor action status at durationMs cost agent { name } run { runId version { version } } } }"""
Events = AsyncGenerator[Any, None]


@asynccontextmanager
async def watching(client: Client, **asked: Any) -> AsyncIterator[Events]:
    """Watch, from a moment on at which it is certain that whatever comes is heard."""
    async with client.subscribe(WATCH, **asked) as events:
        if "after" not in asked:
            first = asyncio.ensure_future(anext(events))
            number = 0
            while not first.done():
                await record(client, run(f"warm {number}"))
                number += 1
                await asyncio.wait([first], timeout=0.2)
            # What else has been recorded to find out.
            for _ in range(number - int((await first)["activity"]["run"]["runId"].split()[1]) - 1):
                await anext(events)
        yield events


async def hear(events: Events, count: int) -> list[dict[str, Any]]:
    """Hear so many."""
    return [(await anext(events))["activity"] for _ in range(count)]


def names(heard: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Say what was heard, in short."""
    return [(each["run"]["runId"], each["action"]) for each in heard]


async def test_runs_are_heard_to_begin_and_to_end(user: Person) -> None:
    async with watching(user.client) as events:
        await record(user.client, run("1", status="RUNNING"), version="2.0")
        await record(user.client, run("1", durationMs=2000, cost="0.5", status="FAILED"), version="2.0")
        # Nothing new is said by these.
        await record(user.client, run("1", durationMs=2000, cost="0.5", status="FAILED"), version="2.0")
        await record(user.client, run("2", status="CANCELLED"))

        heard = await hear(events, 3)

    assert names(heard) == [("1", "started"), ("1", "failed"), ("2", "was cancelled")]
    assert heard[1].pop("cursor")
    assert heard[1] == {
        "action": "failed",
        "status": "FAILED",
        "at": "2026-05-01T09:00:02Z",
        "durationMs": 2000,
        "cost": "0.5",
        "agent": {"name": "Scout"},
        "run": {"runId": "1", "version": {"version": "2.0"}},
    }


async def test_the_runs_of_some_agents_alone(user: Person) -> None:
    async with watching(user.client, agents=None) as every:
        await record(user.client, run("1"), agent={"name": "Ranger"})
        (heard,) = await hear(every, 1)
        async with watching(user.client, agents=[{"name": "Ranger"}], after=heard["cursor"]) as some:
            await record(user.client, run("2"))
            await record(user.client, run("3"), agent={"name": "Ranger"})

            assert names(await hear(some, 1)) == [("3", "completed")]
        assert names(await hear(every, 2)) == [("2", "completed"), ("3", "completed")]


async def test_what_another_process_records_is_heard(user: Person, server: Server, mongodb_uri: str) -> None:
    async with watching(user.client) as events, Server(mongodb_uri, **server.settings) as another:
        await record(Client(user.client.session, another.graphql, user.access_token), run("1"))

        assert names(await hear(events, 1)) == [("1", "completed")]


async def test_who_comes_back_hears_what_came_meanwhile(user: Person, server: Server, mongodb_uri: str) -> None:
    async with watching(user.client) as events:
        await record(user.client, run("1"), run("2"), run("3"))
        heard = await hear(events, 2)
    missed = ({"1", "2", "3"} - {each["run"]["runId"] for each in heard}).pop()
    await record(user.client, run("4"))

    # On another process too, where nobody has watched before.
    async with Server(mongodb_uri, **server.settings) as another:
        for door in (user.client, Client(user.client.session, another.graphql, user.access_token)):
            async with watching(door, after=heard[1]["cursor"]) as events:
                assert names(await hear(events, 2)) == [(missed, "completed"), ("4", "completed")]


async def test_nothing_is_lost_or_heard_twice_by_who_comes_and_goes(user: Person) -> None:
    total = 60
    async with watching(user.client) as every:
        await record(user.client, run("first"))
        (first,) = await hear(every, 1)

        async def come_and_go(stay: int) -> list[tuple[str, str]]:
            heard: list[dict[str, Any]] = []
            cursor = first["cursor"]
            while len(heard) < total:
                async with watching(user.client, after=cursor) as events:
                    heard += await hear(events, min(stay, total - len(heard)))
                    cursor = heard[-1]["cursor"]
            return names(heard)

        async def write() -> None:
            for number in range(total // 4):
                await record(user.client, *(run(f"{number}-{n}") for n in range(4)))

        *told, _ = await asyncio.gather(come_and_go(3), come_and_go(7), come_and_go(total), write())

        expected = names(await hear(every, total))
    assert len(set(expected)) == total
    assert told == [expected] * 3


async def test_who_comes_back_leaves_connections_for_the_others(user: Person) -> None:
    async with watching(user.client) as events:
        await record(user.client, run("1"), run("2"))
        first, second = await hear(events, 2)
        async with Happenings() as happenings:
            followed = [happenings.follow(after=first["cursor"]) for _ in range(41)]
            told = await asyncio.gather(*(anext(each) for each in followed), return_exceptions=True)
            refused = [each for each in told if isinstance(each, ServiceUnavailable)]
            heard = [each.row["run_id"] for each in told if isinstance(each, Happening)]
            await asyncio.gather(*(each.aclose() for each in followed))

    assert (len(refused), heard) == (1, [second["run"]["runId"]] * 40)


@pytest.mark.parametrize("after", ["", "rubbish", "AB", "82" + "0" * 60])
async def test_what_is_no_cursor_is_refused(user: Person, after: str) -> None:
    with pytest.raises(GraphQLErrors) as caught:
        async with user.client.subscribe(WATCH, after=after) as events:
            await anext(events)

    assert (caught.value.code, caught.value.field) == ("BAD_USER_INPUT", "after")


async def test_an_agent_that_is_none_is_refused(user: Person) -> None:
    with pytest.raises(GraphQLErrors) as caught:
        async with user.client.subscribe(WATCH, agents=[{"name": "Nobody"}]) as events:
            await anext(events)

    assert (caught.value.code, caught.value.field) == ("NOT_FOUND", "agents.0")


async def test_who_does_not_read_is_let_go_and_comes_back(user: Person) -> None:
    async with Happenings(bound=4) as happenings:
        slow, quick = happenings.follow(), happenings.follow()
        cursors = [(await _heard(user, each)).cursor for each in (slow, quick)]
        await record(user.client, *(run(f"{n}") for n in range(50)))

        # Who reads hears all, though it is more than may wait at once.
        names = [(await anext(quick)).row["run_id"] for _ in range(50)]
        heard = await _until_let_go(slow)
        # What comes after what was dropped is not told: the last cursor would skip the gap.
        assert heard == names[: len(heard)]
        again = happenings.follow(after=cursors[1])
        assert [(await anext(again)).row["run_id"] for _ in range(50)] == names
        assert len(set(names)) == 50
        await again.aclose()
        await quick.aclose()


async def _until_let_go(followed: AsyncGenerator[Happening, None]) -> list[str]:
    heard: list[str] = []
    try:
        async for happening in followed:
            heard.append(happening.row["run_id"])  # noqa: PERF401  # what was heard before the end
    except TooSlow:
        return heard
    raise AssertionError("It was not let go.")


async def _heard(user: Person, followed: AsyncGenerator[Happening, None]) -> Happening:
    """Hear the first: from then on whatever comes is heard."""
    first = asyncio.ensure_future(anext(followed))
    while not first.done():
        await record(user.client, run(f"warm {Key()}"))
        await asyncio.wait([first], timeout=0.2)
    return await first


async def test_what_is_heard_is_made_once_for_all_who_hear_it(user: Person, store: Database) -> None:
    async def hear_target(events: Events) -> dict[str, Any]:
        while True:
            (heard,) = await hear(events, 1)
            if heard["run"]["runId"] == "target":
                return heard

    async with AsyncExitStack() as stack:
        watchers = [await stack.enter_async_context(watching(user.client)) for _ in range(5)]
        await store.handle.command("profile", 2)
        try:
            await record(user.client, run("target"))
            heard = await asyncio.gather(*(hear_target(events) for events in watchers))
        finally:
            await store.handle.command("profile", 0)
        profile = store.handle["system.profile"]
        # Recording looks at agents too, but for those that are not deleted.
        asked = {"command.find": "agents", "command.filter._id": {"$exists": True}}
        reads = await profile.count_documents({**asked, "command.filter.deleted_at": {"$exists": False}})
        await profile.drop()

    assert len({str(each) for each in heard}) == 1
    assert reads == 1
