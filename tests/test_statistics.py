"""Statistics: what agents are, who was here, and this month against the last."""

from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from models.store.database import Database
from tests import factories
from tests.client import Client
from tests.factories import Person
from tests.test_agents import create
from tests.test_batching import commands
from tests.test_usage import collect, event

STATISTICS = """
{
  statistics {
    agents {
      total unclaimed
      byStatus { status count }
      byAuditStatus { auditStatus count }
      byDiscipline { discipline count }
      byProject { project count }
    }
    users { total active admins agentsPerUser seenLastDay seenLastWeek seenLastMonth lastSeenAt }
    usage {
      thisMonth { totalTokens cost }
      lastMonth { totalTokens cost }
      lastMonthToDate { totalTokens cost }
      tokensChange
      costChange
    }
    topAgents(first: 2) { agent { name } totals { totalTokens } }
  }
}
"""
TODAY = datetime.now(UTC).date()
FIRST = TODAY.replace(day=1)
LAST = FIRST - timedelta(days=1)


async def statistics(client: Client) -> dict[str, Any]:
    """Read the company in figures."""
    found: dict[str, Any] = (await client.query(STATISTICS))["statistics"]
    return found


def noon(day: date) -> str:
    """Give the middle of a day, as clients send it."""
    return datetime.combine(day, time(12), UTC).isoformat()


async def test_an_empty_company_reads_zero(admin: Person) -> None:
    found = await statistics(admin.client)

    assert found["agents"]["total"] == found["agents"]["unclaimed"] == 0
    assert [each["count"] for each in found["agents"]["byStatus"]] == [0] * 4
    assert found["agents"]["byDiscipline"][-1] == {"discipline": None, "count": 0}
    assert found["agents"]["byProject"] == found["topAgents"] == []
    assert found["usage"] == {
        "thisMonth": {"totalTokens": 0, "cost": "0"},
        "lastMonth": {"totalTokens": 0, "cost": "0"},
        "lastMonthToDate": {"totalTokens": 0, "cost": "0"},
        "tokensChange": None,
        "costChange": None,
    }


async def test_agents_are_counted_by_what_they_are(admin: Person) -> None:
    for name, values in {
        "Able": {"discipline": "STRATEGY", "project": "Northstar", "status": "INACTIVE"},
        "Baker": {"discipline": "STRATEGY", "project": "Northstar"},
        "Charlie": {"discipline": "CREATIVE", "project": "Bluebird"},
        "Dog": {"status": "INACTIVE"},
    }.items():
        await create(admin.client, name, **values)
    await admin.client.query('mutation { deleteAgent(input: {agent: {name: "Dog"}}) { deletedId } }')
    await admin.client.query(
        'mutation { updateAgent(input: {agent: {name: "Able"}, auditStatus: AUDITED}) { agent { id } } }'
    )
    await collect(admin.client, event("1", agent={"name": "Nobody's"}))

    found = (await statistics(admin.client))["agents"]

    assert (found["total"], found["unclaimed"]) == (4, 1)
    assert {each["status"]: each["count"] for each in found["byStatus"] if each["count"]} == {
        "INACTIVE": 1,
        "ACTIVE": 3,
    }
    assert {each["auditStatus"]: each["count"] for each in found["byAuditStatus"] if each["count"]} == {
        "AUDITED": 1,
        "NOT_AUDITED": 3,
    }
    assert {each["discipline"]: each["count"] for each in found["byDiscipline"] if each["count"]} == {
        "STRATEGY": 2,
        "CREATIVE": 1,
        None: 1,
    }
    assert found["byProject"] == [
        {"project": "Northstar", "count": 2},
        {"project": None, "count": 1},
        {"project": "Bluebird", "count": 1},
    ]


async def test_people_are_counted(admin: Person, user: Person, store: Database) -> None:
    away = await factories.sign_up(admin.client.with_token(None), email="away@example.com")
    await factories.sign_up(admin.client.with_token(None), email="gone@example.com")
    await create(user.client, "Scout")
    await create(user.client, "Ranger")
    await create(away.client, "Elder")
    users = store.handle["users"]
    weeks_ago = datetime.now(UTC) - timedelta(days=20)
    await users.update_one({"email": "away@example.com"}, {"$set": {"last_seen_at": weeks_ago}})
    await users.update_one({"email": "gone@example.com"}, {"$set": {"active": False}})

    found = (await statistics(admin.client))["users"]

    last = datetime.fromisoformat(found.pop("lastSeenAt"))
    assert found == {
        "total": 4,
        "active": 3,
        "admins": 1,
        "agentsPerUser": 1.0,
        "seenLastDay": 2,
        "seenLastWeek": 2,
        "seenLastMonth": 3,
    }
    assert datetime.now(UTC) - last < timedelta(minutes=2)
    owners = await admin.client.query("{ users { nodes { email agentCount } } }")
    assert {each["email"]: each["agentCount"] for each in owners["users"]["nodes"]} == {
        "admin@example.com": 0,
        "away@example.com": 1,
        "gone@example.com": 0,
        "user@example.com": 2,
    }


async def test_this_month_stands_against_as_much_of_the_last(admin: Person) -> None:
    start_of_last = LAST.replace(day=1)
    figures = {"promptTokens": 100, "completionTokens": 0, "cost": "2"}
    await collect(
        admin.client,
        event("1", at=noon(start_of_last), **figures),
        event("2", at=noon(LAST), **figures),
        event("3", at=noon(FIRST) if TODAY > FIRST else None, **figures | {"cost": "3"}),
        event("4", at=noon(start_of_last - timedelta(days=1)), **figures),
        event("5", agent={"name": "Deleted"}, promptTokens=50, completionTokens=0),
        event("6", agent={"name": "Ranger"}, promptTokens=25, completionTokens=0),
    )
    await admin.client.query('mutation { deleteAgent(input: {agent: {name: "Deleted"}}) { deletedId } }')

    found = await statistics(admin.client)

    whole_month = TODAY.day >= LAST.day
    before = 200 if whole_month else 100
    assert found["usage"] == {
        "thisMonth": {"totalTokens": 175, "cost": "3"},
        "lastMonth": {"totalTokens": 200, "cost": "4"},
        "lastMonthToDate": {"totalTokens": before, "cost": "4" if whole_month else "2"},
        "tokensChange": (175 - before) / before * 100,
        "costChange": -25.0 if whole_month else 50.0,
    }
    assert found["topAgents"] == [
        {"agent": {"name": "Scout"}, "totals": {"totalTokens": 100}},
        {"agent": {"name": "Deleted"}, "totals": {"totalTokens": 50}},
    ]


async def test_each_is_one_read_and_none_looks_at_events(admin: Person, store: Database) -> None:
    await collect(admin.client, *(event(str(number)) for number in range(50)))

    sent = await commands(store, admin, STATISTICS)

    read = [each.rpartition(".")[2] for each in sent]
    # By status, by discipline and the names of the busiest; the months that are kept; people.
    assert sorted(read) == ["agents", "agents", "agents", "usage_months", "usage_months", "users"]
