"""Usage since a reset: exact under concurrent collection, in as many documents as agents have models."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from models.prices import costs, entries
from models.store import commits as group
from models.store import database
from models.store.commits import Commits
from models.store.database import Database, Key
from models.usage import resets
from models.usage.counting import Batch, Counting
from models.usage.days import UsageMonth
from models.usage.events import Event, ItemOutcome, UsageEvent
from models.usage.rebuild import rebuild
from models.usage.repricing import reprice
from models.usage.resets import Resetting, UsageReset
from tests.client import Client
from tests.factories import Person
from tests.processes import Server
from tests.test_agents import refusal
from tests.test_repricing import LONG_AGO, UTC_ZONE, price_in
from tests.test_usage import SCOUT, collect, event, totals

SUMMARY = """
query ($agent: AgentBy, $model: String) {
  usageSummary(agent: $agent, model: $model) {
    since resetBy { email } threadsActive
    totals {
      requests messages promptTokens completionTokens totalTokens cachedTokens reasoningTokens cost unpricedEvents
      averageLatencyMs firstUsedAt lastUsedAt users conversations
    }
    byAgent { agent { name } totals { totalTokens cost requests } }
    byModel { model totals { totalTokens cost requests averageLatencyMs } }
  }
}
"""
RESET = """
mutation ($confirm: String!) {
  resetUsage(input: {confirm: $confirm}) {
    usageSummary { since resetBy { email } totals { requests cost } byModel { model } }
  }
}
"""


async def summary(client: Client, **asked: Any) -> dict[str, Any]:
    """Read the summary."""
    found: dict[str, Any] = (await client.query(SUMMARY, **asked))["usageSummary"]
    return found


async def reset(client: Client) -> dict[str, Any]:
    """Reset usage."""
    found: dict[str, Any] = (await client.query(RESET, confirm="reset usage"))["resetUsage"]["usageSummary"]
    return found


async def running() -> dict[tuple[int, str], int]:
    """Look at the requests in each document of running sums."""
    rows = database.collection(UsageMonth).find({"running": {"$exists": True}})
    return {(row["period"], row["model"]): row["running"].get("requests", 0) async for row in rows}


async def test_a_summary_has_totals_agents_models_and_latency(user: Person) -> None:
    await collect(
        user.client,
        event("1", model="a", cost="0.5", latencyMs=100, cachedTokens=3, user="u", at="2026-05-01T10:00:00Z"),
        event("2", model="a", cost="0.25", latencyMs=300, reasoningTokens=2, at="2026-06-01T10:00:00Z"),
        event("3", model="b", agent={"name": "Clerk"}, promptTokens=100, at="2026-05-03T10:00:00Z"),
    )

    found = await summary(user.client)

    assert found == {
        "since": None,
        "resetBy": None,
        "threadsActive": 0,
        "totals": {
            "requests": 3,
            "messages": 3,
            "promptTokens": 120,
            "completionTokens": 15,
            "totalTokens": 135,
            "cachedTokens": 3,
            "reasoningTokens": 2,
            "cost": "0.75",
            "unpricedEvents": 1,
            "averageLatencyMs": 200.0,
            "firstUsedAt": "2026-05-01T10:00:00Z",
            "lastUsedAt": "2026-06-01T10:00:00Z",
            "users": 0,
            "conversations": 0,
        },
        "byAgent": [
            {"agent": {"name": "Clerk"}, "totals": {"totalTokens": 105, "cost": "0", "requests": 1}},
            {"agent": SCOUT, "totals": {"totalTokens": 30, "cost": "0.75", "requests": 2}},
        ],
        "byModel": [
            {"model": "b", "totals": {"totalTokens": 105, "cost": "0", "requests": 1, "averageLatencyMs": None}},
            {"model": "a", "totals": {"totalTokens": 30, "cost": "0.75", "requests": 2, "averageLatencyMs": 200.0}},
        ],
    }
    assert (await summary(user.client, agent={"name": "Clerk"}))["totals"]["totalTokens"] == 105
    assert (await summary(user.client, model="a"))["totals"]["totalTokens"] == 30
    assert (await summary(user.client, agent=SCOUT, model="b"))["totals"]["requests"] == 0
    error = await refusal(user.client, SUMMARY, agent={"name": "Nobody"})
    assert (error.code, error.field) == ("NOT_FOUND", "agent")


async def test_a_reset_counts_anew_and_keeps_everything_else(admin: Person, user: Person, store: Database) -> None:
    sent = [event(str(n), model=f"m{n % 2}", cost="0.5", at=f"2026-0{n + 1}-01T00:00:00Z") for n in range(4)]
    await collect(user.client, *sent)
    before = await totals(user.client)

    answer = await reset(admin.client)

    assert answer["totals"] == {"requests": 0, "cost": "0"}
    assert answer["byModel"] == []
    assert answer["resetBy"] == {"email": admin.email}
    assert abs(datetime.fromisoformat(answer["since"]) - datetime.now(UTC)) < timedelta(minutes=1)
    assert await totals(user.client) == before
    assert await store.handle["usage_events"].count_documents({}) == 4
    # One that is late counts since the reset all the same: it has come since.
    await collect(
        user.client,
        event("late", model="m0", at="2026-01-01T00:00:00Z"),
        event("new", agent={"name": "New"}, promptTokens=11),
    )
    found = await summary(user.client)
    assert (found["totals"]["requests"], found["since"]) == (2, answer["since"])
    assert [each["agent"]["name"] for each in found["byAgent"]] == ["New", "Scout"]
    assert (await totals(user.client))["requests"] == 5
    assert (await rebuild(UTC_ZONE, repair=False)).differences == []

    again = await reset(admin.client)
    assert (again["totals"]["requests"], again["since"] > answer["since"]) == (0, True)
    await collect(user.client, event("last"), event("late"))
    assert (await summary(user.client))["totals"]["requests"] == 1
    assert (await rebuild(UTC_ZONE, repair=False)).differences == []


@pytest.mark.parametrize("confirm", ["", "yes", "Reset usage", "reset usage "])
async def test_a_reset_wants_its_confirmation_typed(admin: Person, store: Database, confirm: str) -> None:
    await collect(admin.client, event("1"))

    error = await refusal(admin.client, RESET, confirm=confirm)

    assert (error.code, error.field) == ("BAD_USER_INPUT", "confirm")
    assert "reset usage" in error.message
    assert (await summary(admin.client))["totals"]["requests"] == 1
    assert await store.handle["usage_resets"].count_documents({}) == 0


async def test_cumulative_reports_are_not_in_it(admin: Person) -> None:
    report = {"name": "Scout", "source": "s", "reportedAt": "2026-05-02T00:00:00Z", "totalTokens": 100, "messages": 3}
    await admin.client.query(
        "mutation ($input: CollectSnapshotsInput!) { collectSnapshots(input: $input) { accepted } }",
        input={"agents": [report]},
    )
    await reset(admin.client)
    await collect(admin.client, event("1"))

    assert (await summary(admin.client))["totals"]["totalTokens"] == 15
    assert (await totals(admin.client))["totalTokens"] == 115
    assert (await rebuild(UTC_ZONE, repair=False)).differences == []


async def test_threads_that_are_active_are_counted(admin: Person, store: Database) -> None:
    await collect(admin.client, event("1"), event("2", agent={"name": "Clerk"}))
    keys = {row["name"]: row["_id"] async for row in store.handle["agents"].find({})}
    now = datetime.now(UTC)
    await store.handle["threads"].insert_many(
        [
            {"status": status, "participants": [keys[name]], "messages": 0, "created_at": now, "updated_at": now}
            for status, name in (("ACTIVE", "Scout"), ("ACTIVE", "Clerk"), ("COMPLETED", "Scout"), ("ACTIVE", "Scout"))
        ]
    )

    assert (await summary(admin.client))["threadsActive"] == 3
    assert (await summary(admin.client, agent=SCOUT))["threadsActive"] == 2


@pytest.mark.parametrize("seed", range(2))
async def test_a_reset_among_collectors_takes_each_event_to_one_side(store: Database, seed: int) -> None:
    await price_in("m", "1", "1")
    table = await entries.table()
    counting = Counting(UTC_ZONE, price=lambda row: costs.price(row, table))
    acknowledged: list[str] = []
    sent_after: set[str] = set()
    moments: list[int] = []
    over, progress = asyncio.Event(), asyncio.Event()
    async with Commits(UsageEvent) as one, Commits(UsageEvent) as other, Commits(UsageEvent) as third:

        async def sending(queue: Commits, name: str) -> None:
            number = 0
            while not over.is_set() or number % 10:
                number += 1
                made = [
                    # Some of them of agents that nobody has heard of before.
                    Event(
                        source=name, id=f"{number}-{k}", agent=f"Agent {k or number}", model=f"m{k}", prompt_tokens=1000
                    )
                    for k in range(6)
                ]
                rank = len(moments)
                answers = await queue.submit(counting, Batch(made, datetime.now(UTC)), weight=6)
                assert {answer.outcome for answer in answers} == {ItemOutcome.ACCEPTED}
                acknowledged.extend(each.key for each in made)
                progress.set()
                if rank == 3:
                    sent_after.update(each.key for each in made)

        async def more(count: int) -> None:
            wanted = len(acknowledged) + count
            while len(acknowledged) < wanted:
                progress.clear()
                await progress.wait()

        async def resetting() -> None:
            for _ in range(3):
                await more(60 + 30 * seed)
                await third.submit(Resetting(), Key(), weight=group.LARGEST)
                moments.append(len(acknowledged))
            await more(60)
            over.set()

        await asyncio.gather(sending(one, "a"), sending(other, "b"), resetting())

    rows = {row["_id"]: row async for row in database.collection(UsageEvent).find({})}
    newest = await resets.newest()
    assert newest is not None
    assert newest["_id"] == 3
    agents = {row["_id"]: row.get("usage_reset") async for row in store.handle["agents"].find({})}
    since = {key for key, row in rows.items() if row.get("reset") == agents[row["agent"]]}
    # All that was sent after the answer to the last reset counts, nothing that was answered before it was asked for.
    assert sent_after <= since
    assert set(rows) == set(acknowledged)
    found = await resets.summary(agent=None, model=None, now=datetime.now(UTC))
    assert found.totals.sums["requests"] == len(since)
    assert found.totals.sums["cost_nanodollars"] == len(since) * 1_000_000
    assert 0 < len(since) < len(rows)
    assert (await rebuild(UTC_ZONE, repair=False)).differences == []


async def test_a_batch_that_a_reset_overtakes_is_counted_after_it(
    store: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [Event(source="s", id=str(n), agent="Scout", model="m", prompt_tokens=7) for n in range(3)]
    async with Commits(UsageEvent) as commits, Commits(UsageEvent) as other:
        await commits.submit(Counting(UTC_ZONE), Batch(made[:1], datetime.now(UTC)))
        counting = Counting(UTC_ZONE)
        prepare, tries = counting.prepare, 0

        async def overtaken(items: Any) -> Any:
            nonlocal tries
            found = await prepare(items)
            tries += 1
            if tries == 1:
                await other.submit(Resetting(), Key(), weight=group.LARGEST)
            return found

        monkeypatch.setattr(counting, "prepare", overtaken)
        await commits.submit(counting, Batch(made[1:], datetime.now(UTC)))

    assert tries == 2
    found = await resets.summary(agent=None, model=None, now=datetime.now(UTC))
    assert found.totals.sums["requests"] == 2
    rows = {row["_id"][-1]: row.get("reset") async for row in database.collection(UsageEvent).find({})}
    assert rows == {"0": None, "1": 1, "2": 1}
    assert (await rebuild(UTC_ZONE, repair=False)).differences == []


async def test_prices_of_before_a_reset_change_nothing_since_it(store: Database) -> None:
    counting = Counting(UTC_ZONE)
    async with Commits(UsageEvent) as commits:
        for number in range(2):
            made = [
                Event(source=str(number), id=str(n), agent="Scout", model="m", prompt_tokens=1000) for n in range(5)
            ]
            await commits.submit(counting, Batch(made, datetime.now(UTC)))
            if not number:
                await commits.submit(Resetting(), Key(), weight=group.LARGEST)
    await price_in("m", "1", "1")

    report = await reprice(UTC_ZONE, since=LONG_AGO, apply=True)

    assert (report.whole.events, report.whole.after) == (10, 10_000_000)
    found = await resets.summary(agent=None, model=None, now=datetime.now(UTC))
    assert (found.totals.sums["cost_nanodollars"], found.totals.sums["unpriced_events"]) == (5_000_000, 0)
    assert (await rebuild(UTC_ZONE, repair=False)).differences == []


async def test_former_months_are_added_up_so_that_a_reading_stays_short(user: Person, admin: Person) -> None:
    months = [f"20{year}-{month:02}-03T00:00:00Z" for year in (24, 25) for month in range(1, 13)]
    await collect(user.client, *(event(at, at=at, model="m", cost="0.1") for at in months))
    await collect(user.client, event("now", model="m", cost="1"))
    assert len(await running()) == 25

    first = await summary(user.client)
    second = await summary(user.client)

    assert first == second
    assert (first["totals"]["requests"], first["totals"]["cost"]) == (25, "3.4")
    assert first["totals"]["firstUsedAt"] == "2024-01-03T00:00:00Z"
    assert await running() == {(0, "m"): 24, (datetime.now(UTC).year * 100 + datetime.now(UTC).month, "m"): 1}
    assert (await rebuild(UTC_ZONE, repair=False)).differences == []
    await collect(user.client, event("late", at=months[0], model="m", cost="0.1"))
    assert (await summary(user.client))["totals"]["requests"] == 26
    assert (await rebuild(UTC_ZONE, repair=False)).differences == []
    await reset(admin.client)
    assert await running() == {}


async def test_adding_up_among_collectors_and_resets_loses_nothing(store: Database) -> None:
    counting = Counting(UTC_ZONE)
    now = datetime(2026, 6, 15, tzinfo=UTC)
    async with Commits(UsageEvent) as commits, Commits(UsageEvent) as other:

        async def collecting() -> None:
            for number in range(40):
                at = datetime(2025, 1 + number % 12, 1, tzinfo=UTC)
                made = [
                    Event(source="s", id=f"{number}-{k}", agent=f"A{k}", model="m", at=at, prompt_tokens=1)
                    for k in range(3)
                ]
                await commits.submit(counting, Batch(made, now))
                if number == 20:
                    await other.submit(Resetting(), Key(), weight=group.LARGEST)

        async def reading() -> None:
            for _ in range(40):
                await resets.summary(agent=None, model=None, now=now)

        await asyncio.gather(collecting(), reading())

    found = await resets.summary(agent=None, model=None, now=now)
    assert found.totals.sums["requests"] == 19 * 3
    assert (await rebuild(UTC_ZONE, repair=False)).differences == []


async def test_rebuild_finds_and_repairs_running_sums(admin: Person) -> None:
    await collect(admin.client, event("0", model="m"))
    await reset(admin.client)
    await collect(admin.client, event("1", model="m", cost="2"), event("2", model="n"))
    right = await summary(admin.client)
    months = database.collection(UsageMonth)
    await months.update_one({"model": "m"}, {"$inc": {"running.cost_nanodollars": 5, "running.requests": -1}})
    await months.update_one({"model": "n"}, {"$unset": {"running": ""}})
    await months.insert_one(
        {
            "period": 0, "agent": Key(), "model": "ghost",
            "running": {"requests": 3, "first_used_at": datetime.now(UTC), "last_used_at": datetime.now(UTC)},
        }
    )  # fmt: skip

    found = await rebuild(UTC_ZONE, repair=True)

    assert {each.where.split()[0] for each in found.differences} == {"since"}
    assert {("cost_nanodollars", 2_000_000_005, 2_000_000_000), ("requests", 0, 1), ("requests", 3, 0)} <= {
        (each.figure, each.kept, each.right) for each in found.differences
    }
    assert (await rebuild(UTC_ZONE, repair=False)).differences == []
    repaired = await summary(admin.client)
    assert {name: repaired[name] for name in ("byAgent", "byModel")} == {
        name: right[name] for name in ("byAgent", "byModel")
    }


async def test_a_reset_is_felt_on_every_process(admin: Person, server: Server, mongodb_uri: str) -> None:
    async with Server(mongodb_uri, SECRET_KEY=server.settings["SECRET_KEY"]) as another:
        elsewhere = Client(admin.client.session, another.graphql, admin.client.token)
        await collect(elsewhere, event("1", cost="1"))
        await reset(admin.client)
        await collect(elsewhere, event("2", cost="2"))

        for client in (elsewhere, admin.client):
            assert (await summary(client))["totals"]["cost"] == "2"


async def test_two_resets_at_once_are_both_noted(store: Database) -> None:
    async with Commits(UsageEvent) as one, Commits(UsageEvent) as other:
        await asyncio.gather(*(each.submit(Resetting(), Key(), weight=group.LARGEST) for each in (one, other)))

    assert sorted([row["_id"] async for row in database.collection(UsageReset).find({})]) in ([1], [1, 2])
