"""Moving in: what the old registry holds is here afterwards, once, whatever was wrong with some of it."""

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import bcrypt
import pytest

from models.alerts import rules
from models.store import database
from models.store.database import Database, Key
from models.users import User
from tests import factories
from tests.client import Client
from tests.factories import Person
from tests.processes import Server, launch
from tests.test_alerts import alerts
from tests.test_server import refusal, said_by
from tests.test_usage import collect, event

OLD = "old_registry_test"
PASSWORD = "an old password"  # of accounts that live for a test
AGENTS = """
query ($after: String) {
  agents(first: 100, after: $after) {
    pageInfo { endCursor hasNextPage }
    nodes {
      name discipline status auditStatus tags owner { email } createdAt
      rating { average count }
      usage { messages conversations users totalTokens promptTokens completionTokens }
      usageTimeline(days: 120) { day totalTokens messages }
    }
  }
}
"""
NOW = datetime.now(UTC).replace(microsecond=0)
TODAY = NOW.date()
Store = Any  # Motor's database


async def fill(old: Store, *, people: int, agents: int, days: int, ratings: int) -> None:
    """Write a registry as the old system did: naive times, ids as text and as ids, words as people read them."""
    dice = random.Random(11)
    hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    naive = NOW.replace(tzinfo=None)
    users = [
        {
            "_id": Key(),
            "email": f"Person{n}@example.com",
            "full_name": f"Person {n}",
            "hashed_password": hashed,
            "role": "admin" if n == 0 else "user",
            "is_active": n != 3,
            "created_at": naive - timedelta(days=400),
        }
        for n in range(people)
    ]
    disciplines = ["Strategy", "Creative", "Oversight", "Delivery", "Optimization", "Back Office", "Operations", None]
    registered: list[dict[str, Any]] = [
        {
            "_id": Key(),
            "name": f"Pencil {n}" if n % 50 == 7 else f"Agent {n}",
            "description": "Does\r\nthings.",
            "discipline": None if n % 50 == 7 else disciplines[n % 8],
            "status": dice.choice(["Active", "Inactive", "Development", "Deprecated"]),
            "audit_status": dice.choice(["Audited", "Not Audited"]),
            "tags": ["a", "b"] if n % 2 else "a, b",
            "owner_id": str(users[n % people]["_id"]) if n % 3 else users[n % people]["_id"],
            "created_at": naive - timedelta(days=300),
            "updated_at": naive - timedelta(days=2),
            "conversations": n,
            "users": n % 7,
        }
        for n in range(agents)
    ]
    usage: list[dict[str, Any]] = []
    for n in range(days):
        agent = registered[n % agents]
        prompt, completion = dice.randint(0, 900), dice.randint(0, 300)
        day = TODAY - timedelta(days=1 + n // agents)
        usage.append(
            {
                "agent_id": agent["_id"] if n % 2 else str(agent["_id"]),
                "date": day.isoformat() if n % 5 else datetime(day.year, day.month, day.day),  # noqa: DTZ001  # as it was
                "messages": dice.randint(0, 9),
                "prompt_tokens": prompt,
                "completion_tokens": completion,
                "total_tokens": prompt + completion + dice.choice([0, 50]),
            }
        )
    for agent in registered:
        mine = [each for each in usage if str(each["agent_id"]) == str(agent["_id"])]
        # What was used before the days were kept is in the totals alone.
        for name, more in {"messages": 9, "prompt_tokens": 600, "completion_tokens": 400, "total_tokens": 1000}.items():
            agent[name] = sum(each[name] for each in mine) + more
    pairs = dice.sample([(a, u) for a in registered for u in users], ratings)
    await old["users"].insert_many(users)
    await old["agents"].insert_many(registered)
    await old["agent_usage"].insert_many(usage)
    await old["token_notifications"].insert_many(
        [{"agent_id": each["_id"], "sent_at": naive - timedelta(hours=2)} for each in registered[::10]]
    )
    await old["agent_ratings"].insert_many(
        [
            {
                "agent_id": agent["_id"],
                "user_id": str(user["_id"]),
                "rating": dice.randint(1, 5),
                "created_at": naive - timedelta(days=9),
            }
            for agent, user in pairs
        ]
    )


@pytest.fixture
async def old(bound: Database) -> AsyncIterator[Store]:
    """Give an empty database beside ours."""
    await bound.client.drop_database(OLD)
    yield bound.client[OLD]
    await bound.client.drop_database(OLD)


async def everything(store: Store) -> Mapping[str, Any]:
    """Read a whole database, but for what MongoDB removes on its own once it is full again."""
    names = [name for name in await store.list_collection_names() if not name.startswith(("system.", "buckets"))]
    return {name: await store[name].find({}).sort("_id", 1).to_list(None) for name in sorted(names)}


async def move(server: Server, mongodb_uri: str, *more: str) -> str:
    """Run the command and give what it printed."""
    return await said_by("import-agenthub", "--from", _within(mongodb_uri), *more, **server.settings)


def _within(mongodb_uri: str) -> str:
    head, _, options = mongodb_uri.partition("/?")
    return f"{head.rstrip('/')}/{OLD}?{options}"


async def every_agent(client: Client) -> list[dict[str, Any]]:
    """Read all agents, page by page."""
    found: list[dict[str, Any]] = []
    after = None
    while True:
        page = (await client.query(AGENTS, after=after))["agents"]
        found += page["nodes"]
        if not page["pageInfo"]["hasNextPage"]:
            return found
        after = page["pageInfo"]["endCursor"]


async def test_a_whole_registry_moves_in_once(
    *, old: Store, server: Server, mongodb_uri: str, admin: Person, client: Client, store: Database
) -> None:
    await fill(old, people=50, agents=300, days=20_000, ratings=2_000)
    source = await everything(old)

    said = await move(server, mongodb_uri)

    assert [
        line.split()[1:9:2] for line in said.splitlines() if "users" in line or "agent" in line or "token" in line
    ] == [
        ["users", "50", "50", "0"],
        ["agents", "300", "300", "0"],
        ["agent_usage", "20,000", "20,000", "0"],
        ["token_notifications", "30", "30", "0"],
        ["agent_ratings", "2,000", "2,000", "0"],
    ]
    emails = {str(each["_id"]): each["email"].lower() for each in source["users"]}
    stars: dict[str, list[int]] = defaultdict(list)
    tokens: dict[str, dict[str, int]] = defaultdict(dict)
    for each in source["agent_ratings"]:
        stars[str(each["agent_id"])].append(each["rating"])
    for each in source["agent_usage"]:
        tokens[str(each["agent_id"])][str(each["date"])[:10]] = each["total_tokens"]
    here = {each["name"]: each for each in await every_agent(admin.client)}
    assert len(here) == 300
    for each in source["agents"]:
        found, key = here[each["name"]], str(each["_id"])
        assert found["owner"]["email"] == emails[str(each["owner_id"])]
        assert found["usage"] == {
            "messages": each["messages"],
            "conversations": each["conversations"],
            "users": each["users"],
            "totalTokens": each["total_tokens"],
            "promptTokens": each["prompt_tokens"],
            "completionTokens": each["completion_tokens"],
        }
        assert {line["day"]: line["totalTokens"] for line in found["usageTimeline"] if line["totalTokens"]} == {
            day: count for day, count in tokens[key].items() if count
        }
        assert found["rating"]["count"] == len(stars[key])
        if stars[key]:
            assert found["rating"]["average"] == pytest.approx(sum(stars[key]) / len(stars[key]))
        assert found["tags"] == ["a", "b"]
    assert here["Agent 3"]["discipline"] == "OVERSIGHT"
    assert here["Agent 6"]["discipline"] == "BACK_OFFICE"
    assert here["Pencil 7"]["discipline"] == "PENCIL_AGENTS"
    assert await alerts(admin.client) == []
    assert "0 figures differed" in await said_by("rebuild", "usage", "--check", **server.settings)
    await an_old_account_signs_in(client)

    before = await everything(store.handle)
    again = await move(server, mongodb_uri)
    after = await everything(store.handle)

    assert [line.split()[3:9:2] for line in again.splitlines() if "agent_usage" in line] == [["20,000", "0", "20,000"]]
    assert {name: rows for name, rows in after.items() if rows != before[name]} == {}
    assert await everything(old) == source


async def an_old_account_signs_in(client: Client) -> None:
    """Sign in with the old password, which is hashed as ours are from then on."""
    person = await factories.sign_in(client, email="person5@example.com", password=PASSWORD)
    stored = await database.collection(User).find_one({"email": person.email})
    assert stored is not None
    assert stored["password_hash"].startswith("$argon2id$")
    assert stored["created_at"] < NOW - timedelta(days=399)
    assert (
        await client.execute(factories.LOGIN, {"input": {"email": "person3@example.com", "password": PASSWORD}})
    ).codes


async def test_what_cannot_be_taken_is_said_and_the_rest_is_taken(
    old: Store, server: Server, mongodb_uri: str, admin: Person
) -> None:
    await fill(old, people=3, agents=4, days=8, ratings=4)
    agent = (await old["agents"].find_one({"name": "Agent 1"}))["_id"]
    person = (await old["users"].find_one({}))["_id"]
    # Read in the order of their ids: these come last.
    ids = {name: Key("ffffffffffffffffffffff" + name) for name in ("01", "02", "03", "04")}
    await old["users"].insert_many(
        [
            {"_id": ids["01"], "full_name": "No address", "hashed_password": "$2b$x"},
            {"_id": ids["02"], "email": "PERSON1@example.com", "hashed_password": "$2b$x"},
            {"_id": ids["03"], "email": "plain@example.com", "hashed_password": "plain text"},
        ]
    )
    await old["agents"].insert_many(
        [
            {"_id": ids["01"], "name": "Agent 1"},
            {"_id": ids["02"], "name": "x" * 201},
            {"_id": ids["03"], "name": "Odd", "discipline": "Astrology"},
            {"_id": ids["04"], "name": "Orphan", "owner": "nobody@example.com"},
        ]
    )
    await old["agent_usage"].insert_many(
        [
            {"_id": "d1", "agent_id": "gone", "date": "2026-05-01", "messages": 1},
            {"_id": "d2", "agent_id": agent, "date": "soon", "messages": 1},
            {"_id": "d3", "agent_id": agent, "date": "2026-05-01", "messages": -1},
            {"_id": "d4", "agent_id": agent, "date": "2026-05-01", "total_tokens": float("nan")},
            {"_id": "d5", "agent_id": agent, "date": "2026-05-01", "total_tokens": 1, "prompt_tokens": 2},
        ]
    )
    await old["agent_ratings"].insert_many(
        [
            {"_id": "r1", "agent_id": agent, "user_id": person, "rating": 7},
            {"_id": "r2", "agent_id": agent, "user_id": "nobody", "rating": 3},
            {"_id": "r3", "agent_id": "gone", "user_id": person, "rating": 3},
        ]
    )

    said = await move(server, mongodb_uri)

    for line in (
        f"users {ids['01']}: email:",
        f"users {ids['02']}: there is another account of person1@example.com",
        f"users {ids['03']}: it has no password hash",
        f"agents {ids['01']}: 'Agent 1': there is another of this name",
        f"agents {ids['02']}: name: At most 200 characters.",
        f"agents {ids['03']}: 'Astrology' is none of STRATEGY",
        f"agents {ids['04']}: taken without its owner 'nobody@example.com'",
        "agent_usage d1: its agent 'gone' was not moved",
        "agent_usage d2: it does not say of which day",
        "agent_usage d3: messages is out of range",
        "agent_usage d4: total_tokens is no whole number",
        "agent_usage d5: its total is below",
        "agent_ratings r1: stars:",
        "agent_ratings r2: its rater 'nobody' was not moved",
        "agent_ratings r3: its agent 'gone' was not moved",
    ):
        assert line in said, line
    here = {each["name"]: each for each in await every_agent(admin.client)}
    assert sorted(here) == ["Agent 0", "Agent 1", "Agent 2", "Agent 3", "Orphan"]
    assert here["Orphan"]["owner"] is None
    assert sum(each["rating"]["count"] for each in here.values()) == 4


async def test_what_is_here_already_stays_and_usage_adds_up(
    *, old: Store, server: Server, mongodb_uri: str, admin: Person, client: Client
) -> None:
    await fill(old, people=2, agents=2, days=2, ratings=2)
    me = await factories.sign_up(client, email="person1@example.com", name="Me")
    await collect(me.client, event("1", agent={"name": "Agent 0"}, at="2026-05-01T00:00:00Z"))
    total = (await old["agents"].find_one({"name": "Agent 0"}))["total_tokens"]

    await move(server, mongodb_uri)

    assert (await me.client.query("{ me { name } }"))["me"]["name"] == "Me"
    here = {each["name"]: each for each in await every_agent(admin.client)}
    assert here["Agent 0"]["usage"]["totalTokens"] == total + 15
    assert here["Agent 0"]["owner"] is None
    assert here["Agent 1"]["owner"]["email"] == "person1@example.com"

    await old["agents"].update_one({"name": "Agent 0"}, {"$inc": {"total_tokens": 100}})
    await move(server, mongodb_uri)
    here = {each["name"]: each for each in await every_agent(admin.client)}
    assert here["Agent 0"]["usage"]["totalTokens"] == total + 115


async def test_history_raises_no_alert_and_a_cooldown_goes_on(
    *, old: Store, server: Server, mongodb_uri: str, admin: Person, store: Database
) -> None:
    naive = NOW.replace(tzinfo=None)
    names = ["Told today", "Told last week", "Never told"]
    await old["agents"].insert_many([{"_id": name, "name": name, "total_tokens": 500_000} for name in names])
    await old["token_notifications"].insert_many(
        [
            {"agent_id": names[0], "sent_at": naive - timedelta(hours=2)},
            {"agent_id": names[0], "sent_at": naive - timedelta(days=30)},
            {"agent_name": names[1], "sent_at": (NOW - timedelta(days=7)).isoformat()},
        ]
    )

    await move(server, mongodb_uri)
    assert await alerts(admin.client) == []
    await collect(admin.client, *(event(name, agent={"name": name}) for name in names))

    assert {each["agent"]["name"] for each in await alerts(admin.client)} == {"Told last week", "Never told"}
    assert await store.handle["alert_rules"].count_documents({"_id": rules.DEFAULT_RULE}) == 1


async def test_a_dry_run_changes_nothing(old: Store, server: Server, mongodb_uri: str, store: Database) -> None:
    await fill(old, people=3, agents=4, days=8, ratings=4)
    await said_by("rebuild", "usage", "--check", **server.settings)
    before = await everything(store.handle)

    said = await move(server, mongodb_uri, "--dry-run")

    assert "would be taken" in said
    after = await everything(store.handle)
    assert {name for name in after if after[name] != before.get(name, [])} <= {"alert_rules"}


async def test_a_move_that_was_killed_is_finished_by_the_next(
    *, old: Store, server: Server, mongodb_uri: str, admin: Person, store: Database
) -> None:
    await fill(old, people=10, agents=60, days=1200, ratings=300)
    source = await everything(old)
    for delay in (2.0, 2.3, 2.6):
        process = await launch("import-agenthub", "--from", _within(mongodb_uri), **server.settings)
        assert process.stdout is not None
        # It starts for a second or so; then it is killed at three places of its work.
        with suppress(TimeoutError):
            await asyncio.wait_for(process.stdout.read(), delay)
        if process.returncode is None:
            process.kill()
        await process.wait()

    await move(server, mongodb_uri)

    here = {each["name"]: each for each in await every_agent(admin.client)}
    assert {name: each["usage"]["totalTokens"] for name, each in here.items()} == {
        each["name"]: each["total_tokens"] for each in source["agents"]
    }
    assert sum(each["rating"]["count"] for each in here.values()) == 300
    assert "0 figures differed" in await said_by("rebuild", "usage", "--check", **server.settings)


async def test_a_source_that_is_not_there_is_said_in_one_line(server: Server) -> None:
    nowhere = "mongodb://somebody:secret@127.0.0.1:9/agenthub_db?serverSelectionTimeoutMS=500"

    said = await refusal("import-agenthub", "--from", nowhere, **server.settings)

    assert "127.0.0.1:9 cannot be read" in said
    assert "secret" not in said


async def test_what_was_moved_is_known_again_whatever_it_is_called_by_now(
    *, old: Store, server: Server, mongodb_uri: str, admin: Person, client: Client, store: Database
) -> None:
    await fill(old, people=2, agents=3, days=6, ratings=4)
    await move(server, mongodb_uri)
    rename = 'mutation ($to: String) { updateAgent(input: {agent: {name: "Agent 0"}, name: $to}) { agent { id } } }'
    await admin.client.query(rename, to="Renamed")
    await admin.client.query('mutation { deleteAgent(input: {agent: {name: "Agent 1"}}) { deletedId } }')
    await store.handle["users"].update_one({"email": "person1@example.com"}, {"$set": {"email": "new@example.com"}})
    total = (await old["agents"].find_one({"name": "Agent 0"}))["total_tokens"]
    await old["agents"].update_one({"name": "Agent 0"}, {"$inc": {"total_tokens": 100}})

    said = await move(server, mongodb_uri)

    here = {each["name"]: each for each in await every_agent(admin.client)}
    assert sorted(here) == ["Agent 2", "Renamed"]
    assert here["Renamed"]["usage"]["totalTokens"] == total + 100
    assert "deleted here since" in said
    assert await store.handle["users"].count_documents({}) == 3


async def test_who_could_not_be_moved_and_registers_finds_what_they_rated(
    *, old: Store, server: Server, mongodb_uri: str, admin: Person, client: Client
) -> None:
    await fill(old, people=1, agents=1, days=1, ratings=1)
    await old["users"].update_many({}, {"$unset": {"hashed_password": ""}})
    assert "its rater" in await move(server, mongodb_uri)
    await factories.sign_up(client, email="person0@example.com")

    await move(server, mongodb_uri)

    (agent,) = await every_agent(admin.client)
    assert agent["rating"]["count"] == 1


async def test_two_moves_at_once_take_everything_once(
    *, old: Store, server: Server, mongodb_uri: str, admin: Person
) -> None:
    await fill(old, people=10, agents=60, days=1200, ratings=300)
    source = await everything(old)

    await asyncio.gather(move(server, mongodb_uri), move(server, mongodb_uri))

    here = {each["name"]: each for each in await every_agent(admin.client)}
    assert {name: each["usage"]["totalTokens"] for name, each in here.items()} == {
        each["name"]: each["total_tokens"] for each in source["agents"]
    }
    assert sum(each["rating"]["count"] for each in here.values()) == 300
    assert "0 figures differed" in await said_by("rebuild", "usage", "--check", **server.settings)


async def test_neither_an_empty_database_nor_our_own_is_moved_from(
    old: Store, server: Server, mongodb_uri: str
) -> None:
    empty = await refusal("import-agenthub", "--from", _within(mongodb_uri), **server.settings)
    ours = await refusal(
        "import-agenthub", **server.settings, IMPORT_FROM=_within(mongodb_uri).replace(OLD, "agenthub_test")
    )

    assert f"There is nothing to move in the database {OLD}." in empty
    assert "a database of AgentHub itself" in ours


@pytest.mark.parametrize(
    "address", ["mongodb://u:hidden@127.0.0.1:port/old", "postgres://u:hidden@127.0.0.1/old", "mongodb://u:hid den@/@x"]
)
async def test_an_address_that_cannot_be_read_is_refused_without_its_password(server: Server, address: str) -> None:
    said = await refusal("import-agenthub", "--from", address, **server.settings)

    assert "cannot be read" in said
    assert "hid" not in said
