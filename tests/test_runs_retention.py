"""Old runs go, what they came to stays, and none of them counts again; a process of its own may see to it."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from models.runs import retention
from models.runs.figures import RunFigures
from models.runs.rebuild import rebuild
from models.runs.reports import AgentRun
from models.runs.retention import RunHorizon
from models.runs.versions import AgentVersion
from models.store import database
from models.store.database import Database
from tests import factories
from tests.client import Client
from tests.factories import PASSWORD, Person
from tests.listening import listening
from tests.processes import Server, launch
from tests.test_alerts import rule
from tests.test_runs import METRICS, SCOUT, UTC_ZONE, record, run
from tests.test_runs_figures import kept
from tests.test_usage import collect, event

MONTH = timedelta(days=30)
NEVER = timedelta()
LISTS = """{ runs { totalCount nodes { runId } }
  agent(by: {name: "Scout"}) { runs { totalCount nodes { runId } } runMetrics { totalRuns spend } }
  agentVersion(agent: {name: "Scout"}, version: "1.0") { runs { totalCount nodes { runId } } } }"""


def recent(**ago: float) -> dict[str, str]:
    """Have a run begin so long ago."""
    return {"createdAt": (datetime.now(UTC) - timedelta(**ago)).isoformat()}


async def remove(after: timedelta = MONTH, every: timedelta = NEVER) -> int:
    """Remove old runs, as a worker does."""
    return await retention.remove(after=after, every=every, zone=UTC_ZONE)


async def test_what_removed_runs_came_to_stays(user: Person) -> None:
    old = [run("1", durationMs=1000, cost="1"), run("2", status="FAILED", durationMs=5000), run("3", status="RUNNING")]
    await record(user.client, *old, run("4", **recent(days=29), durationMs=2000, cost="2"))
    before = await user.client.query(METRICS, agent=SCOUT, version="1.0"), await kept()

    assert await remove() == 3

    assert (await user.client.query(METRICS, agent=SCOUT, version="1.0"), await kept()) == before
    found = await user.client.query(LISTS)
    left = {"totalCount": 1, "nodes": [{"runId": "4"}]}
    assert found["runs"] == found["agent"]["runs"] == found["agentVersion"]["runs"] == left
    assert found["agent"]["runMetrics"] == {"totalRuns": 4, "spend": "3"}


async def test_rebuilding_counts_removed_runs_too(user: Person) -> None:
    await record(user.client, run("1", durationMs=1000, cost="1"), run("2", durationMs=2000))
    await record(user.client, run("3", **recent(days=1), durationMs=3000), version="2.0")
    right = await kept()
    await remove()

    assert (await rebuild(UTC_ZONE, repair=True)).differences == []
    await database.collection(RunFigures).update_many({}, {"$inc": {"total_runs": -1, "cost_nanodollars": 7}})
    await database.collection(AgentVersion).update_many({}, {"$inc": {"metrics.total_runs": 2}})
    assert (await rebuild(UTC_ZONE, repair=True)).repaired

    assert await kept() == right
    assert (await rebuild(UTC_ZONE, repair=False)).differences == []


async def test_a_late_duplicate_of_a_removed_run_does_not_count_again(user: Person) -> None:
    old, begun = run("1", durationMs=1000), run("2", status="RUNNING")
    young = run("3", **recent(days=29))
    await record(user.client, old, begun, young)
    await remove()
    before = await kept()

    answer = await record(user.client, old, {**begun, "status": "COMPLETED"}, young, run("new but old"))

    assert (answer["accepted"], answer["duplicates"], answer["rejected"]) == (0, 1, 3)
    assert [(each["index"], each["code"], each["field"]) for each in answer["items"]] == [
        (0, "TOO_OLD", "createdAt"),
        (1, "TOO_OLD", "createdAt"),
        (2, None, None),
        (3, "TOO_OLD", "createdAt"),
    ]
    assert await kept() == before


async def test_what_is_stored_still_is_a_duplicate_though_older_than_the_horizon(user: Person) -> None:
    old = run("1", durationMs=1000)
    await record(user.client, old)
    await database.collection(RunHorizon).insert_one(
        {"_id": "runs", "before": datetime.now(UTC), "next_at": datetime.now(UTC) + MONTH}
    )

    answer = await record(user.client, old, run("2"))

    assert [(each["outcome"], each["code"]) for each in answer["items"]] == [
        ("DUPLICATE", None),
        ("REJECTED", "TOO_OLD"),
    ]


async def test_the_horizon_never_moves_back(user: Person) -> None:
    await record(user.client, run("1", **recent(days=20)), run("2"))

    assert await remove(MONTH) == 1
    assert await remove(2 * MONTH) == 0
    answer = await record(user.client, run("3", **recent(days=40)))
    assert [each["code"] for each in answer["items"]] == ["TOO_OLD"]
    assert await remove(timedelta(days=10)) == 1


async def test_of_many_one_removes_and_none_before_it_is_due(user: Person) -> None:
    hour = timedelta(hours=1)
    await record(user.client, *(run(str(n), durationMs=n) for n in range(40)))

    removed = await asyncio.gather(*(remove(every=hour) for _ in range(5)))

    assert sorted(removed) == [0, 0, 0, 0, 40]
    assert await remove(every=hour) == 0


async def test_runs_are_removed_and_completed_at_once(user: Person) -> None:
    begun = [run(str(n), status="RUNNING") for n in range(200)]
    await record(user.client, *begun)

    answers = await asyncio.gather(
        *(record(user.client, *({**each, "status": "COMPLETED"} for each in begun[start::4])) for start in range(4)),
        *(remove() for _ in range(3)),
    )

    accepted = sum(answer["accepted"] for answer in answers if isinstance(answer, dict))
    found = (await user.client.query(METRICS, agent=SCOUT, version="1.0"))["agentVersion"]["metrics"]
    assert found["totalRuns"] == 200
    assert found["successRate"] == (100 if accepted else None)
    await remove()
    assert await database.collection(AgentRun).count_documents({}) == 0
    assert (await rebuild(UTC_ZONE, repair=False)).differences == []


# ---------------------------------------------------------------- a worker

NAME = "worker_test"


@asynccontextmanager
async def working(server: Server, **settings: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a worker beside a server, with its settings; it is stopped, or dead, by the end."""
    process = await launch("worker", **{**server.settings, **settings})
    assert process.stderr is not None
    try:
        async for line in process.stderr:
            if b'"event":"working"' in line:
                break
        yield process
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            await process.communicate()
            assert process.returncode == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


@pytest.fixture
async def apart(mongodb_uri: str, bound: Database) -> AsyncIterator[Server]:
    """Run a server that leaves background work alone, on a database of its own."""
    await bound.client.drop_database(NAME)
    async with Server(
        mongodb_uri,
        MONGODB_DBNAME=NAME,
        BACKGROUND_WORK="false",
        RUN_RETENTION_DAYS="30",
        WEBHOOKS_TO_PRIVATE_ADDRESSES="true",
        ADMIN_EMAIL="boss@example.com",
        ADMIN_PASSWORD=PASSWORD,
    ) as server:
        yield server
    await bound.client.drop_database(NAME)


async def until(read: Callable[[], Awaitable[Any]], expected: object) -> None:
    """Read again and again, until it is so."""
    found = None
    for _ in range(300):
        found = await read()
        if found == expected:
            return
        await asyncio.sleep(0.1)
    assert found == expected


async def test_a_worker_does_what_servers_leave_to_it(apart: Server, session: aiohttp.ClientSession) -> None:
    received: list[bytes] = []

    async def take(request: web.Request) -> web.Response:
        received.append(await request.read())
        return web.Response()

    boss = await factories.sign_in(Client(session, apart.graphql), email="boss@example.com")

    async def deliveries() -> list[tuple[str, int]]:
        nodes = (await boss.client.query("{ alerts { nodes { deliveries { status attempts } } } }"))["alerts"]["nodes"]
        return [(each["status"], each["attempts"]) for node in nodes for each in node["deliveries"]]

    async def stored() -> int:
        found: int = (await boss.client.query(LISTS))["runs"]["totalCount"]
        return found

    async with listening(take) as url:
        await rule(boss, channels=["WEBHOOK"], webhookUrl=f"{url}/hook", threshold="100")
        await collect(boss.client, event("1", promptTokens=200))
        await record(boss.client, run("1"), run("2", **recent(days=2)))
        assert (await deliveries(), await stored()) == ([("PENDING", 0)], 2)

        # Two of them do each thing once.
        async with working(apart), working(apart):
            await until(deliveries, [("DELIVERED", 1)])
            await until(stored, 1)

    assert len(received) == 1


async def test_what_a_killed_worker_leaves_the_next_one_does(apart: Server, session: aiohttp.ClientSession) -> None:
    boss = await factories.sign_in(Client(session, apart.graphql), email="boss@example.com")
    taken, held = asyncio.Event(), asyncio.Event()

    async def take(request: web.Request) -> web.Response:
        taken.set()
        await held.wait()
        return web.Response()

    async with listening(take) as url:
        await rule(boss, channels=["WEBHOOK"], webhookUrl=f"{url}/hook", threshold="100")
        await collect(boss.client, event("1", promptTokens=200))
        async with working(apart) as killed:
            await taken.wait()
            killed.kill()
            await killed.communicate()
        held.set()
        await (
            database.collection(AgentRun)
            .database.client[NAME]["outbox"]
            .update_many({}, {"$set": {"due": datetime.now(UTC)}})
        )

        async with working(apart):
            query = "{ alerts { nodes { deliveries { status } } } }"

            async def statuses() -> Any:
                return (await boss.client.query(query))["alerts"]["nodes"][0]["deliveries"]

            await until(statuses, [{"status": "DELIVERED"}])


async def test_a_worker_with_bad_settings_is_refused(server: Server) -> None:
    for wrong, said in ({"RUN_RETENTION_DAYS": "6"}, "RUN_RETENTION_DAYS"), ({"SECRET_KEY": "short"}, "SECRET_KEY"):
        process = await launch("worker", **{**server.settings, **wrong})
        _, error = await process.communicate()

        assert process.returncode == 1
        assert said in error.decode()


async def test_a_worker_killed_while_it_removes_leaves_every_figure_right(
    apart: Server, session: aiohttp.ClientSession
) -> None:
    boss = await factories.sign_in(Client(session, apart.graphql), email="boss@example.com")
    for batch in range(6):
        await record(boss.client, *(run(f"{batch}-{n}", durationMs=n, cost="0.001") for n in range(1000)))
    before = await boss.client.query(METRICS, agent=SCOUT, version="1.0")
    handle = database.collection(AgentRun).database.client[NAME]

    async def stored() -> int:
        return await handle["agent_runs"].count_documents({})

    async with working(apart) as killed:
        while await stored() == 6000:
            pass
        killed.kill()
        await killed.communicate()
    await handle["run_horizon"].update_many({}, {"$set": {"next_at": datetime.now(UTC)}})
    assert await differences(apart) == 0
    async with working(apart):
        await until(stored, 0)

    assert await differences(apart) == 0
    assert await boss.client.query(METRICS, agent=SCOUT, version="1.0") == before


async def differences(server: Server) -> int:
    """Count runs again from the command line; 1 where anything differs."""
    process = await launch("rebuild", "runs", "--check", **server.settings)
    await process.communicate()
    assert process.returncode is not None
    return process.returncode
