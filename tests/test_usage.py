"""Usage: counted once, refused item by item, shown day by day."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models import agents
from models.store import database
from models.store.commits import Commits
from models.store.database import Database
from models.usage import days
from models.usage.counting import Batch, Counting
from models.usage.days import UsageMonth
from models.usage.events import Event, ItemOutcome, UsageEvent
from models.usage.rebuild import rebuild
from tests import factories
from tests.client import Client
from tests.factories import Person
from tests.test_agents import create, refusal

COLLECT = """
mutation ($input: CollectUsageInput!) {
  collectUsage(input: $input) { accepted duplicates rejected items { index outcome code message field } }
}
"""
TOTALS = """
query ($by: AgentBy!) {
  agent(by: $by) {
    usage {
      messages conversations users requests promptTokens completionTokens totalTokens cachedTokens reasoningTokens
      unsplitTokens cost unpricedEvents averageLatencyMs firstUsedAt lastUsedAt
    }
  }
}
"""
TIMELINE = """
query ($by: AgentBy!, $days: Int, $from: Date, $to: Date) {
  agent(by: $by) { usageTimeline(days: $days, from: $from, to: $to) { day messages totalTokens cost } }
}
"""
USAGE = """
query ($filter: AgentFilter, $agent: AgentBy, $days: Int, $from: Date, $to: Date, $hours: Int) {
  usage(filter: $filter, agent: $agent, days: $days, from: $from, to: $to) {
    totals { messages users conversations requests totalTokens cost unpricedEvents firstUsedAt lastUsedAt }
    timeline { day totalTokens }
    byHour(hours: $hours) { hour totalTokens }
    byAgent { agent { name } totals { totalTokens } }
    byModel { model totals { totalTokens requests } }
  }
}
"""
SCOUT = {"name": "Scout"}
MAX_SAFE = 2**53 - 1


def event(key: str, **values: Any) -> dict[str, Any]:
    """Write an event as a client does."""
    return {"id": key, "agent": SCOUT, "promptTokens": 10, "completionTokens": 5, **values}


async def collect(client: Client, *events: dict[str, Any], source: str = "test") -> dict[str, Any]:
    """Report events and give the answer."""
    answer: dict[str, Any] = (await client.query(COLLECT, input={"source": source, "events": list(events)}))[
        "collectUsage"
    ]
    return answer


async def totals(client: Client) -> dict[str, Any]:
    """Read the lifetime figures."""
    found: dict[str, Any] = (await client.query(TOTALS, by=SCOUT))["agent"]["usage"]
    return found


async def nothing_is_stored(store: Database) -> bool:
    """Look into every collection that collecting writes."""
    names = ("usage_events", "usage_months", "usage_hours", "usage_seen", "agents", "alerts")
    return not [name for name in names if await store.handle[name].count_documents({})]


async def test_an_event_is_counted_in_every_figure(user: Person) -> None:
    full = event(
        "1",
        at="2026-05-01T10:30:00+02:00",
        model="claude",
        provider="anthropic",
        labels=[{"key": "team", "value": "blue"}],
        cachedTokens=4,
        cacheWriteTokens=6,
        reasoningTokens=5,
        messages=3,
        cost="0.0123456789",
        latencyMs=800,
        conversation="c1",
        user="u1",
        thread="t1",
        parent="0",
    )
    plain = event("2", at="2026-05-02T00:00:00Z", user="u1", conversation="c2", latencyMs=400)

    answer = await collect(user.client, full, plain)

    assert answer == {"accepted": 2, "duplicates": 0, "rejected": 0, "items": []}
    assert await totals(user.client) == {
        "messages": 4,
        "conversations": 2,
        "users": 1,
        "requests": 2,
        "promptTokens": 20,
        "completionTokens": 10,
        "totalTokens": 30,
        "cachedTokens": 4,
        "reasoningTokens": 5,
        "unsplitTokens": 0,
        "cost": "0.012345679",
        "unpricedEvents": 1,
        "averageLatencyMs": 600.0,
        "firstUsedAt": "2026-05-01T08:30:00Z",
        "lastUsedAt": "2026-05-02T00:00:00Z",
    }
    data = (await user.client.query(USAGE, agent=SCOUT, **{"from": "2026-04-30", "to": "2026-05-02"}))["usage"]
    assert data["timeline"] == [
        {"day": "2026-04-30", "totalTokens": 0},
        {"day": "2026-05-01", "totalTokens": 15},
        {"day": "2026-05-02", "totalTokens": 15},
    ]
    assert data["byModel"] == [
        {"model": "", "totals": {"totalTokens": 15, "requests": 1}},
        {"model": "claude", "totals": {"totalTokens": 15, "requests": 1}},
    ]
    assert data["byAgent"] == [{"agent": SCOUT, "totals": {"totalTokens": 30}}]
    assert data["totals"]["users"] == 1
    assert data["totals"]["firstUsedAt"] == "2026-05-01T08:30:00Z"


async def test_a_repeat_changes_nothing_and_is_called_a_duplicate(user: Person) -> None:
    await collect(user.client, event("1", user="u", cost="0.1"))
    before = await totals(user.client)

    said = {"user": "u", "cost": "0.10"}
    again = await collect(user.client, event("1", **said), event("1", **said, promptTokens=11))

    assert (again["accepted"], again["duplicates"], again["rejected"]) == (0, 2, 0)
    assert [item["code"] for item in again["items"]] == [None, "CONTENT_DIFFERS"]
    assert await totals(user.client) == before


async def test_within_one_batch_the_first_of_equals_counts(user: Person) -> None:
    answer = await collect(user.client, event("1"), event("1"), event("1", messages=9))

    assert (answer["accepted"], answer["duplicates"]) == (1, 2)
    assert [(item["index"], item["code"]) for item in answer["items"]] == [(1, None), (2, "CONTENT_DIFFERS")]
    assert (await totals(user.client))["messages"] == 1


async def test_the_same_id_from_another_source_is_another_event(user: Person) -> None:
    await collect(user.client, event("1"), source="a")

    assert (await collect(user.client, event("1"), source="b"))["accepted"] == 1
    assert (await totals(user.client))["requests"] == 2


async def test_an_unknown_name_is_registered_without_owner_and_pencils_are_known(user: Person) -> None:
    await collect(user.client, event("1", agent={"name": "Blue PENCIL 7"}), event("2", agent={"name": " Ink "}))

    data = await user.client.query(
        "{ agents(filter: {unclaimed: true}) { nodes { name discipline owner { id } usage { requests } } } }"
    )

    assert data["agents"]["nodes"] == [
        {"name": "Blue PENCIL 7", "discipline": "PENCIL_AGENTS", "owner": None, "usage": {"requests": 1}},
        {"name": "Ink", "discipline": None, "owner": None, "usage": {"requests": 1}},
    ]


FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"id": ""}, "id"),
    ({"id": "x" * 201}, "id"),
    ({"id": "a\x00b"}, "id"),
    ({"promptTokens": -1}, "promptTokens"),
    ({"completionTokens": -1}, "completionTokens"),
    ({"messages": -1}, "messages"),
    ({"promptTokens": MAX_SAFE}, "promptTokens"),
    ({"cachedTokens": 11}, "cachedTokens"),
    ({"cachedTokens": 5, "cacheWriteTokens": 6}, "cacheWriteTokens"),
    ({"reasoningTokens": 6}, "reasoningTokens"),
    ({"latencyMs": -1}, "latencyMs"),
    ({"cost": "-0.01"}, "cost"),
    ({"cost": "1000001"}, "cost"),
    ({"at": "0001-01-01T00:00:00Z"}, "at"),
    ({"at": "9999-12-31T23:59:59Z"}, "at"),
    ({"at": (datetime.now(UTC) + timedelta(days=2)).isoformat()}, "at"),
    ({"model": "m\n"}, "model"),
    ({"user": "u" * 201}, "user"),
    ({"labels": [{"key": "k", "value": "v" * 65}]}, "labels"),
    ({"labels": [{"key": str(n), "value": "v"} for n in range(11)]}, "labels"),
    ({"agent": {"name": ""}}, "agent.name"),
    ({"agent": {"name": "n" * 201}}, "agent.name"),
    ({"agent": {"name": "\u200b"}}, "agent.name"),
    ({"agent": {"name": "a\x00"}}, "agent.name"),
    ({"agent": {"id": "rubbish"}}, "agent.id"),
]


@pytest.mark.parametrize(("values", "field"), FAULTS)
async def test_a_bad_event_is_refused_alone(user: Person, store: Database, values: dict[str, Any], field: str) -> None:
    answer = await collect(user.client, {**event("bad"), **values})

    assert (answer["accepted"], answer["duplicates"], answer["rejected"]) == (0, 0, 1)
    assert (answer["items"][0]["code"], answer["items"][0]["field"]) == ("BAD_USER_INPUT", field)
    assert answer["items"][0]["message"]
    assert await nothing_is_stored(store)
    assert (await collect(user.client, {**event("bad"), **values}, event("good")))["accepted"] == 1


async def test_an_unknown_agent_id_refuses_its_event_alone(user: Person) -> None:
    identifier = await create(user.client, "Gone")
    await user.client.query(
        "mutation ($by: AgentBy!) { deleteAgent(input: {agent: $by}) { deletedId } }", by={"id": identifier}
    )

    answer = await collect(user.client, event("1", agent={"id": identifier}), event("2"))

    assert answer["accepted"] == 1
    assert answer["items"][0]["code"] == "NOT_FOUND"
    assert answer["items"][0]["field"] == "agent.id"


@pytest.mark.parametrize(
    "values",
    [
        {"promptTokens": 2**53},
        {"promptTokens": 1.5},
        {"promptTokens": "10"},
        {"promptTokens": "NaN"},
        {"promptTokens": True},
        {"cost": "NaN"},
        {"cost": "Infinity"},
        {"cost": "1e400"},
        {"cost": "1" * 5000},
        {"at": "2026-05-01"},
        {"at": "2026-05-01T10:00:00"},
        {"at": "2026-13-01T10:00:00Z"},
        {"at": "9999-12-31T23:59:59-14:00"},
        {"at": "10000-01-01T00:00:00Z"},
        {"agent": {}},
        {"agent": {"id": "x", "name": "y"}},
        {"surprise": 1},
    ],
)
async def test_what_no_type_can_hold_refuses_the_request(user: Person, store: Database, values: dict[str, Any]) -> None:
    reply = await user.client.execute(COLLECT, {"input": {"events": [event("good"), {**event("bad"), **values}]}})

    assert reply.codes == ["BAD_USER_INPUT"]
    if "agent" not in values and "surprise" not in values:
        assert reply.body["errors"][0]["extensions"]["field"] == f"events.1.{next(iter(values))}"
    assert await nothing_is_stored(store)


@pytest.mark.parametrize(
    ("count", "source", "field"),
    [
        (0, "s", "events"),
        (1001, "s", "events"),
        (1, "", "source"),
        (1, "s" * 65, "source"),
        (1, "a\x1fb", "source"),
    ],
)
async def test_a_batch_that_cannot_be_is_refused(
    user: Person, store: Database, count: int, source: str, field: str
) -> None:
    error = await refusal(
        user.client, COLLECT, input={"source": source, "events": [event(str(n)) for n in range(count)]}
    )

    assert (error.code, error.field) == ("BAD_USER_INPUT", field)
    assert await nothing_is_stored(store)


async def test_a_thousand_events_fit_one_request(user: Person) -> None:
    answer = await collect(user.client, *(event(str(n), user=f"u{n % 7}") for n in range(1000)))

    assert answer["accepted"] == 1000
    found = await totals(user.client)
    assert (found["requests"], found["users"], found["totalTokens"]) == (1000, 7, 15_000)


async def test_timelines_show_days_without_use_as_zeros(user: Person) -> None:
    today = datetime.now(UTC).date()
    await collect(user.client, event("1"), event("2", at=f"{today - timedelta(days=3)}T12:00:00Z"))

    lines = (await user.client.query(TIMELINE, by=SCOUT, days=5))["agent"]["usageTimeline"]

    assert [line["day"] for line in lines] == [str(today - timedelta(days=n)) for n in (4, 3, 2, 1, 0)]
    assert [line["totalTokens"] for line in lines] == [0, 15, 0, 0, 15]


async def test_hours_end_with_the_one_that_runs(user: Person) -> None:
    await collect(user.client, event("1"))

    lines = (await user.client.query(USAGE, agent=SCOUT, hours=3))["usage"]["byHour"]

    assert [line["totalTokens"] for line in lines][:1] == [0]
    assert sum(line["totalTokens"] for line in lines) == 15
    assert [line["hour"] for line in lines] == sorted(line["hour"] for line in lines)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"days": 0}, "days"),
        ({"days": 367}, "days"),
        ({"from": "2026-05-02", "to": "2026-05-01"}, "from"),
        ({"from": "2025-01-01", "to": "2026-01-02"}, "from"),
        ({"to": "0001-01-01"}, "to"),
        ({"from": "9999-12-31"}, "from"),
    ],
)
async def test_days_that_cannot_be_shown_are_refused(user: Person, arguments: dict[str, Any], field: str) -> None:
    await create(user.client, "Scout")

    for document, selected in ((TIMELINE, {"by": SCOUT}), (USAGE, {})):
        error = await refusal(user.client, document, **arguments, **selected)
        assert (error.code, error.field) == ("BAD_USER_INPUT", field)


async def test_a_selection_adds_up_its_agents(user: Person) -> None:
    await create(user.client, "Scout", project="P")
    await create(user.client, "Other", project="Q")
    await collect(user.client, event("1"), event("2", agent={"name": "Other"}, promptTokens=100))

    everything = (await user.client.query(USAGE))["usage"]
    some = (await user.client.query(USAGE, filter={"project": "P"}))["usage"]

    assert everything["totals"]["totalTokens"] == 120
    assert [each["agent"]["name"] for each in everything["byAgent"]] == ["Other", "Scout"]
    assert some["totals"]["totalTokens"] == 15
    error = await refusal(user.client, USAGE, filter={}, agent=SCOUT)
    assert (error.code, error.field) == ("BAD_USER_INPUT", "agent")


async def test_who_may_collect(client: Client, user: Person, admin: Person) -> None:
    collector, reader = await factories.api_key(user, "COLLECT"), await factories.api_key(user, "READ")

    assert (await collect(collector, event("1")))["accepted"] == 1
    assert (await refusal(client, COLLECT, input={"events": [event("2")]})).code == "UNAUTHENTICATED"
    assert (await refusal(reader, COLLECT, input={"events": [event("2")]})).code == "FORBIDDEN"
    assert (await refusal(collector, TOTALS, by=SCOUT)).code == "FORBIDDEN"
    assert (await totals(reader))["requests"] == 1


async def test_a_late_event_takes_a_user_to_an_earlier_day(user: Person, store: Database) -> None:
    await collect(user.client, event("1", at="2026-05-02T10:00:00Z", user="u"))
    await collect(user.client, event("2", at="2026-05-01T10:00:00Z", user="u"))

    for day, count in (("2026-05-01", 1), ("2026-05-02", 0)):
        found = (await user.client.query(USAGE, agent=SCOUT, **{"from": day, "to": day}))["usage"]["totals"]
        assert found["users"] == count
    assert (await rebuild(ZoneInfo("UTC"), repair=False)).differences == []


async def test_rebuild_finds_and_repairs_what_was_spoilt(user: Person, store: Database) -> None:
    await collect(
        user.client, *(event(str(n), user=f"u{n}", cost="0.5", at=f"2026-05-0{n + 1}T10:00:00Z") for n in range(5))
    )
    span = {"from": "2026-05-01", "to": "2026-05-06"}
    right = (await totals(user.client), await user.client.query(USAGE, agent=SCOUT, **span))
    await database.collection(agents.Agent).update_one({"name": "Scout"}, {"$inc": {"usage.messages": 7}})
    await database.collection(UsageMonth).update_one({"model": ""}, {"$inc": {"prompt_tokens.01": -3, "users.09": 4}})

    found = await rebuild(ZoneInfo("UTC"), repair=True)

    assert {(each.figure, each.kept, each.right) for each in found.differences} == {
        ("messages", 12, 5),
        ("prompt_tokens", 7, 10),
        ("users", 4, 0),
    }
    assert found.repaired
    assert (await rebuild(ZoneInfo("UTC"), repair=False)).differences == []
    assert right == (await totals(user.client), await user.client.query(USAGE, agent=SCOUT, **span))


async def test_days_are_days_of_the_companys_time_zone(store: Database) -> None:
    zone = ZoneInfo("America/St_Johns")
    at = datetime(2026, 5, 2, 2, 0, tzinfo=UTC)  # still 1 May there
    batch = Batch([Event(source="s", id="1", agent="Scout", at=at, prompt_tokens=3)], datetime.now(UTC))
    async with Commits(UsageEvent) as commits:
        await commits.submit(Counting(zone), batch)
    key = (await agents.require("Scout"))["_id"]

    lines = await days.timelines([key], first=at.date() - timedelta(days=1), last=at.date())

    assert lines[key].columns["prompt_tokens"] == [3, 0]
    assert (await rebuild(zone, repair=False)).differences == []
    assert len((await rebuild(ZoneInfo("UTC"), repair=True)).differences) > 0
    assert (await rebuild(ZoneInfo("UTC"), repair=False)).differences == []


EVENTS = st.lists(
    st.builds(
        Event,
        source=st.sampled_from(["a", "b"]),
        id=st.integers(0, 30).map(str),
        agent=st.sampled_from(["One", "Two", "Three"]),
        at=st.datetimes(datetime(2026, 1, 30), datetime(2026, 3, 2), timezones=st.just(UTC)),  # noqa: DTZ001  # the zone is the strategy's
        model=st.sampled_from([None, "m", "n"]),
        prompt_tokens=st.integers(0, 1000),
        completion_tokens=st.integers(0, 1000),
        user=st.sampled_from([None, "u", "v", "w"]),
        conversation=st.sampled_from([None, "c", "d"]),
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(EVENTS, min_size=1, max_size=5))
async def test_whatever_comes_in_whatever_order_counts_once(store: Database, batches: list[list[Event]]) -> None:
    await store.empty(keep=["sequences"])
    now = datetime(2026, 4, 1, tzinfo=UTC)
    first: dict[str, Event] = {}
    async with Commits(UsageEvent) as one, Commits(UsageEvent) as other:
        # Two queues stand for two processes that race for the same agents and the same keys.
        queues = [one, other, one, other, one]
        outcomes = await asyncio.gather(
            *(
                queue.submit(Counting(ZoneInfo("UTC")), Batch(batch, now))
                for queue, batch in zip(queues, batches, strict=False)
            )
        )
    for batch, answer in zip(batches, outcomes, strict=True):
        for each, outcome in zip(batch, answer, strict=True):
            if outcome.outcome is ItemOutcome.ACCEPTED:
                assert each.key not in first
                first[each.key] = each

    assert set(first) == {each.key for batch in batches for each in batch}
    for name in {each.agent for each in first.values()}:
        mine = [each for each in first.values() if each.agent == name]
        usage = (await agents.require(name))["usage"]
        assert usage["requests"] == len(mine)
        assert usage.get("total_tokens", 0) == sum(each.prompt_tokens + each.completion_tokens for each in mine)
        assert usage.get("users", 0) == len({each.user for each in mine} - {None})
        assert usage.get("conversations", 0) == len({each.conversation for each in mine} - {None})
    assert (await rebuild(ZoneInfo("UTC"), repair=False)).differences == []


async def test_what_was_counted_is_a_duplicate_after_its_agent_is_gone(user: Person) -> None:
    scout = await create(user.client, "Scout")
    events_sent = [event(str(number), agent={"id": scout}) for number in range(2)]
    await collect(user.client, *events_sent)
    await user.client.query('mutation { deleteAgent(input: {agent: {name: "Scout"}}) { deletedId } }')

    again = await collect(user.client, *events_sent)
    new = await collect(user.client, event("3", agent={"id": scout}))

    assert (again["duplicates"], again["rejected"]) == (2, 0)
    assert [item["code"] for item in new["items"]] == ["NOT_FOUND"]


@pytest.mark.parametrize("lost_first", [True, False])
async def test_an_event_of_no_agent_takes_no_other_down(user: Person, lost_first: bool) -> None:
    lost = event("1", agent={"id": "QWdlbnQ6NjU2NTY1NjU2NTY1NjU2NTY1NjU2NTY1"})
    good = event("1", agent={"name": "Scout"})

    found = await collect(user.client, *([lost, good] if lost_first else [good, lost]))

    assert (found["accepted"], found["rejected"] + found["duplicates"]) == (1, 1)
    assert found["items"][0]["index"] == (0 if lost_first else 1)
