"""Runs as they are listed: pages, filters, and that none of them costs more where there are more runs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from models.runs import listed
from models.runs.listed import EVERY, Filter
from models.runs.reports import AgentRun, RunStatus
from models.store import database
from models.store.database import Database, Key
from models.store.pages import Window
from tests.client import GraphQLErrors
from tests.factories import Person
from tests.test_runs import record, run

FIELDS = """totalCount pageInfo { endCursor hasNextPage } nodes { runId }"""
ALL = f"""query ($filter: RunFilter, $first: Int, $after: String) {{
  runs(filter: $filter, first: $first, after: $after) {{ {FIELDS} }} }}"""
NESTED = f"""query ($filter: RunFilter, $first: Int, $after: String) {{
  agents {{ nodes {{ name runs(filter: $filter, first: $first, after: $after) {{ {FIELDS} }} }} }}
  agentVersions {{ nodes {{ version runs(filter: $filter, first: $first) {{ {FIELDS} }} }} }} }}"""


async def fill(user: Person) -> None:
    """Record runs of two agents and three versions, a minute apart."""
    for place, (agent, version, status, initiator, task) in enumerate(
        [
            ("Scout", "1", "COMPLETED", "ada", "t1"),
            ("Scout", "1", "FAILED", "ada", "t1"),
            ("Scout", "2", "FAILED", "bob", "t2"),
            ("Scout", "2", "RUNNING", None, None),
            ("Ranger", "1r", "FAILED", "ada", "t1"),
            ("Ranger", "1r", "COMPLETED", "bob", None),
        ]
    ):
        said = {"status": status, "initiator": initiator, "taskId": task, "createdAt": f"2026-05-01T09:0{place}:00Z"}
        await record(user.client, run(f"r{place}", **said), version=version, agent={"name": agent})


async def names(user: Person, **chosen: Any) -> list[str]:
    """Read all pages of one and give the runs' own names; the count must agree."""
    found: list[str] = []
    after = None
    while True:
        page = (await user.client.query(ALL, filter=chosen or None, first=2, after=after))["runs"]
        found += [node["runId"] for node in page["nodes"]]
        if not page["pageInfo"]["hasNextPage"]:
            assert page["totalCount"] == len(found)
            return found
        after = page["pageInfo"]["endCursor"]


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({}, "543210"),
        ({"status": ["FAILED"]}, "421"),
        ({"status": ["FAILED", "RUNNING", "FAILED"]}, "4321"),
        ({"status": ["CANCELLED"]}, ""),
        ({"initiator": "ada"}, "410"),
        ({"initiator": "Ada"}, ""),
        ({"task": "t1"}, "410"),
        ({"from": "2026-05-01T09:02:00Z"}, "5432"),
        ({"to": "2026-05-01T09:02:00Z"}, "10"),
        ({"from": "2026-05-01T09:01:00Z", "to": "2026-05-01T09:04:00Z"}, "321"),
        ({"status": ["FAILED"], "from": "2026-05-01T09:01:00Z", "to": "2026-05-01T09:04:00Z"}, "21"),
        ({"status": ["FAILED"], "initiator": "ada", "task": "t1"}, "41"),
    ],
)
async def test_runs_are_chosen_over_pages(user: Person, chosen: dict[str, Any], expected: str) -> None:
    await fill(user)

    assert await names(user, **chosen) == [f"r{place}" for place in expected]


async def test_the_runs_of_agents_and_versions_are_chosen_too(user: Person) -> None:
    await fill(user)

    found = await user.client.query(NESTED, filter={"status": ["FAILED", "COMPLETED"], "initiator": "ada"}, first=1)

    def shown(each: dict[str, Any]) -> tuple[int, list[str], bool]:
        runs = each["runs"]
        return runs["totalCount"], [node["runId"] for node in runs["nodes"]], runs["pageInfo"]["hasNextPage"]

    assert {each["name"]: shown(each) for each in found["agents"]["nodes"]} == {
        "Ranger": (1, ["r4"], False),
        "Scout": (2, ["r1"], True),
    }
    assert {each["version"]: shown(each) for each in found["agentVersions"]["nodes"]} == {
        "1": (2, ["r1"], True),
        "2": (0, [], False),
        "1r": (1, ["r4"], False),
    }
    scout = found["agents"]["nodes"][1]
    rest = await user.client.query(
        NESTED,
        filter={"status": ["FAILED", "COMPLETED"], "initiator": "ada"},
        after=scout["runs"]["pageInfo"]["endCursor"],
    )
    assert [node["runId"] for node in rest["agents"]["nodes"][1]["runs"]["nodes"]] == ["r0"]


@pytest.mark.parametrize(
    ("chosen", "field"),
    [
        ({"status": []}, "filter.status"),
        ({"initiator": ""}, "filter.initiator"),
        ({"initiator": "a\nb"}, "filter.initiator"),
        ({"task": "a\tb"}, "filter.task"),
        ({"from": "2026-05-02T00:00:00Z", "to": "2026-05-02T00:00:00Z"}, "filter.from"),
    ],
)
async def test_a_filter_that_chooses_nothing_is_refused(user: Person, chosen: dict[str, Any], field: str) -> None:
    with pytest.raises(GraphQLErrors) as caught:
        await user.client.query(ALL, filter=chosen)

    assert (caught.value.code, caught.value.field) == ("BAD_USER_INPUT", field)


async def test_a_cursor_fits_its_own_list_alone(user: Person) -> None:
    await fill(user)
    page = (await user.client.query(ALL, first=1))["runs"]

    with pytest.raises(GraphQLErrors) as caught:
        await user.client.query(NESTED, first=1, after=page["pageInfo"]["endCursor"])

    assert {(each["extensions"]["code"], each["extensions"]["field"]) for each in caught.value.errors} == {
        ("BAD_USER_INPUT", "after")
    }


# ---------------------------------------------------------------- what a page costs

AGENT, VERSION = Key(), Key()
START = datetime(2026, 5, 1, tzinfo=UTC)


async def many() -> None:
    """Store 6,000 runs, of which one in fifty has failed, was begun by Ada, and worked on the one task."""
    rows = [
        {
            "_id": Key(),
            "agent": AGENT,
            "version": VERSION,
            "status": "FAILED" if n % 50 == 0 else "TIMED_OUT" if n % 50 == 1 else "COMPLETED",
            "initiator": "ada" if n % 50 == 2 else "bob",
            "task_id": "rare" if n % 50 == 3 else f"task {n}",
            "created_at": START + timedelta(seconds=n // 2),
        }
        for n in range(6000)
    ]
    await database.collection(AgentRun).insert_many(rows)


@pytest.mark.parametrize("of", ["all", "an agent", "a version"])
@pytest.mark.parametrize(
    "chosen",
    [
        EVERY,
        Filter(statuses=(RunStatus.FAILED,)),
        Filter(statuses=(RunStatus.FAILED, RunStatus.TIMED_OUT, RunStatus.RUNNING)),
        Filter(initiator="ada"),
        Filter(task="rare"),
        Filter(since=START + timedelta(seconds=100), until=START + timedelta(seconds=2900)),
        Filter(statuses=(RunStatus.FAILED,), since=START + timedelta(seconds=100)),
        Filter(initiator="ada", until=START + timedelta(seconds=2900)),
    ],
)
async def test_any_page_reads_its_own_rows_alone(store: Database, chosen: Filter, of: str) -> None:
    await many()
    first = await listed.page(chosen, window=Window(30))
    pages = [Window(20), Window(20, after=first.order.position(first.rows[-1]))]

    read = []
    for window in pages:
        async with profiled(store) as seen:
            if of == "all":
                page = await listed.page(chosen, window=window)
            elif of == "an agent":
                page = (await listed.of_agents([AGENT], chosen=chosen, window=window))[AGENT]
            else:
                page = (await listed.of_versions([VERSION], chosen=chosen, window=window))[VERSION]
        assert (len(page.rows), page.has_next) == (20, True)
        read += seen

    # A row more says whether there are more; each range that is merged is looked at once more.
    assert [row["docsExamined"] <= 25 and row["keysExamined"] <= 30 for row in read] == [True, True], read


@asynccontextmanager
async def profiled(store: Database) -> AsyncIterator[list[dict[str, Any]]]:
    """Have the database note what the reads within the block look at."""
    seen: list[dict[str, Any]] = []
    await store.handle.command("profile", 2)
    try:
        yield seen
    finally:
        await store.handle.command("profile", 0)
        profile = store.handle["system.profile"]
        # Those of the server that runs beside have no pages of runs.
        seen += [row async for row in profile.find({"appName": "agenthub", "docsExamined": {"$gte": 20}})]
        await profile.drop()
