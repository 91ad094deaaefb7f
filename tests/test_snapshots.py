"""Snapshots: the last report of each source counts, once, whatever order and however often reports arrive."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.agents import Agent
from models.store import database
from models.store.database import Database
from models.store.migrations import Migration
from models.usage.rebuild import rebuild
from tests import factories
from tests.client import Client
from tests.factories import Person
from tests.processes import Server
from tests.test_agents import refusal
from tests.test_usage import SCOUT, collect, event, totals

SNAPSHOTS = """
mutation ($agents: [AgentSnapshotInput!]!) {
  collectSnapshots(input: {agents: $agents}) {
    accepted duplicates rejected items { index outcome code message field }
  }
}
"""
DAYS = """
query ($by: AgentBy!, $from: Date, $to: Date) {
  agent(by: $by) { usageTimeline(from: $from, to: $to) { day messages totalTokens promptTokens unsplitTokens } }
}
"""
ABOUT = "query ($by: AgentBy!) { agent(by: $by) { discipline description owner { name } } }"
NOON = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=2)


def day(back: int) -> str:
    """Give a day as so many before the reports."""
    return (NOON.date() - timedelta(days=back)).isoformat()


def snapshot(*, later: int = 0, **values: Any) -> dict[str, Any]:
    """Write a snapshot as a client does, reported so many minutes later than the first."""
    at = (NOON + timedelta(minutes=later)).isoformat()
    return {"name": "Scout", "source": "old", "reportedAt": at, **values}


async def report(client: Client, *agents: dict[str, Any]) -> dict[str, Any]:
    """Report snapshots and give the answer."""
    answer: dict[str, Any] = (await client.query(SNAPSHOTS, agents=list(agents)))["collectSnapshots"]
    return answer


async def timeline(client: Client) -> dict[str, int]:
    """Read the days that had tokens, of the last ten."""
    found = await client.query(DAYS, by=SCOUT, **{"from": day(10), "to": day(0)})
    return {each["day"]: each["totalTokens"] for each in found["agent"]["usageTimeline"] if each["totalTokens"]}


async def differences() -> list[Any]:
    """Count everything again and say what is kept otherwise."""
    return list((await rebuild(ZoneInfo("UTC"), repair=False)).differences)


async def test_an_unknown_agent_is_registered_with_what_the_report_says(user: Person) -> None:
    answer = await report(
        user.client,
        snapshot(
            description="Finds markets.",
            discipline="STRATEGY",
            messages=7,
            conversations=3,
            users=2,
            totalTokens=100,
            promptTokens=60,
            completionTokens=30,
        ),
    )

    assert answer == {"accepted": 1, "duplicates": 0, "rejected": 0, "items": []}
    found = (await user.client.query(ABOUT, by=SCOUT))["agent"]
    assert found == {"discipline": "STRATEGY", "description": "Finds markets.", "owner": None}
    figures = await totals(user.client)
    assert (figures["messages"], figures["conversations"], figures["users"], figures["requests"]) == (7, 3, 2, 0)
    assert (figures["promptTokens"], figures["completionTokens"], figures["unsplitTokens"]) == (60, 30, 10)
    assert figures["totalTokens"] == 100
    assert await differences() == []


async def test_what_people_wrote_about_an_agent_stays(user: Person) -> None:
    written = {"name": "Scout", "discipline": "CREATIVE", "description": "Ours."}
    await user.client.query(
        "mutation ($input: CreateAgentInput!) { createAgent(input: $input) { agent { id } } }", input=written
    )

    await report(user.client, snapshot(discipline="STRATEGY", description="Theirs.", totalTokens=1))

    found = (await user.client.query(ABOUT, by=SCOUT))["agent"]
    assert (found["discipline"], found["description"]) == ("CREATIVE", "Ours.")


async def test_a_pencil_agent_is_known_by_its_name_unless_the_report_says_otherwise(user: Person) -> None:
    await report(user.client, snapshot(name="My Pencil"), snapshot(name="PENCIL two", discipline="CREATIVE"))

    of = [(await user.client.query(ABOUT, by={"name": name}))["agent"] for name in ("My Pencil", "PENCIL two")]
    assert [each["discipline"] for each in of] == ["PENCIL_AGENTS", "CREATIVE"]


async def test_the_same_report_twice_changes_nothing(user: Person) -> None:
    said = snapshot(totalTokens=100, timeline=[{"day": day(1), "messages": 2, "totalTokens": 100}])
    await report(user.client, said)
    before = await totals(user.client)

    again = await report(user.client, said, said)

    assert (again["accepted"], again["duplicates"], again["rejected"]) == (0, 2, 0)
    assert [(item["outcome"], item["code"]) for item in again["items"]] == [("DUPLICATE", None)] * 2
    assert await totals(user.client) == before
    assert await timeline(user.client) == {day(1): 100}


async def test_a_later_report_replaces_the_earlier_downwards_too(user: Person) -> None:
    await report(
        user.client,
        snapshot(
            totalTokens=300,
            users=5,
            timeline=[{"day": day(2), "totalTokens": 100}, {"day": day(1), "totalTokens": 200}],
        ),
    )

    await report(
        user.client,
        snapshot(later=1, totalTokens=250, users=4, timeline=[{"day": day(2), "totalTokens": 90}]),
    )

    figures = await totals(user.client)
    assert (figures["totalTokens"], figures["users"]) == (250, 4)
    assert await timeline(user.client) == {day(2): 90}
    assert await differences() == []


async def test_days_before_the_first_of_a_timeline_stay_as_reported(user: Person) -> None:
    await report(user.client, snapshot(timeline=[{"day": day(3), "totalTokens": 1}, {"day": day(2), "totalTokens": 2}]))

    await report(
        user.client,
        snapshot(later=1, timeline=[{"day": day(2), "totalTokens": 20}, {"day": day(1), "totalTokens": 30}]),
    )

    assert await timeline(user.client) == {day(3): 1, day(2): 20, day(1): 30}
    assert (await totals(user.client))["totalTokens"] == 51
    assert await differences() == []


async def test_an_older_report_that_arrives_late_is_ignored_and_said_so(user: Person) -> None:
    await report(user.client, snapshot(later=5, totalTokens=500))

    late = await report(user.client, snapshot(later=4, totalTokens=400))

    assert (late["accepted"], late["duplicates"], late["rejected"]) == (0, 0, 1)
    (item,) = late["items"]
    assert (item["outcome"], item["code"], item["field"]) == ("REJECTED", "OUTDATED", "reportedAt")
    assert (await totals(user.client))["totalTokens"] == 500


async def test_another_report_for_the_same_moment_does_not_count(user: Person) -> None:
    await report(user.client, snapshot(totalTokens=1))

    other = await report(user.client, snapshot(totalTokens=2))

    assert [(item["outcome"], item["code"]) for item in other["items"]] == [("DUPLICATE", "CONTENT_DIFFERS")]
    assert (await totals(user.client))["totalTokens"] == 1


async def test_sources_and_events_add_up(user: Person) -> None:
    await collect(user.client, event("one", at=f"{day(1)}T10:00:00Z", user="u-1"))
    await report(user.client, snapshot(totalTokens=100, users=3, timeline=[{"day": day(1), "totalTokens": 100}]))
    await report(user.client, snapshot(source="new", totalTokens=10, timeline=[{"day": day(1), "totalTokens": 10}]))
    await collect(user.client, event("two", at=f"{day(1)}T11:00:00Z", user="u-1"))

    figures = await totals(user.client)
    assert (figures["totalTokens"], figures["users"], figures["requests"]) == (140, 4, 2)
    assert await timeline(user.client) == {day(1): 140}
    assert await differences() == []


async def test_senders_at_once_are_each_counted_once(user: Person) -> None:
    said = [snapshot(source=f"source-{n}", later=m, totalTokens=100 * m + n) for n in range(4) for m in range(3)]

    await asyncio.gather(*(report(user.client, each) for each in said * 2))

    assert (await totals(user.client))["totalTokens"] == sum(200 + n for n in range(4))
    assert await differences() == []


async def test_a_snapshot_raises_alerts(admin: Person) -> None:
    rule = {"name": "Day", "metric": "MESSAGES", "window": "DAY", "threshold": "10"}
    await admin.client.query(
        "mutation ($input: CreateAlertRuleInput!) { createAlertRule(input: $input) { alertRule { id } } }", input=rule
    )
    said = snapshot(timeline=[{"day": day(1), "messages": 11}, {"day": day(0), "messages": 9}])

    await report(admin.client, said)
    await report(admin.client, {**said, "reportedAt": (NOON + timedelta(hours=1)).isoformat()})

    (alert,) = (await admin.client.query("{ alerts { nodes { value windowStart agent { name } } } }"))["alerts"][
        "nodes"
    ]
    assert alert == {"value": "11", "windowStart": f"{day(1)}T00:00:00Z", "agent": {"name": "Scout"}}


async def test_rebuild_counts_snapshots_again(user: Person, store: Database) -> None:
    await report(user.client, snapshot(totalTokens=100, timeline=[{"day": day(1), "totalTokens": 100}]))
    await database.collection(Agent).update_one({"name": "Scout"}, {"$inc": {"usage.unsplit_tokens": -40}})

    found = await rebuild(ZoneInfo("UTC"), repair=True)

    assert [(each.figure, each.kept, each.right) for each in found.differences] == [("unsplit_tokens", 60, 100)]
    assert await differences() == []


BAD = [
    ({"name": ""}, "name"),
    ({"name": "a\x00b"}, "name"),
    ({"name": "x" * 201}, "name"),
    ({"source": ""}, "source"),
    ({"source": "s" * 65}, "source"),
    ({"description": "x" * 10_001}, "description"),
    ({"reportedAt": "1999-12-31T23:59:59Z"}, "reportedAt"),
    ({"reportedAt": "9999-01-01T00:00:00Z"}, "reportedAt"),
    ({"totalTokens": -1}, "totalTokens"),
    ({"users": -1}, "users"),
    ({"conversations": 2**53 - 1}, "conversations"),
    ({"totalTokens": 5, "promptTokens": 4, "completionTokens": 2}, "totalTokens"),
    ({"timeline": [{"day": "1999-12-31"}]}, "timeline.0.day"),
    ({"timeline": [{"day": "2999-12-31"}]}, "timeline.0.day"),
    ({"timeline": [{"day": "2026-01-01"}, {"day": "2026-01-01"}]}, "timeline.1.day"),
    ({"timeline": [{"day": "2026-01-01", "messages": -1}]}, "timeline.0.messages"),
    ({"timeline": [{"day": "2026-01-01", "totalTokens": 1, "promptTokens": 2}]}, "timeline.0.totalTokens"),
]


@pytest.mark.parametrize(("values", "field"), BAD, ids=str)
async def test_a_bad_report_is_refused_and_the_others_count(user: Person, values: dict[str, Any], field: str) -> None:
    good = snapshot(name="Other", totalTokens=1)

    answer = await report(user.client, {**snapshot(), **values}, good)

    assert (answer["accepted"], answer["rejected"]) == (1, 1)
    (item,) = answer["items"]
    assert (item["index"], item["code"], item["field"]) == (0, "BAD_USER_INPUT", field)
    assert (await user.client.query("{ agents { nodes { name } } }"))["agents"]["nodes"] == [{"name": "Other"}]


@pytest.mark.parametrize("count", [0, 1001])
async def test_a_request_has_1_to_1000_reports(user: Person, count: int) -> None:
    refused = await refusal(user.client, SNAPSHOTS, agents=[snapshot(source=f"{n}") for n in range(count)])

    assert (refused.code, refused.field) == ("BAD_USER_INPUT", "agents")


async def test_who_may_report(client: Client, user: Person) -> None:
    reader = await factories.api_key(user, "READ")
    collector = await factories.api_key(user, "COLLECT")

    assert (await refusal(client, SNAPSHOTS, agents=[snapshot()])).code == "UNAUTHENTICATED"
    assert (await refusal(reader, SNAPSHOTS, agents=[snapshot()])).code == "FORBIDDEN"
    assert (await report(collector, snapshot()))["accepted"] == 1


COUNT = st.integers(0, 1000)
REPORT = st.fixed_dictionaries(
    {
        "source": st.sampled_from(["a", "b"]),
        "later": st.integers(0, 5),
        "total": COUNT,
        "days": st.lists(COUNT, max_size=4),
    }
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(reports=st.lists(REPORT, min_size=1, max_size=8))
async def test_the_last_report_of_each_source_counts_in_any_order(user: Person, reports: list[dict[str, Any]]) -> None:
    for model in ("agents", "usage_snapshots", "usage_months"):
        await database.collection(Agent).database[model].delete_many({})
    newest: dict[str, dict[str, Any]] = {}
    for each in reports:
        days = [{"day": day(9), "totalTokens": 1}] + [
            {"day": day(8 - n), "totalTokens": tokens} for n, tokens in enumerate(each["days"])
        ]
        said = snapshot(source=each["source"], later=each["later"], totalTokens=each["total"], timeline=days)
        answer = await report(user.client, said)
        if answer["accepted"]:
            newest[each["source"]] = said

    last = {source: max(each["later"] for each in reports if each["source"] == source) for source in newest}
    assert {source: said["reportedAt"] for source, said in newest.items()} == {
        source: (NOON + timedelta(minutes=later)).isoformat() for source, later in last.items()
    }
    assert (await totals(user.client))["totalTokens"] == sum(said["totalTokens"] for said in newest.values())
    expected: dict[str, int] = {}
    for said in newest.values():
        for each in said["timeline"]:
            expected[each["day"]] = expected.get(each["day"], 0) + each["totalTokens"]
    assert await timeline(user.client) == {day: tokens for day, tokens in expected.items() if tokens}
    assert await differences() == []


async def test_pencil_agents_stored_before_are_tagged_once_at_start(user: Person, mongodb_uri: str) -> None:
    await collect(user.client, event("one", agent={"name": "Old pencil"}), event("two", agent={"name": "Other"}))
    agents = database.collection(Agent)
    await agents.update_many({}, {"$set": {"discipline": None}})
    await database.collection(Migration).delete_many({})

    async with Server(mongodb_uri):
        tagged = {row["name"]: row["discipline"] async for row in agents.find()}
    await agents.update_many({}, {"$set": {"discipline": None}})
    async with Server(mongodb_uri):
        later = {row["name"]: row["discipline"] async for row in agents.find()}

    assert tagged == {"Old pencil": "PENCIL_AGENTS", "Other": None}
    assert later == {"Old pencil": None, "Other": None}
