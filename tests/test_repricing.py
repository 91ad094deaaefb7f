"""`agenthub rebuild cost`: what the price table has priced, or could not, priced again, figures with events."""

import asyncio
import signal
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from typer.testing import CliRunner

from models.agents import Agent
from models.prices import costs, entries
from models.prices.costs import Table
from models.store import database
from models.store.commits import Commits
from models.store.database import Database
from models.usage import repricing
from models.usage.counting import Batch, Counting
from models.usage.events import Event, UsageEvent
from models.usage.rebuild import rebuild
from models.usage.repricing import Share, reprice
from server import commands
from tests.factories import Person
from tests.processes import launch
from tests.test_prices import cost, put
from tests.test_usage import SCOUT, USAGE, collect, event, totals

UTC_ZONE = ZoneInfo("UTC")
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


async def run(uri: str, *arguments: str, **environment: str) -> tuple[int, str]:
    """Run the command to its end; gives its status and all that it says."""
    process = await launch(
        "rebuild", "cost", *arguments, "--mongodb-uri", uri, MONGODB_DBNAME="agenthub_test", **environment
    )
    said, wrong = await process.communicate()
    return process.returncode or 0, said.decode() + wrong.decode()


async def price_in(prefix: str, prompt: str, completion: str) -> None:
    """Set a price past every process, as one does that none of them knows of."""
    values = {"model_prefix": prefix, "valid_from": LONG_AGO, "prompt": prompt, "completion": completion}
    await entries.put(values, by=None, now=datetime.now(UTC))


async def fill(count: int, *, agents: int = 5, table: Table | None = None) -> None:
    """Store events without a cost of models `m0` to `m2`, as a collector does."""
    start = datetime(2026, 5, 1, tzinfo=UTC)
    counting = Counting(UTC_ZONE, price=lambda row: costs.price(row, table or Table([])))
    made = [
        Event(
            source="s",
            id=f"{n:07}",
            agent=f"Agent {n % agents}",
            at=start + timedelta(minutes=n % 50_000),
            model=f"m{n % 3}",
            prompt_tokens=1000,
            completion_tokens=100,
            user=f"u{n % 7}",
        )
        for n in range(count)
    ]
    async with Commits(UsageEvent) as commits:
        for place in range(0, count, 1000):
            batch = Batch(made[place : place + 1000], datetime(2026, 7, 1, tzinfo=UTC))
            await commits.submit(counting, batch, weight=len(batch.events))


async def spent() -> int:
    """Add up what the agents' totals say."""
    rows = await database.collection(Agent).find({}, {"usage": 1}).to_list(None)
    return sum(row["usage"].get("cost_nanodollars", 0) for row in rows)


async def priced() -> int:
    """Count the events that the table has priced."""
    return await database.collection(UsageEvent).count_documents({"price": {"$exists": True}})


async def test_what_the_table_priced_and_what_was_unknown_is_priced_again(admin: Person, mongodb_uri: str) -> None:
    await put(admin.client, "re-a", "1", "1")
    await collect(
        admin.client,
        event("table", model="re-a", at="2026-05-02T10:00:00Z"),
        event("unknown", model="re-b", at="2026-05-02T10:00:00Z"),
        event("said", model="re-a", cost="0.5", at="2026-05-02T10:00:00Z"),
        event("before", model="re-a", at="2026-05-01T23:59:59Z"),
        event("never", model="unheard-of", at="2026-05-02T10:00:00Z"),
    )
    await put(admin.client, "re-a", "3", "3")
    await put(admin.client, "re-b", "10", "10")
    before = await totals(admin.client)

    status, told = await run(mongodb_uri, "--from", "2026-05-02")

    assert status == 0
    assert told.endswith("5 events read, 2 to be priced again; --apply does it.\n")
    # Narrow as it is, no amount is cut.
    assert "…" not in told
    assert await totals(admin.client) == before
    assert await cost(admin.client, "table") == ("0.000015", "TABLE")

    status, told = await run(mongodb_uri, "--from", "2026-05-02", "--apply", COLUMNS="200")

    assert status == 0
    lines = [[each.strip() for each in line.split("│")[1:-1]] for line in told.splitlines() if line.startswith("│")]
    assert lines == [
        ["Scout", "re-b", "1", "0.000000000", "0.000150000", "1", "0"],
        ["Scout", "re-a", "1", "0.000015000", "0.000045000", "0", "0"],
        ["all", "", "2", "0.000015000", "0.000195000", "1", "0"],
    ]
    assert told.endswith("5 events read, 2 priced again.\n")
    assert await cost(admin.client, "table") == ("0.000045", "TABLE")
    assert await cost(admin.client, "unknown") == ("0.00015", "TABLE")
    assert await cost(admin.client, "said") == ("0.5", "REPORTED")
    assert await cost(admin.client, "before") == ("0.000015", "TABLE")
    assert await cost(admin.client, "never") == (None, "UNKNOWN")
    found = await totals(admin.client)
    assert (found["cost"], found["unpricedEvents"]) == ("0.50021", 1)
    assert {name: value for name, value in found.items() if name not in {"cost", "unpricedEvents"}} == {
        name: value for name, value in before.items() if name not in {"cost", "unpricedEvents"}
    }
    days = {"from": "2026-05-02", "to": "2026-05-02"}
    assert (await admin.client.query(USAGE, agent=SCOUT, **days))["usage"]["totals"]["cost"] == "0.500195"
    assert (await rebuild(UTC_ZONE, repair=False)).differences == []

    assert (await reprice(UTC_ZONE, since=datetime(2026, 5, 2, tzinfo=UTC), apply=True)).whole == Share()


async def test_a_price_that_is_gone_leaves_its_events_without_a_cost(store: Database) -> None:
    await price_in("m", "1", "1")
    await fill(30, table=await entries.table())
    assert await spent() == 30 * 1_100_000
    await database.collection(entries.Price).update_many({}, {"$set": {"deleted_at": datetime.now(UTC)}})

    report = await reprice(UTC_ZONE, since=LONG_AGO, apply=True)

    assert report.whole == Share(events=30, before=33_000_000, after=0, unpriced_before=0, unpriced_after=30)
    assert await spent() == 0
    assert await priced() == 0
    assert (await rebuild(UTC_ZONE, repair=False)).differences == []


async def test_days_begin_in_the_companys_time_zone(admin: Person, mongodb_uri: str) -> None:
    await collect(
        admin.client,
        event("early", model="re-z", at="2026-05-01T21:59:59Z"),
        event("late", model="re-z", at="2026-05-01T22:00:00Z"),
    )
    await put(admin.client, "re-z", "1", "1")

    # Midnight in Berlin.
    status, told = await run(mongodb_uri, "--from", "2026-05-02", TIME_ZONE="Europe/Berlin")

    assert (status, told.splitlines()[-1]) == (0, "2 events read, 1 to be priced again; --apply does it.")
    # A day before all days: its midnight in Berlin is in no calendar of UTC.
    status, told = await run(mongodb_uri, "--from", "0001-01-01", TIME_ZONE="Europe/Berlin")

    assert (status, told.splitlines()[-1]) == (0, "2 events read, 2 to be priced again; --apply does it.")


@pytest.mark.parametrize("day", ["yesterday", "2026-13-01", "2026-05-01T10:00"])
def test_a_day_that_is_none_is_refused(day: str) -> None:
    told = CliRunner().invoke(commands.cli, ["rebuild", "cost", "--from", day])

    assert told.exit_code == 2
    assert "--from" in told.output


async def test_collecting_goes_on_meanwhile(store: Database) -> None:
    await fill(3000)
    await price_in("m", "2", "2")
    table = await entries.table()

    async with Commits(UsageEvent) as commits:
        counting = Counting(UTC_ZONE, price=lambda row: costs.price(row, table))

        async def collecting() -> None:
            for n in range(60):
                sent = [
                    Event(source="t", id=f"{n}-{k}", agent=f"Agent {k}", model="m1", prompt_tokens=500)
                    for k in range(5)
                ]
                await commits.submit(counting, Batch(sent, datetime.now(UTC)), weight=5)

        _, report = await asyncio.gather(collecting(), reprice(UTC_ZONE, since=LONG_AGO, apply=True))

    assert report.whole.events >= 3000
    assert await spent() == 3000 * 2_200_000 + 300 * 1_000_000
    assert (await rebuild(UTC_ZONE, repair=False)).differences == []
    assert (await reprice(UTC_ZONE, since=LONG_AGO, apply=False)).whole.events == 0


async def test_two_at_once_price_everything_once(store: Database) -> None:
    await fill(3000)
    await price_in("m", "2", "2")

    await asyncio.gather(*(reprice(UTC_ZONE, since=LONG_AGO, apply=True) for _ in range(2)))

    assert await spent() == 3000 * 2_200_000
    assert (await rebuild(UTC_ZONE, repair=False)).differences == []


async def test_killed_in_the_middle_events_and_figures_agree_and_the_next_run_does_the_rest(
    store: Database, mongodb_uri: str
) -> None:
    await fill(8000)
    await price_in("m", "2", "2")
    for wanted in (1000, 4000):
        arguments = ("--from", "2026-05-01", "--apply", "--mongodb-uri", mongodb_uri)
        process = await launch("rebuild", "cost", *arguments, MONGODB_DBNAME="agenthub_test")
        while await priced() < wanted:
            assert process.returncode is None
        process.send_signal(signal.SIGKILL)
        await process.communicate()

        done = await priced()
        assert wanted <= done < 8000
        assert await spent() == done * 2_200_000
        assert (await rebuild(UTC_ZONE, repair=False)).differences == []

    status, told = await run(mongodb_uri, "--from", "2026-05-01", "--apply")

    assert status == 0
    assert told.splitlines()[-1] == f"8,000 events read, {8000 - done:,} priced again."
    assert await spent() == 8000 * 2_200_000
    assert (await rebuild(UTC_ZONE, repair=False)).differences == []


async def test_memory_is_that_of_one_chunk(store: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    await fill(1000)
    await price_in("m", "2", "2")
    monkeypatch.setattr(repricing, "_CHUNK", 7)
    told: list[int] = []

    report = await reprice(UTC_ZONE, since=LONG_AGO, apply=True, progress=told.append)

    assert told == [*range(7, 1000, 7), 1000]
    assert (report.read, report.whole.events, len(report.shares)) == (1000, 1000, 15)
    assert await spent() == 1000 * 2_200_000
