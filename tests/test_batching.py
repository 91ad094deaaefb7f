"""What a list costs: as many database commands for twenty agents as for two."""

from typing import Any

import pytest

from models.store.database import Database
from tests.factories import Person
from tests.test_agents import create
from tests.test_ratings import RATE
from tests.test_usage import collect, event

NESTED = """
query ($first: Int) {
  agents(first: $first) {
    totalCount
    nodes {
      name
      owner { name }
      rating { average mine }
      usage { totalTokens }
      usageTimeline { totalTokens }
      usageByHour { totalTokens }
      ratings(first: 3) { totalCount nodes { stars user { name } agent { name } } }
      alerts(first: 3) { totalCount nodes { percent agent { name } rule { name } acknowledgedBy { name } } }
    }
  }
}
"""
OWNERS = """
query ($first: Int) {
  users(first: $first) { nodes { name agents(first: 2) { totalCount nodes { name owner { name } } } } }
}
"""
FLEET = "query ($first: Int) { usage { totals { cost } byAgent(first: $first) { agent { name owner { name } } } } }"
ALERTS = "query ($first: Int) { alerts(first: $first) { nodes { agent { name } rule { name } } } }"
LISTS = {"agents": NESTED, "owners": OWNERS, "fleet": FLEET, "alerts": ALERTS}


async def commands(store: Database, person: Person, document: str, **variables: Any) -> list[str]:
    """Run a document and give the commands that its reads sent, by what they read."""
    # Who reads something first may have it noted that they were here, once a minute.
    await person.client.query("{ __typename }")
    await store.handle.command("profile", 2)
    try:
        await person.client.query(document, **variables)
    finally:
        await store.handle.command("profile", 0)
    profile = store.handle["system.profile"]
    # The server itself looks for new alerts, for what is due and for prices, whoever asks for what.
    sent = [
        f"{each['op']} {each['ns']}"
        async for each in profile.find({"op": {"$in": ["query", "command"]}})
        if "lsid" in each["command"]
        and each["command"].get("filter", {}).keys() != {"_id"}
        and not each["ns"].endswith(("outbox", ".messages", ".prices"))
        # Who asks is read once a second.
        and not each["ns"].endswith(".sessions")
    ]
    await profile.drop()
    return sorted(sent)


@pytest.mark.parametrize("name", LISTS)
async def test_a_list_costs_as_many_commands_however_long_it_is(admin: Person, store: Database, name: str) -> None:
    for number in range(20):
        agent = f"Agent {number:02d}"
        await create(admin.client, agent)
        await admin.client.query(RATE, agent={"name": agent}, stars=3)
        await collect(admin.client, event(f"{number}", agent={"name": agent}, promptTokens=200_000))

    few = await commands(store, admin, LISTS[name], first=2)
    many = await commands(store, admin, LISTS[name], first=20)

    assert few
    assert many == few
