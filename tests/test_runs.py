"""Versions and runs: recorded once, completed later, measured as they come."""

import asyncio
import math
import os
import random
import signal
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.runs import durations, histograms
from models.runs.rebuild import rebuild
from models.runs.versions import AgentVersion
from models.store import database
from models.store.database import Database
from tests.client import Client
from tests.factories import Person
from tests.processes import KILLS, Server, launch
from tests.test_keys import mint
from tests.test_server import children

REGISTER = "mutation ($input: RegisterAgentInput!) { registerAgent(input: $input) { created agent { name project } } }"
ADD = """mutation ($input: AddAgentVersionInput!) { addAgentVersion(input: $input) {
  created agentVersion { version cluster deployment tools models status metrics { totalRuns successRate } } } }"""
RECORD = """mutation ($input: RecordRunsInput!) { recordRuns(input: $input) {
  accepted duplicates rejected items { index outcome code message field } } }"""
METRICS = """query ($agent: AgentBy!, $version: String!) { agentVersion(agent: $agent, version: $version) {
  status
  metrics { totalRuns lastSeenAt averageRuntimeMs p50RuntimeMs p95RuntimeMs p99RuntimeMs successRate spend } } }"""
SCOUT = {"name": "Scout"}
UTC_ZONE = ZoneInfo("UTC")


def run(identifier: str, **said: Any) -> dict[str, Any]:
    """Write a run as a client does."""
    return {"id": identifier, "status": "COMPLETED", "createdAt": "2026-05-01T09:00:00Z", **said}


async def record(client: Client, *runs: dict[str, Any], version: str = "1.0", agent: Any = SCOUT) -> dict[str, Any]:
    """Record runs and give what became of them."""
    data = await client.query(RECORD, input={"agent": agent, "version": version, "runs": list(runs)})
    answer: dict[str, Any] = data["recordRuns"]
    return answer


async def metrics(client: Client, version: str = "1.0") -> dict[str, Any]:
    """Read a version's metrics."""
    found: dict[str, Any] = (await client.query(METRICS, agent=SCOUT, version=version))["agentVersion"]["metrics"]
    return found


# ---------------------------------------------------------------- durations


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5m30s", 330_000),
        ("1h2m3.5s", 3_723_500),
        ("350ms", 350),
        ("1.5h", 5_400_000),
        ("0", 0),
        ("+1s", 1000),
        (".5s", 500),
        ("100us", 0),
        ("1500µs", 2),
        ("2500000ns", 2),
        ("PT5M30S", 330_000),
        ("pt5m30s", 330_000),
        ("P1DT2H", 93_600_000),
        ("P1W", 604_800_000),
        ("PT0.35S", 350),
        ("PT0,35S", 350),
        *((each, None) for each in ("", "5", "5 m", "-5s", "5x", "P", "PT", "P1Y", "P1M", "P1DT", "1h-2m", "٥s")),
        ("1" * 99, None),
    ],
)  # fmt: skip
def test_durations_are_read_as_go_and_iso_8601_write_them(text: str, expected: int | None) -> None:
    assert durations.milliseconds(text) == expected


@given(st.integers(0, 9999), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999))
def test_what_go_writes_is_what_iso_8601_writes(hours: int, minutes: int, seconds: int, rest: int) -> None:
    expected = ((hours * 60 + minutes) * 60 + seconds) * 1000 + rest

    assert durations.milliseconds(f"{hours}h{minutes}m{seconds}.{rest:03d}s") == expected
    assert durations.milliseconds(f"PT{hours}H{minutes}M{seconds}.{rest:03d}S") == expected


async def test_durations_that_disagree_are_refused(user: Person) -> None:
    found = await record(
        user.client,
        run("1", timeTaken="1s", durationMs=1000),
        run("2", timeTaken="1s", durationMs=1001),
        run("3", timeTaken="soon"),
        run("4", durationMs=-1),
    )

    assert (found["accepted"], found["rejected"]) == (1, 3)
    assert [(item["index"], item["field"]) for item in found["items"]] == [
        (1, "timeTaken"),
        (2, "timeTaken"),
        (3, "durationMs"),
    ]


# ---------------------------------------------------------------- percentiles


def exact(values: Sequence[int], share: float) -> int:
    """Give the percentile by the nearest rank."""
    return sorted(values)[max(math.ceil(share * len(values)), 1) - 1]


@pytest.mark.parametrize("shape", ["uniform", "log-normal", "two peaks"])
def test_percentiles_are_within_two_percent(shape: str) -> None:
    dice = random.Random(7)
    draw = {
        "uniform": lambda: dice.randint(1, 600_000),
        "log-normal": lambda: max(round(dice.lognormvariate(8, 1.5)), 1),
        "two peaks": lambda: max(round(dice.gauss(*dice.choice([(300, 30), (90_000, 9000)]))), 1),
    }[shape]
    values = [draw() for _ in range(20_000)]  # type: ignore[no-untyped-call]  # each of the three
    counts: dict[str, int] = {}
    for value in values:
        name = histograms.bucket(value)
        counts[name] = counts.get(name, 0) + 1

    for share in (0.5, 0.95, 0.99):
        found = histograms.Spread(counts).percentile(share)
        assert found is not None
        assert abs(found - exact(values, share)) <= 0.02 * exact(values, share)


@given(st.integers(1, durations.MOST_MS))
def test_any_runtime_is_within_two_percent_of_its_bucket(value: int) -> None:
    found = histograms.Spread({histograms.bucket(value): 1}).percentile(0.5)

    assert found is not None
    assert abs(found - value) <= 0.0101 * value


def test_a_histogram_has_a_bounded_size() -> None:
    assert int(histograms.bucket(durations.MOST_MS)) < 1300
    assert histograms.Spread({}).percentile(0.5) is None
    assert histograms.Spread({histograms.bucket(0): 3}).percentile(0.99) == 0


# ---------------------------------------------------------------- agents and versions


async def test_an_agent_is_registered_once(user: Person) -> None:
    said = {"name": "Scout", "project": "North"}
    answers = await asyncio.gather(*(user.client.query(REGISTER, input=said) for _ in range(6)))

    assert sorted(answer["registerAgent"]["created"] for answer in answers) == [False] * 5 + [True]
    other = await user.client.query(REGISTER, input={"name": "Scout", "project": "South"})
    assert other["registerAgent"] == {"created": False, "agent": said}


async def test_a_version_is_added_and_changed(user: Person) -> None:
    await user.client.query(REGISTER, input=SCOUT)
    said = {"agent": SCOUT, "version": " 1.0 ", "cluster": "eu-1", "tools": ["search", "search", "mail"]}

    first = (await user.client.query(ADD, input=said))["addAgentVersion"]
    again = (await user.client.query(ADD, input={"agent": SCOUT, "version": "1.0", "models": ["m"]}))["addAgentVersion"]
    cleared = (await user.client.query(ADD, input={"agent": SCOUT, "version": "1.0", "cluster": None}))[
        "addAgentVersion"
    ]

    assert first == {
        "created": True,
        "agentVersion": {
            "version": "1.0",
            "cluster": "eu-1",
            "deployment": None,
            "tools": ["search", "mail"],
            "models": [],
            "status": "INACTIVE",
            "metrics": {"totalRuns": 0, "successRate": None},
        },
    }
    assert (again["created"], again["agentVersion"]["cluster"], again["agentVersion"]["models"]) == (
        False,
        "eu-1",
        ["m"],
    )
    assert cleared["agentVersion"]["cluster"] is None


@pytest.mark.parametrize(
    "asked",
    [
        'registerAgent(input: {name: "Scout"}) { agent { usage { cost } } }',
        'registerAgent(input: {name: "Scout"}) { ... on RegisterAgentPayload { agent { mine: owner { email } } } }',
        'addAgentVersion(input: {agent: {name: "Scout"}, version: "2"}) { agentVersion { metrics { spend } } }',
        'addAgentVersion(input: {agent: {name: "Scout"}, version: "2"}) { agentVersion { agent { name } } }',
    ],
)
async def test_who_may_report_and_not_read_is_told_plain_fields_alone(
    admin: Person, store: Database, asked: str
) -> None:
    key, _ = await mint(admin, "COLLECT")
    both, _ = await mint(admin, "COLLECT", "READ")
    plain = """mutation { registerAgent(input: {name: "Ranger"}) { created agent { __typename id name } }
      addAgentVersion(input: {agent: {name: "Ranger"}, version: "1"}) { agentVersion { id version status } } }"""

    assert (await key.query(plain))["addAgentVersion"]["agentVersion"]["status"] == "INACTIVE"
    assert (await key.execute(f"mutation {{ {asked} }}")).codes == ["FORBIDDEN"]
    # Refused before anything is done.
    assert await store.handle["agents"].count_documents({"name": "Scout"}) == 0

    await both.query(REGISTER, input=SCOUT)
    await both.query(f"mutation {{ {asked} }}")


async def test_a_version_of_no_agent_is_refused(user: Person) -> None:
    reply = await user.client.execute(ADD, {"input": {"agent": {"name": "Nobody"}, "version": "1.0"}})
    bad = await user.client.execute(ADD, {"input": {"agent": SCOUT, "version": "", "tools": ["x" * 201]}})
    await user.client.query(REGISTER, input=SCOUT)
    worse = await user.client.execute(ADD, {"input": {"agent": SCOUT, "version": "", "tools": ["x" * 201]}})

    assert reply.codes == bad.codes == ["NOT_FOUND"]
    assert worse.codes == ["BAD_USER_INPUT"]
    assert len(worse.body["errors"][0]["extensions"]["fields"]) == 2


# ---------------------------------------------------------------- runs


async def test_metrics_are_right_at_once(user: Person) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    found = await record(
        user.client,
        run("1", timeTaken="1s", cost="0.5", createdAt=now.isoformat()),
        run("2", timeTaken="3s", status="FAILED", cost="0.25"),
        run("3", status="RUNNING", cost="1"),
        run("4", status="CANCELLED"),
    )

    assert found == {"accepted": 4, "duplicates": 0, "rejected": 0, "items": []}
    version = (await user.client.query(METRICS, agent=SCOUT, version="1.0"))["agentVersion"]
    assert version["status"] == "ACTIVE"
    measured = version["metrics"]
    assert measured.pop("p50RuntimeMs") == pytest.approx(1000, rel=0.02)
    assert measured.pop("p95RuntimeMs") == measured.pop("p99RuntimeMs") == pytest.approx(3000, rel=0.02)
    assert measured.pop("successRate") == pytest.approx(100 / 3)
    assert measured == {
        "totalRuns": 4,
        "lastSeenAt": now.isoformat().replace("+00:00", "Z"),
        "averageRuntimeMs": 2000,
        "spend": "1.75",
    }


async def test_a_run_sent_twice_is_stored_once(user: Person) -> None:
    await record(user.client, run("1", timeTaken="1s", cost="0.1"))

    again = await record(
        user.client, run("1", timeTaken="1000ms", cost="0.100"), run("1", timeTaken="2s"), run("2"), run("2")
    )

    assert (again["accepted"], again["duplicates"]) == (1, 3)
    assert [(item["index"], item["code"]) for item in again["items"]] == [(0, None), (1, "CONTENT_DIFFERS"), (3, None)]
    assert (await metrics(user.client))["totalRuns"] == 2


async def test_a_running_run_is_completed_by_its_id(user: Person) -> None:
    await record(user.client, run("1", status="RUNNING", cost="1"))
    await record(user.client, run("1", timeTaken="2s", cost="3"))
    late = await record(user.client, run("1", status="RUNNING", cost="1"))

    assert late["duplicates"] == 1
    found = await metrics(user.client)
    assert (found["totalRuns"], found["averageRuntimeMs"], found["successRate"], found["spend"]) == (1, 2000, 100, "3")
    for took in ("5s", "2s"):
        other = await record(user.client, run("1", timeTaken=took, cost="3"), version="2.0")
        assert [(item["outcome"], item["code"], item["field"]) for item in other["items"]] == [
            ("REJECTED", "CONFLICT", "id")
        ]


SAID = """query { runs { nodes { runId status createdAt durationMs taskId initiator tools models cost } } }"""


async def test_a_report_that_completes_a_run_keeps_what_it_leaves_out(user: Person) -> None:
    said = {"taskId": "t", "initiator": "ada", "tools": ["search"], "models": ["m"], "cost": "2"}
    began = run("1", status="RUNNING", **said, durationMs=5)
    await record(user.client, began)
    (running,) = (await user.client.query(SAID))["runs"]["nodes"]
    await record(user.client, run("1", durationMs=7, createdAt="2026-05-01T10:00:00Z", initiator="bob"))
    (ended,) = (await user.client.query(SAID))["runs"]["nodes"]

    shown = {"runId": "1", "createdAt": began["createdAt"], **said}
    assert running == {**shown, "status": "RUNNING", "durationMs": None}
    assert ended == {**shown, "status": "COMPLETED", "durationMs": 7, "initiator": "bob"}
    assert (await metrics(user.client))["spend"] == "2"
    assert (await rebuild(UTC_ZONE, repair=False)).differences == []


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"id": ""}, "id"),
        ({"id": "x" * 201}, "id"),
        ({"createdAt": "1999-12-31T00:00:00Z"}, "createdAt"),
        ({"createdAt": (datetime.now(UTC) + timedelta(days=2)).isoformat()}, "createdAt"),
        ({"cost": "-1"}, "cost"),
        ({"initiator": "a\nb"}, "initiator"),
        ({"tools": ["x"] * 101}, "tools"),
        ({"models": ["x" * 201]}, "models"),
        ({"timeTaken": "9000h"}, "timeTaken"),
    ],
)
async def test_a_bad_run_is_refused_alone(user: Person, said: dict[str, Any], field: str) -> None:
    found = await record(user.client, {**run("1"), **said}, run("2"))

    assert (found["accepted"], found["rejected"]) == (1, 1)
    assert (found["items"][0]["index"], found["items"][0]["field"]) == (0, field)
    assert (await metrics(user.client))["totalRuns"] == 1


async def test_a_whole_request_may_be_refused(user: Person, store: Database) -> None:
    unknown = "QWdlbnQ6NjU2NTY1NjU2NTY1NjU2NTY1NjU2NTY1"
    cases = [
        ({"agent": {"id": unknown}, "version": "1", "runs": [run("1")]}, "NOT_FOUND"),
        ({"agent": SCOUT, "version": "1", "runs": []}, "BAD_USER_INPUT"),
        ({"agent": SCOUT, "version": " ", "runs": [run("1")]}, "BAD_USER_INPUT"),
        ({"agent": SCOUT, "version": "1", "runs": [run(str(n)) for n in range(1001)]}, "BAD_USER_INPUT"),
    ]
    names = [
        {"agent": {"name": name}, "version": "1", "runs": [run("1")]} for name in ("", "\u200b", "a\x00b", "x" * 201)
    ]
    for given_input, code in [*cases, *((each, "BAD_USER_INPUT") for each in names)]:
        assert (await user.client.execute(RECORD, {"input": given_input})).codes == [code]
    both = await user.client.execute(RECORD, {"input": {**names[0], "version": ""}})
    assert [each["path"] for each in both.body["errors"][0]["extensions"]["fields"]] == [["agent", "name"], ["version"]]
    for name in ("agents", "agent_versions", "agent_runs"):
        assert await store.handle[name].count_documents({}) == 0


LISTS = """query ($first: Int, $after: String) { agent(by: {name: "Scout"}) {
  versions { totalCount nodes { version } }
  runs(first: $first, after: $after) { totalCount pageInfo { endCursor hasNextPage }
    nodes { id runId version { version } agent { name } } } } }"""
RUNS_OF_VERSION = """{ agentVersion(agent: {name: "Scout"}, version: "1.0") {
  runs { totalCount nodes { runId durationMs } } } }"""


async def test_runs_are_listed_by_agent_and_by_version(user: Person) -> None:
    runs = [run(f"{n}", createdAt=f"2026-05-01T09:{n:02d}:00Z", durationMs=n) for n in range(5)]
    await record(user.client, *runs[:3], version="1.0")
    await record(user.client, *runs[3:], version="2.0")

    first = (await user.client.query(LISTS, first=3))["agent"]
    rest = (await user.client.query(LISTS, first=3, after=first["runs"]["pageInfo"]["endCursor"]))["agent"]["runs"]
    version = await user.client.query(RUNS_OF_VERSION)

    assert [each["runId"] for each in first["runs"]["nodes"] + rest["nodes"]] == ["4", "3", "2", "1", "0"]
    assert (first["runs"]["totalCount"], rest["pageInfo"]["hasNextPage"]) == (5, False)
    assert sorted(each["version"] for each in first["versions"]["nodes"]) == ["1.0", "2.0"]
    assert first["versions"]["totalCount"] == 2
    assert version["agentVersion"]["runs"] == {
        "totalCount": 3,
        "nodes": [{"runId": str(n), "durationMs": n} for n in (2, 1, 0)],
    }
    node = await user.client.query(
        "query ($id: ID!) { node(id: $id) { ... on Run { runId version { id } } } }", id=rest["nodes"][0]["id"]
    )
    assert node["node"]["runId"] == rest["nodes"][0]["runId"]
    found = await user.client.query(
        "query ($id: ID!) { node(id: $id) { ... on AgentVersion { version } } }", id=node["node"]["version"]["id"]
    )
    assert found["node"] == {"version": rest["nodes"][0]["version"]["version"]}


RENAME = "mutation ($input: UpdateAgentInput!) { updateAgent(input: $input) { agent { name } } }"
VERSIONS = """query ($search: String, $status: VersionStatus) { agentVersions(search: $search, status: $status) {
  totalCount nodes { version status agent { name } } } }"""


async def test_all_versions_are_searched_and_filtered(admin: Person, user: Person) -> None:
    now = datetime.now(UTC).isoformat()
    await record(user.client, run("1", createdAt=now), version="1.0")
    await record(user.client, run("2"), version="0.9")
    await record(user.client, run("1", createdAt=now), version="7", agent={"name": "Ranger"})

    async def names(**asked: Any) -> list[tuple[str, str]]:
        found = (await user.client.query(VERSIONS, **asked))["agentVersions"]
        assert found["totalCount"] == len(found["nodes"])
        return sorted((each["agent"]["name"], each["version"]) for each in found["nodes"])

    assert await names() == [("Ranger", "7"), ("Scout", "0.9"), ("Scout", "1.0")]
    assert await names(status="ACTIVE") == [("Ranger", "7"), ("Scout", "1.0")]
    assert await names(status="INACTIVE") == [("Scout", "0.9")]
    assert await names(search="scou") == [("Scout", "0.9"), ("Scout", "1.0")]

    # What it is found by follows what is said of it, and what its agent is called.
    await user.client.query(ADD, input={"agent": SCOUT, "version": "0.9", "cluster": "Frankfurt"})
    assert await names(search="frank") == [("Scout", "0.9")]
    await admin.client.query(RENAME, input={"agent": {"name": "Ranger"}, "name": "Warden"})
    await record(user.client, run("2", createdAt=now), version="7", agent={"name": "Warden"})
    assert await names(search="warden") == [("Warden", "7")]
    assert await names(search="ranger") == []
    await record(user.client, run("1"), version="last", agent={"name": " ".join(f"w{n}" for n in range(40))})
    assert [version for _, version in await names(search="last")] == ["last"]


ORDERED = """query ($order: AgentVersionOrder, $after: String) { agentVersions(order: $order, first: 2, after: $after) {
  pageInfo { endCursor hasNextPage } nodes { version } } }"""


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        (None, ["often", "dear", "early", "never"]),
        ({"field": "LAST_SEEN_AT"}, ["never", "early", "dear", "often"]),
        ({"field": "CREATED_AT"}, ["early", "dear", "often", "never"]),
        ({"field": "TOTAL_RUNS", "direction": "DESC"}, ["often", "dear", "early", "never"]),
        ({"field": "SPEND", "direction": "DESC"}, ["dear", "early", "often", "never"]),
    ],
)
async def test_all_versions_are_ordered(user: Person, order: dict[str, str] | None, expected: list[str]) -> None:
    await record(user.client, run("1", cost="2"), version="early")
    await record(user.client, run("2", cost="5", createdAt="2026-05-02T09:00:00Z"), run("3"), version="dear")
    later = [run(str(n), cost="0.1", createdAt="2026-05-03T09:00:00Z") for n in range(4, 8)]
    await record(user.client, *later, version="often")
    await user.client.query(ADD, input={"agent": SCOUT, "version": "never"})

    found: list[str] = []
    after = None
    while True:
        page = (await user.client.query(ORDERED, order=order, after=after))["agentVersions"]
        found += [node["version"] for node in page["nodes"]]
        after = page["pageInfo"]["endCursor"]
        if not page["pageInfo"]["hasNextPage"]:
            break

    assert found == expected


# ---------------------------------------------------------------- exactly once


async def test_metrics_are_exact_however_often_and_by_how_many_runs_are_sent(
    user: Person, server: Server, mongodb_uri: str
) -> None:
    runs = [run(f"r{n}", durationMs=n, cost="0.001", status=["COMPLETED", "FAILED"][n % 2]) for n in range(120)]
    async with Server(mongodb_uri, **server.settings) as another:
        doors = [user.client, Client(user.client.session, another.graphql, user.access_token)]
        started = [{**each, "status": "RUNNING", "durationMs": None} for each in runs]
        sent = [
            record(doors[turn % 2], *(started if turn < 3 else runs)[start : start + 30])
            for turn in range(8)
            for start in range(0, 120, 30)
        ]
        await asyncio.gather(*sent)

    found = await metrics(user.client)
    assert (found["totalRuns"], found["successRate"], found["spend"]) == (120, 50, "0.12")
    assert found["averageRuntimeMs"] == pytest.approx(59.5)
    assert (await rebuild(UTC_ZONE, repair=False)).differences == []


async def two_workers(server: Server) -> list[int]:
    """Give the ids of a server's two workers, once there are two again, the older one first."""
    while True:
        if len(serving := children(server.pid)) == 2:
            return serving
        await asyncio.sleep(0.02)


async def test_the_same_runs_by_eight_senders_count_once_though_the_server_is_killed(
    user: Person, server: Server, mongodb_uri: str
) -> None:
    dice = random.Random(20260601)
    sent: dict[str, dict[str, Any]] = {}

    async with Server(mongodb_uri, "--workers", "2", **server.settings) as fragile:
        door = Client(user.client.session, fragile.graphql, user.access_token)

        async def send(batch: list[dict[str, Any]]) -> None:
            """Send it until it is answered, as a careful client does."""
            while True:
                try:
                    reply = await door.execute(RECORD, {"input": {"agent": SCOUT, "version": "1.0", "runs": batch}})
                except aiohttp.ClientError:
                    reply = None
                if reply and "errors" not in reply.body:
                    assert reply.body["data"]["recordRuns"]["rejected"] == 0
                    return
                assert reply is None or reply.codes == ["SERVICE_UNAVAILABLE"], reply.body
                await asyncio.sleep(0.02)

        async def tell(batch: list[dict[str, Any]]) -> None:
            await send([{**each, "status": "RUNNING", "durationMs": None} for each in batch])
            await send(batch)

        for kill in range(KILLS):
            batch = [
                run(
                    f"{kill}-{n}",
                    createdAt=f"2026-05-{dice.randint(1, 5):02d}T09:00:00Z",
                    status=dice.choice(["COMPLETED", "FAILED"]),
                    durationMs=dice.randint(1, 10_000),
                    cost=f"0.{dice.randint(0, 999):03d}",
                )
                for n in range(40)
            ]
            sent.update((each["id"], each) for each in batch)
            async with asyncio.TaskGroup() as senders:
                for _ in range(8):
                    senders.create_task(tell(batch))
                for _ in range(dice.randrange(150)):
                    await asyncio.sleep(0)
                # The one that has served for longer; its parent starts another.
                os.kill((await two_workers(fragile))[0], signal.SIGKILL)

    found = await metrics(user.client)
    ended = [each for each in sent.values() if each["status"] == "COMPLETED"]
    assert found["totalRuns"] == len(sent) == 40 * KILLS
    assert found["successRate"] == pytest.approx(100 * len(ended) / len(sent))
    assert found["averageRuntimeMs"] == pytest.approx(sum(each["durationMs"] for each in sent.values()) / len(sent))
    assert Decimal(found["spend"]) == sum(Decimal(each["cost"]) for each in sent.values())
    assert (await rebuild(UTC_ZONE, repair=False)).differences == []


async def test_what_was_spoilt_is_rebuilt_from_the_command_line(user: Person, server: Server) -> None:
    await record(user.client, run("1", timeTaken="2s", cost="1"), run("2", timeTaken="4s"))
    right = await metrics(user.client)
    await database.collection(AgentVersion).update_many(
        {}, {"$inc": {"metrics.total_runs": 5, "metrics.runtimes.100": 2}, "$set": {"last_seen_at": None}}
    )

    async def rebuilt(*arguments: str) -> tuple[int, str]:
        process = await launch("rebuild", "runs", *arguments, **server.settings)
        said, _ = await process.communicate()
        return await process.wait(), said.decode()

    status, checked = await rebuilt("--check")
    assert (status, "total_runs was 7, is 2" in checked) == (1, True)
    status, said = await rebuilt()

    assert status == 0
    assert "total_runs was 7, is 2" in said
    assert await metrics(user.client) == right
    assert (await rebuild(UTC_ZONE, repair=False)).differences == []
