"""What a list costs: as many database commands for twenty agents as for two."""

from typing import Any

import pytest

from models.store.database import Database
from tests.factories import Person
from tests.talking import INJECT
from tests.test_agents import create
from tests.test_ratings import RATE
from tests.test_runs import record, run
from tests.test_usage import collect, event

SET_PRICE = "mutation ($input: SetPriceInput!) { setPrice(input: $input) { price { id } } }"
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
VERSIONS = """
query ($first: Int) {
  agentVersions(first: $first) {
    nodes { version agent { name owner { name } } metrics { totalRuns } runs(first: 2) { nodes { runId } } }
  }
}
"""
RUNS = "query ($first: Int) { runs(first: $first) { nodes { runId agent { name } version { version } } } }"
ACTIVITY = "query ($first: Int) { recentActivity(first: $first) { agent { name } run { runId version { version } } } }"
THREADS = """
query ($first: Int) {
  threads(first: $first) {
    nodes { participants { name state queueDepth } budget { remaining } messages(first: 2) { nodes { payload } } }
  }
}
"""
MESSAGES = """
query ($first: Int) {
  messages(first: $first) {
    nodes { payload sender { name } recipient { name peers { name } } thread { key } parent { id } delivery { status } }
  }
}
"""
STATES = """
query ($first: Int) {
  agents(first: $first) { nodes { state queueDepth currentThread { key } messageCount runMetrics { spend } } }
}
"""
PRICES = "query ($first: Int) { prices(first: $first) { nodes { modelPrefix setBy { name } } } }"
LISTS = {
    "agents": NESTED,
    "owners": OWNERS,
    "fleet": FLEET,
    "alerts": ALERTS,
    "versions": VERSIONS,
    "runs": RUNS,
    "activity": ACTIVITY,
    "threads": THREADS,
    "messages": MESSAGES,
    "states": STATES,
    "prices": PRICES,
}


def _is_background(sent: dict[str, Any]) -> bool:
    """Tell what the server reads of its own accord, whoever asks for what; nothing else may have these forms."""
    command = sent["command"]
    where = command.get("filter", command.get("query", {}))
    return (
        # What is due.
        "$$NOW" in str(where.get("$expr"))
        # What was stored after a number, once a second: alerts and what happens in the organism.
        or (where.keys() == {"_id"} and isinstance(where["_id"], dict) and where["_id"].keys() == {"$gt"})
        # The price table, and once a second who asks.
        or (sent["ns"].endswith(".prices") and where == {"deleted_at": None})
        or sent["ns"].endswith(".sessions")
        # Queues that may not stand as they should, ten times a second.
        or where.keys() == {"unaligned_at"}
    )


async def commands(store: Database, person: Person, document: str, **variables: Any) -> list[str]:
    """Run a document and give the commands that its reads sent, by what they read."""
    # Once a minute it is noted that somebody was here, and at its first run which resolvers of a document need tasks.
    await person.client.query(document, **variables)
    await store.handle.command("profile", 2)
    try:
        await person.client.query(document, **variables)
    finally:
        await store.handle.command("profile", 0)
    profile = store.handle["system.profile"]
    sent = [
        f"{each['op']} {each['ns']}"
        async for each in profile.find({"op": {"$in": ["query", "command"]}})
        if "lsid" in each["command"] and not _is_background(each)
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
        await record(admin.client, run(f"{number}"), agent={"name": agent})
        letter = {"to": {"name": agent}, "payloadType": "note", "payload": {}, "thread": {"key": agent}}
        await admin.client.query(INJECT, input=letter)
        await admin.client.query(SET_PRICE, input={"modelPrefix": agent, "prompt": "1", "completion": "1"})

    few = await commands(store, admin, LISTS[name], first=2)
    many = await commands(store, admin, LISTS[name], first=20)

    assert few
    assert many == few
