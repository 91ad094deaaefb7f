"""The organism: what its file declares, how it is applied, and what is refused."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from models.store import database
from models.store.database import Database
from models.store.database import Session as DatabaseSession
from models.threads import conversations, events
from models.threads.events import EventKind
from tests import factories
from tests.client import Client, GraphQLErrors
from tests.factories import Person
from tests.listening import listening
from tests.processes import ROOT, Server, launch
from tests.test_organism_file import WHOLE

CREATE = "mutation ($name: String!) { createAgent(input: {name: $name, discipline: CREATIVE}) { agent { id } } }"
DECLARED = """
{ agents { nodes {
  name description isAgent retiredAt peers { name } payloadTypes { name description schema example }
} } }
"""
RELOAD = "mutation { reloadOrganism { organism { name revision } changes { part name kind fields } } }"
OVERVIEW = """
{ organism {
  name description revision appliedAt
  counts { agents listeners capabilities alertRules activeThreads queuedMessages states { state agents } }
  lastChanges { part name kind }
  agents(first: 1) {
    totalCount pageInfo { endCursor } nodes { agent { name } description endpoint capabilities { name } }
  }
  configuration { name value secret given description }
} }
"""
RULES = "{ alertRules { id name threshold agent { name } percents } }"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the place of the file that the servers of this module apply."""
    path = tmp_path_factory.mktemp("organism") / "organism.yaml"
    write(path, "name: Nobody yet")
    return path


@pytest.fixture(scope="module")
async def servers(mongodb_uri: str, bound: Database, path: Path) -> AsyncIterator[list[Server]]:
    """Run two servers on one database and one file."""
    same = {"SECRET_KEY": "0123456789abcdef0123456789abcdef01", "ORGANISM_FILE": str(path)}
    async with Server(mongodb_uri, **same) as one, Server(mongodb_uri, **same) as other:
        yield [one, other]


@pytest.fixture
async def operator(servers: list[Server], session: aiohttp.ClientSession, store: Database, path: Path) -> Person:
    """Give an admin at the first server; the file is the whole one."""
    write(path, WHOLE)
    return await factories.sign_in_admin(Client(session, servers[0].graphql))


def write(path: Path, text: str) -> None:
    """Have the file say something else."""
    path.write_text(text)


def remove(path: Path) -> None:
    """Take the file away."""
    path.unlink()


async def reload(client: Client) -> list[tuple[str, ...]]:
    """Apply the file, and give what that has changed."""
    changes = (await client.query(RELOAD))["reloadOrganism"]["changes"]
    return [(each["part"], each["name"], each["kind"], *each["fields"]) for each in changes]


async def declared(client: Client) -> dict[str, Any]:
    """Give what is declared of each agent."""
    return {each["name"]: each for each in (await client.query(DECLARED))["agents"]["nodes"]}


ALL_NEW = [
    ("AGENT", "Greeter", "ADDED"),
    ("AGENT", "Scribe", "ADDED"),
    ("ALERT_RULE", "Chatty", "ADDED"),
    ("CAPABILITY", "translate", "ADDED"),
    ("ORGANISM", "Harbour Desk", "ADDED"),
]

# ---------------------------------------------------------------- reads


async def test_the_overview_shows_all_but_secrets(operator: Person, path: Path) -> None:
    await reload(operator.client)
    await operator.client.query('mutation { pauseAgent(input: {agent: {name: "Scribe"}}) { agent { id } } }')
    await operator.client.query(INJECT, to="Scribe", payload={"text": "Hello"})

    organism = (await operator.client.query(OVERVIEW))["organism"]

    assert (organism["name"], organism["description"], organism["revision"]) == ("Harbour Desk", "Answers guests.", 1)
    assert organism["counts"] == {
        "agents": 1,
        "listeners": 1,
        "capabilities": 1,
        "alertRules": 1,
        "activeThreads": 1,
        "queuedMessages": 1,
        "states": [
            {"state": "IDLE", "agents": 1},
            {"state": "RUNNING", "agents": 0},
            {"state": "WAITING", "agents": 0},
            {"state": "PAUSED", "agents": 1},
            {"state": "ERROR", "agents": 0},
        ],
    }
    assert [(each["part"], each["name"], each["kind"]) for each in organism["lastChanges"]] == ALL_NEW
    assert organism["agents"]["totalCount"] == 2
    assert organism["agents"]["nodes"] == [
        {
            "agent": {"name": "Greeter"},
            "description": "Says hello.",
            "endpoint": "https://agents.example.com/inbox",
            "capabilities": [{"name": "translate"}],
        }
    ]
    settings = {each["name"]: each for each in organism["configuration"]}
    assert settings["ORGANISM_FILE"]["value"] == str(path)
    assert settings["WORKERS"]["value"] == "1"
    assert settings["REGISTRATION_OPEN"]["value"] == "true"
    for name in ("SECRET_KEY", "MONGODB_URI"):
        assert (settings[name]["value"], settings[name]["secret"], settings[name]["given"]) == (None, True, True)
    assert "0123456789abcdef" not in json.dumps(organism)
    assert "greeter:secret" not in json.dumps(organism)


async def test_the_rest_of_the_agents_is_a_page_further(operator: Person) -> None:
    await reload(operator.client)
    page = (await operator.client.query(OVERVIEW))["organism"]["agents"]["pageInfo"]["endCursor"]

    data = await operator.client.query(
        "query ($after: String) { organism { agents(after: $after) { nodes { agent { name } endpoint } } } }",
        after=page,
    )

    assert data["organism"]["agents"]["nodes"] == [{"agent": {"name": "Scribe"}, "endpoint": None}]


async def test_before_any_file_there_is_an_organism_without_a_name(admin: Person) -> None:
    data = await admin.client.query(
        "{ organism { name revision appliedAt agents { totalCount } } capabilities { name } }"
    )

    assert data == {
        "organism": {"name": None, "revision": 0, "appliedAt": None, "agents": {"totalCount": 0}},
        "capabilities": [],
    }


async def test_capabilities_are_read_with_schema_example_and_agents(operator: Person) -> None:
    await reload(operator.client)
    fields = "name description schema example agents { name }"

    data = await operator.client.query(
        f'{{ capabilities {{ {fields} }} capability(name: "translate") {{ {fields} }} none: capability(name: "x") {{ name }} }}'  # noqa: E501
    )

    translate = {
        "name": "translate",
        "description": "Between languages.",
        "schema": {"type": "object", "required": ["text"]},
        "example": {"text": "Guten Tag"},
        "agents": [{"name": "Greeter"}],
    }
    assert data == {"capabilities": [translate], "capability": translate, "none": None}


# ---------------------------------------------------------------- applying


async def test_a_file_registers_its_agents(operator: Person) -> None:
    changes = await reload(operator.client)

    assert changes == ALL_NEW
    agents = await declared(operator.client)
    task = {
        "name": "task",
        "description": "Work to do.",
        "schema": {"type": "object", "properties": {"text": {"type": "string"}}},
        "example": {"text": "Hello"},
    }
    assert agents == {
        "Greeter": {
            "name": "Greeter", "description": "Says hello.", "isAgent": True, "retiredAt": None,
            "peers": [{"name": "Scribe"}], "payloadTypes": [task],
        },
        "Scribe": {
            "name": "Scribe", "description": "", "isAgent": False, "retiredAt": None,
            "peers": [], "payloadTypes": [task],
        },
    }  # fmt: skip
    rules = (await operator.client.query(RULES))["alertRules"]
    chatty = next(each for each in rules if each["name"] == "Chatty")
    assert (chatty["threshold"], chatty["agent"], chatty["percents"]) == ("100", {"name": "Scribe"}, [80, 100])


async def test_an_agent_that_is_known_already_joins_and_stays_who_it_is(operator: Person) -> None:
    before = (await operator.client.query(CREATE, name="Greeter"))["createAgent"]["agent"]["id"]

    assert ("AGENT", "Greeter", "ADDED") in await reload(operator.client)

    found = (await operator.client.query('{ agent(by: {name: "Greeter"}) { id owner { email } description } }'))[
        "agent"
    ]
    assert found == {"id": before, "owner": {"email": operator.email}, "description": "Says hello."}


async def test_to_apply_it_again_changes_nothing(operator: Person) -> None:
    await reload(operator.client)

    assert await reload(operator.client) == []
    assert (await operator.client.query("{ organism { revision } }"))["organism"]["revision"] == 1


async def test_what_is_different_is_changed_and_told(operator: Person, path: Path) -> None:
    await reload(operator.client)
    changed = WHOLE.replace("Says hello.", "Greets.").replace("maxTokens: 50000", "maxTokens: 60000")
    write(
        path,
        changed.replace("threshold: 100", "threshold: 200")
        .replace("Between languages.", "Languages.")
        .replace("isAgent: false", "peers: [Greeter]"),
    )

    changes = await reload(operator.client)

    assert changes == [
        ("AGENT", "Greeter", "CHANGED", "description"),
        ("AGENT", "Scribe", "CHANGED", "isAgent", "peers"),
        ("ALERT_RULE", "Chatty", "CHANGED", "threshold"),
        ("CAPABILITY", "translate", "CHANGED", "description"),
        ("ORGANISM", "Harbour Desk", "CHANGED", "budget"),
    ]
    agents = await declared(operator.client)
    assert agents["Greeter"]["description"] == "Greets."
    assert agents["Scribe"]["peers"] == [{"name": "Greeter"}]


async def test_a_description_that_somebody_wrote_stays(operator: Person, path: Path) -> None:
    await reload(operator.client)
    await operator.client.query(
        'mutation { updateAgent(input: {agent: {name: "Greeter"}, description: "Mine."}) { agent { id } } }'
    )
    write(path, WHOLE.replace("Says hello.", "Greets."))

    await reload(operator.client)

    assert (await declared(operator.client))["Greeter"]["description"] == "Mine."
    agents = (await operator.client.query(OVERVIEW))["organism"]["agents"]["nodes"]
    assert agents[0]["description"] == "Greets."


async def test_what_is_gone_is_retired_and_comes_back_as_it_was(operator: Person, path: Path) -> None:
    await reload(operator.client)
    before = {each["name"]: each["id"] for each in (await operator.client.query(RULES))["alertRules"]}
    key = (await operator.client.query('{ agent(by: {name: "Scribe"}) { id } }'))["agent"]["id"]
    write(path, "name: Harbour Desk\ndescription: Answers guests.\nbudget: {maxTokens: 50000}")

    assert await reload(operator.client) == [
        ("AGENT", "Greeter", "REMOVED"),
        ("AGENT", "Scribe", "REMOVED"),
        ("ALERT_RULE", "Chatty", "REMOVED"),
        ("CAPABILITY", "translate", "REMOVED"),
    ]
    agents = await declared(operator.client)
    assert all(each["retiredAt"] for each in agents.values())
    assert "Chatty" not in {each["name"] for each in (await operator.client.query(RULES))["alertRules"]}
    assert (await operator.client.query(OVERVIEW))["organism"]["agents"]["totalCount"] == 0

    write(path, WHOLE)
    assert await reload(operator.client) == ALL_NEW[:4]
    assert (await operator.client.query('{ agent(by: {name: "Scribe"}) { id retiredAt } }'))["agent"] == {
        "id": key, "retiredAt": None,
    }  # fmt: skip
    assert before == {each["name"]: each["id"] for each in (await operator.client.query(RULES))["alertRules"]}


async def test_a_retired_agent_may_be_renamed_and_deleted(operator: Person, path: Path) -> None:
    await reload(operator.client)
    write(path, "name: Harbour Desk")
    await reload(operator.client)

    await operator.client.query('mutation { deleteAgent(input: {agent: {name: "Scribe"}}) { deletedId } }')

    write(path, WHOLE)
    assert ("AGENT", "Scribe", "ADDED") in await reload(operator.client)


async def test_a_declared_budget_is_that_of_new_threads_on_every_process(
    operator: Person, servers: list[Server], session: aiohttp.ClientSession, store: Database, path: Path
) -> None:
    other = Client(session, servers[1].graphql, operator.access_token)
    budget = "{ threads { nodes { budget { maxTokens } } } defaultThreadTokens }"
    assert (await other.query(budget))["defaultThreadTokens"] == 100_000

    await reload(operator.client)
    await open_thread(store, "one")

    declared = await other.query(budget)
    assert declared == {"threads": {"nodes": [{"budget": {"maxTokens": 50_000}}]}, "defaultThreadTokens": 50_000}
    write(path, "name: Harbour Desk")
    await reload(operator.client)
    assert (await other.query(budget))["defaultThreadTokens"] == 100_000


INJECT = """
mutation ($to: String!, $payload: JSON!) {
  injectMessage(input: {to: {name: $to}, payloadType: "task", payload: $payload}) { message { id } }
}
"""


async def test_what_waits_in_an_inbox_is_posted_to_an_endpoint_that_is_declared(
    mongodb_uri: str, session: aiohttp.ClientSession, bound: Database, path: Path
) -> None:
    write(path, WHOLE.replace("    endpoint: https://greeter:secret@agents.example.com/inbox?token=hidden\n", ""))
    taken: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

    async def take(request: web.Request) -> web.Response:
        taken.set_result(await request.json())
        return web.Response()

    # On a database of its own: other servers of this run deliver from theirs, and not to private addresses.
    settings = {
        "MONGODB_DBNAME": "organism_apart",
        "ADMIN_EMAIL": "admin@example.com",
        "ADMIN_PASSWORD": factories.PASSWORD,
        "ORGANISM_FILE": str(path),
        "WEBHOOKS_TO_PRIVATE_ADDRESSES": "true",
    }
    async with listening(take) as url, Server(mongodb_uri, **settings) as server:
        operator = await factories.sign_in(Client(session, server.graphql), email="admin@example.com")
        waiting = await operator.client.query(INJECT, to="Greeter", payload={"text": "Hello"})
        write(path, WHOLE.replace("https://greeter:secret@agents.example.com", url))
        assert await reload(operator.client) == [("AGENT", "Greeter", "CHANGED", "endpoint")]
        async with asyncio.timeout(30):
            message = (await taken)["data"]
    await bound.client.drop_database("organism_apart")

    assert message["message"] == waiting["injectMessage"]["message"]["id"]
    assert message["payload"] == {"text": "Hello"}


async def test_a_payload_has_to_fit_what_is_declared_and_a_retired_agent_takes_none(
    operator: Person, path: Path
) -> None:
    await reload(operator.client)

    with pytest.raises(GraphQLErrors) as unfit:
        await operator.client.query(INJECT, to="Greeter", payload={"text": 5})
    write(path, "name: Harbour Desk")
    await reload(operator.client)
    with pytest.raises(GraphQLErrors) as retired:
        await operator.client.query(INJECT, to="Greeter", payload={"text": "Hello"})

    assert (unfit.value.code, unfit.value.field) == ("BAD_USER_INPUT", "payload")
    assert (retired.value.code, retired.value.field) == ("CONFLICT", "to")


# ---------------------------------------------------------------- refusals


async def test_a_bad_file_changes_nothing_and_says_all_that_is_wrong(operator: Person, path: Path) -> None:
    await reload(operator.client)
    before = await operator.client.query(OVERVIEW)
    write(path, WHOLE.replace("peers: [Scribe]", "peers: [Nobody]").replace("threshold: 100", "threshold: 0"))

    with pytest.raises(GraphQLErrors) as refused:
        await reload(operator.client)

    assert (refused.value.code, refused.value.field) == ("BAD_USER_INPUT", "agents.0.peers.0")
    assert refused.value.errors[0]["extensions"]["fields"] == [
        {
            "path": ["agents", 0, "peers", 0],
            "code": "INVALID",
            "message": "Line 14: There is no agent 'Nobody' in this file.",
        },
        {
            "path": ["alertRules", 0, "threshold"],
            "code": "INVALID",
            "message": "Line 30: Input should be greater than 0",
        },
    ]
    assert await operator.client.query(OVERVIEW) == before


async def test_a_file_that_is_not_there_is_told(operator: Person, path: Path) -> None:
    remove(path)

    with pytest.raises(GraphQLErrors) as refused:
        await reload(operator.client)

    assert (refused.value.code, refused.value.field) == ("BAD_USER_INPUT", "file")
    assert refused.value.message == "The file cannot be read: No such file or directory."


async def test_without_a_file_there_is_nothing_to_reload(admin: Person) -> None:
    with pytest.raises(GraphQLErrors) as refused:
        await admin.client.query(RELOAD)

    assert (refused.value.code, refused.value.field) == ("CONFLICT", None)


async def test_more_rules_than_there_may_be_change_nothing(operator: Person, store: Database) -> None:
    await store.handle["alert_rules"].insert_many([{"name": f"r{n}", "enabled": False} for n in range(1000)])

    with pytest.raises(GraphQLErrors) as refused:
        await reload(operator.client)

    assert refused.value.code == "CONFLICT"
    assert await declared(operator.client) == {}
    assert (await operator.client.query("{ organism { revision } }"))["organism"]["revision"] == 0


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ('updateAgent(input: {agent: {name: "Scribe"}, name: "Nose"}) { agent { id } }', "name"),
        ('deleteAgent(input: {agent: {name: "Scribe"}}) { deletedId }', "agent"),
    ],
)
async def test_a_declared_agent_keeps_its_name(operator: Person, change: str, field: str) -> None:
    await reload(operator.client)
    before = await declared(operator.client)

    with pytest.raises(GraphQLErrors) as refused:
        await operator.client.query(f"mutation {{ {change} }}")

    assert (refused.value.code, refused.value.field) == ("CONFLICT", field)
    assert await declared(operator.client) == before


@pytest.mark.parametrize("change", ["updateAlertRule", "deleteAlertRule"])
async def test_a_declared_rule_is_changed_in_the_file_alone(operator: Person, change: str) -> None:
    await reload(operator.client)
    before = (await operator.client.query(RULES))["alertRules"]
    rule = next(each["id"] for each in before if each["name"] == "Chatty")
    selection = "enabled: false}) { alertRule { id } }" if change == "updateAlertRule" else "}) { deletedId }"

    with pytest.raises(GraphQLErrors) as refused:
        await operator.client.query(f'mutation {{ {change}(input: {{id: "{rule}", {selection} }}')

    assert (refused.value.code, refused.value.field) == ("CONFLICT", "id")
    assert (await operator.client.query(RULES))["alertRules"] == before


async def test_only_operators_see_capabilities(operator: Person) -> None:
    await reload(operator.client)
    every = [scope for scope in ("COLLECT", "READ", "MANAGE") if scope]
    agent = await factories.api_key(operator, *every)
    key = await factories.api_key(operator, "OPERATE")

    refused = await agent.execute('{ organism { name } capabilities { name } capability(name: "translate") { name } }')

    assert refused.codes == ["FORBIDDEN"] * 3
    assert refused.body["data"] == {"organism": None, "capabilities": None, "capability": None}
    assert (await key.query("{ capabilities { name } }"))["capabilities"] == [{"name": "translate"}]
    assert await reload(key) == []


# ---------------------------------------------------------------- many processes


async def test_what_one_process_has_applied_the_other_knows(
    operator: Person, servers: list[Server], session: aiohttp.ClientSession
) -> None:
    other = Client(session, servers[1].graphql, operator.access_token)

    await reload(operator.client)

    assert (await other.query("{ organism { name } }"))["organism"]["name"] == "Harbour Desk"
    assert set(await declared(other)) == {"Greeter", "Scribe"}
    assert await reload(other) == []


async def test_processes_that_apply_it_at_once_end_as_one(
    operator: Person, servers: list[Server], session: aiohttp.ClientSession, store: Database
) -> None:
    clients = [Client(session, server.graphql, operator.access_token) for server in servers]

    for _ in range(5):
        told = await asyncio.gather(*(reload(clients[n % 2]) for n in range(8)))

        assert sorted(map(len, told)) == [0] * 7 + [5]
        assert await store.handle["agents"].count_documents({}) == 2
        for name in ("agents", "organism", "alert_rules"):
            await store.handle[name].delete_many({})


async def test_a_file_is_applied_while_agents_talk_without_a_break(
    operator: Person, servers: list[Server], session: aiohttp.ClientSession, path: Path
) -> None:
    await reload(operator.client)
    other = Client(session, servers[1].graphql, operator.access_token)
    done = asyncio.Event()

    async def talk(client: Client) -> int:
        sent = 0
        while not done.is_set():
            await client.query(INJECT, to="Scribe", payload={"text": "Hello"})
            sent += 1
        return sent

    async with asyncio.TaskGroup() as group:
        talking = [group.create_task(talk(client)) for client in (operator.client, other) for _ in range(4)]
        for turn in range(5):
            crowd = "".join(f"  - {{name: Agent {n}, description: In turn {turn}.}}\n" for n in range(100))
            write(path, WHOLE.replace("alertRules:", f"{crowd}alertRules:"))
            assert len(await reload(operator.client)) == 100
        done.set()

    assert sum(task.result() for task in talking) > 0


async def test_sighup_applies_the_file(operator: Person, servers: list[Server], path: Path) -> None:
    applied = servers[0].says('"organism applied"')
    servers[0].signal(signal.SIGHUP)
    await applied

    assert set(await declared(operator.client)) == {"Greeter", "Scribe"}

    write(path, "name: 5")
    refused = servers[0].says('"organism not applied"')
    servers[0].signal(signal.SIGHUP)
    assert "Line 1: Input should be a valid string" in await refused
    assert set(await declared(operator.client)) == {"Greeter", "Scribe"}


async def test_sighup_applies_the_file_where_there_are_workers(
    mongodb_uri: str, session: aiohttp.ClientSession, store: Database, path: Path
) -> None:
    write(path, "name: Harbour Desk")
    async with Server(mongodb_uri, "--workers", "2", ORGANISM_FILE=str(path)) as server:
        admin = await factories.sign_in_admin(Client(session, server.graphql))
        assert (await admin.client.query("{ organism { name } }"))["organism"]["name"] == "Harbour Desk"
        write(path, WHOLE)

        applied = server.says('"organism applied"')
        server.signal(signal.SIGHUP)
        await applied

        assert set(await declared(admin.client)) == {"Greeter", "Scribe"}
        assert (await admin.client.query("{ organism { revision } }"))["organism"]["revision"] == 2
        assert await server.stop() == 0


async def test_a_terminal_that_is_closed_stops_the_server(
    mongodb_uri: str, bound: Database, path: Path, tmp_path: Path
) -> None:
    """It says SIGHUP too, and nobody would ever stop a server that took it for a reload."""
    write(path, WHOLE)
    ours, theirs = os.openpty()
    settings = {"MONGODB_URI": mongodb_uri, "MONGODB_DBNAME": "agenthub_test", "ORGANISM_FILE": str(path)}
    process = await asyncio.create_subprocess_exec(
        *("setsid", "--ctty", sys.executable, "-m", "server", "serve", "--port", "0"),
        cwd=ROOT,
        env={**os.environ, "SECRET_KEY": "0123456789abcdef0123456789abcdef01", **settings},
        stdin=theirs,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    os.close(theirs)
    assert process.stderr is not None
    address = ""
    while not address:
        line = (await process.stderr.readline()).decode()
        assert line, "The server did not start."
        address = json.loads(line)["url"] if '"event":"serving"' in line else ""
    async with aiohttp.ClientSession() as session, session.get(f"{address}/healthz") as response:
        assert response.status == 200

    os.close(ours)
    try:
        async with asyncio.timeout(30):
            _, log = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()

    assert process.returncode == 0
    assert b"organism applied" not in log


async def test_a_server_does_not_start_with_a_bad_file(mongodb_uri: str, path: Path) -> None:
    write(path, "name: x\nagnets: []\nbudget: 5")

    process = await launch(
        "serve", MONGODB_URI=mongodb_uri, SECRET_KEY="0" * 8 + "123456789abcdef" * 2, ORGANISM_FILE=str(path)
    )
    _, stderr = await process.communicate()

    assert process.returncode == 1
    assert stderr.decode().splitlines()[-3:] == [
        f"agenthub: ORGANISM_FILE {path} cannot be applied.",
        "Line 2: There is no key `agnets` here. Leave it out, or mend its spelling.",
        "Line 3: A mapping of keys to values is expected here.",
    ]


# ---------------------------------------------------------------- live

WATCH = """
subscription ($after: String, $agents: [AgentBy!], $threads: [ID!], $types: [OrganismEventType!]) {
  organismEvents(after: $after, agents: $agents, threads: $threads, types: $types) {
    cursor type status at agents { name retiredAt } thread { id status } threads { id } message { id }
    organism { name revision }
  }
}
"""


async def open_thread(store: Database, name: str) -> str:
    """Open a thread as a message does, and have it told."""

    async def body(session: DatabaseSession) -> None:
        row = await conversations.open_now(ref, limit=1000, now=datetime.now(UTC), session=session)
        await events.append(
            EventKind.THREAD, thread=row["_id"], agents=row["participants"], status=row["status"], session=session
        )

    ref = conversations.named(name)
    await database.transaction(conversations.Thread, body)
    return conversations.id_of(ref.thread)


async def test_who_watches_is_told_how_all_is_and_then_what_happens(
    operator: Person, servers: list[Server], session: aiohttp.ClientSession, store: Database, path: Path
) -> None:
    await reload(operator.client)
    before = await open_thread(store, "before")
    other = Client(session, servers[1].graphql, operator.access_token)

    async with other.subscribe(WATCH) as watching:
        first = (await anext(watching))["organismEvents"]
        write(path, "name: Harbour Desk\nagents: [{name: Scribe}]")
        await reload(operator.client)
        second = (await anext(watching))["organismEvents"]
        opened = await open_thread(store, "after")
        third = (await anext(watching))["organismEvents"]

    assert (first["type"], first["status"], first["message"]) == ("SNAPSHOT", None, None)
    assert first["agents"] == [{"name": "Greeter", "retiredAt": None}, {"name": "Scribe", "retiredAt": None}]
    assert first["threads"] == [{"id": before}]
    assert first["organism"] == {"name": "Harbour Desk", "revision": 1}
    assert (second["type"], second["thread"], second["threads"]) == ("RELOAD", None, [])
    assert {each["name"]: each["retiredAt"] is None for each in second["agents"]} == {"Greeter": False, "Scribe": True}
    assert second["organism"] == {"name": "Harbour Desk", "revision": 2}
    assert (third["type"], third["status"], third["organism"]) == ("THREAD", "ACTIVE", None)
    assert third["thread"] == {"id": opened, "status": "ACTIVE"}


async def test_messages_and_pauses_on_one_process_are_told_on_the_other(
    operator: Person, servers: list[Server], session: aiohttp.ClientSession
) -> None:
    await reload(operator.client)
    other = Client(session, servers[1].graphql, operator.access_token)
    watch = """
    subscription {
      organismEvents { type status agents { name state queueDepth } message { payload delivery { status } } }
    }
    """

    async with other.subscribe(watch) as watching:
        await anext(watching)
        await operator.client.query('mutation { pauseAgent(input: {agent: {name: "Scribe"}}) { agent { id } } }')
        paused = (await anext(watching))["organismEvents"]
        await operator.client.query(INJECT, to="Scribe", payload={"text": "Hello"})
        opened = (await anext(watching))["organismEvents"]
        sent = (await anext(watching))["organismEvents"]

    assert paused == {
        "type": "AGENT",
        "status": "PAUSED",
        "agents": [{"name": "Scribe", "state": "PAUSED", "queueDepth": 0}],
        "message": None,
    }
    assert (opened["type"], opened["status"]) == ("THREAD", "ACTIVE")
    assert sent == {
        "type": "MESSAGE",
        "status": "PENDING",
        "agents": [{"name": "Scribe", "state": "PAUSED", "queueDepth": 1}],
        "message": {"payload": {"text": "Hello"}, "delivery": {"status": "PENDING"}},
    }


async def test_a_file_that_changes_nothing_is_no_event(operator: Person, path: Path) -> None:
    await reload(operator.client)

    async with operator.client.subscribe(WATCH) as watching:
        await anext(watching)
        await reload(operator.client)
        write(path, "name: Another Desk")
        await reload(operator.client)

        assert (await anext(watching))["organismEvents"]["organism"]["name"] == "Another Desk"


async def test_watching_goes_on_after_a_cursor_without_a_snapshot(operator: Person, store: Database) -> None:
    async with operator.client.subscribe(WATCH) as watching:
        cursor = (await anext(watching))["organismEvents"]["cursor"]
    keys = [await open_thread(store, name) for name in ("one", "two")]

    async with operator.client.subscribe(WATCH, after=cursor) as watching:
        told = [(await anext(watching))["organismEvents"] for _ in range(2)]

    assert [each["thread"]["id"] for each in told] == keys
    async with operator.client.subscribe(WATCH, after=told[0]["cursor"]) as watching:
        assert (await anext(watching))["organismEvents"] == told[1]


async def test_a_cursor_that_is_kept_no_more_begins_with_a_snapshot(operator: Person, store: Database) -> None:
    async with operator.client.subscribe(WATCH) as watching:
        cursor = (await anext(watching))["organismEvents"]["cursor"]
    await open_thread(store, "one")
    await open_thread(store, "two")
    await store.handle["control_events"].delete_one({"_id": {"$gt": 0}})

    async with operator.client.subscribe(WATCH, after=cursor) as watching:
        assert (await anext(watching))["organismEvents"]["type"] == "SNAPSHOT"


async def test_only_what_is_asked_for_is_told(operator: Person, store: Database, path: Path) -> None:
    await reload(operator.client)
    wanted = await open_thread(store, "wanted")

    async with (
        operator.client.subscribe(WATCH, threads=[wanted]) as of_thread,
        operator.client.subscribe(WATCH, agents=[{"name": "Scribe"}]) as of_agent,
        operator.client.subscribe(WATCH, types=["RELOAD"]) as of_type,
    ):
        snapshots = [(await anext(each))["organismEvents"] for each in (of_thread, of_agent, of_type)]
        await open_thread(store, "unwanted")
        write(path, WHOLE.replace("Says hello.", "Greets."))
        await reload(operator.client)
        write(path, WHOLE.replace("Says hello.", "Greets.").replace("isAgent: false", "isAgent: true"))
        await reload(operator.client)
        await open_thread(store, "wanted")
        told = [(await anext(each))["organismEvents"] for each in (of_thread, of_agent, of_type)]

    assert snapshots[0]["threads"] == [{"id": wanted}]
    assert [each["name"] for each in snapshots[1]["agents"]] == ["Scribe"]
    assert snapshots[1]["threads"] == []
    assert told[0]["thread"]["id"] == wanted
    assert (told[1]["type"], [each["name"] for each in told[1]["agents"]]) == ("RELOAD", ["Scribe"])
    assert (told[2]["type"], [each["name"] for each in told[2]["agents"]]) == ("RELOAD", ["Greeter"])


@pytest.mark.parametrize(
    ("variables", "code", "field"),
    [
        ({"after": "rubbish"}, "BAD_USER_INPUT", "after"),
        ({"agents": [{"name": "Nobody"}]}, "NOT_FOUND", "agents.0"),
        ({"agents": [{"name": "Greeter"}] * 101}, "BAD_USER_INPUT", "agents"),
        ({"threads": ["x"]}, "BAD_USER_INPUT", "threads.0"),
        ({"threads": ["x"] * 101}, "BAD_USER_INPUT", "threads"),
    ],
)
async def test_what_cannot_be_watched_is_told(
    operator: Person, variables: dict[str, Any], code: str, field: str
) -> None:
    with pytest.raises(GraphQLErrors) as refused:
        async with operator.client.subscribe(WATCH, **variables) as watching:
            await anext(watching)

    assert (refused.value.code, refused.value.field) == (code, field)


# ---------------------------------------------------------------- stop


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("over", ["http", "websocket"])
async def test_an_admin_stops_the_whole_server_and_has_the_answer_first(
    mongodb_uri: str, session: aiohttp.ClientSession, store: Database, workers: int, over: str
) -> None:
    async with Server(mongodb_uri, "--workers", str(workers)) as server:
        admin = await factories.sign_in_admin(Client(session, server.graphql))
        document = "mutation { stopServer { processes } }"

        if over == "http":
            data = await admin.client.query(document)
        else:
            async with admin.client.subscribe(document) as events:
                data = await anext(events)

        assert data == {"stopServer": {"processes": workers}}
        assert await server.ended() == 0
