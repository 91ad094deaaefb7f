"""What questions about runs cost with few and with many of them: the same fleet, side by side, round by round."""

import asyncio
import json
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

import pymongo
from pymongo.write_concern import WriteConcern

from bench import queries, seed
from bench.load import Sample, WrongAnswer
from bench.measures import Bench, Plan, Run, bench, rounds
from bench.report import Figure
from graph.language import pages
from models.runs import figures, listed, reports, versions
from models.runs.figures import Tally
from models.runs.reports import AgentRun, RunStatus
from models.runs.versions import AgentVersion
from models.store import database
from models.store.database import Database, Key, UpdateOne
from server.application import DOCUMENTS

# As many as the dashboard looks back.
DAYS: Final = 10
AGENTS: Final = 10
# Few enough that 10,000 runs fill their histograms: what grows with more of them is then their number alone.
VERSIONS: Final = 20
SIZE: Final = 10
PAGE: Final = 1000

_RAW_BATCH: Final = 5000
_PATIENCE_S: Final = 300
_ZONE: Final = ZoneInfo("UTC")
_MEASURED: Final = "totalRuns averageRuntimeMs p50RuntimeMs p95RuntimeMs p99RuntimeMs successRate spend lastSeenAt"
_DASHBOARD: Final = "{ dashboard { title value change icon trend raw } }"
_VERSIONS: Final = (
    f"{{ agentVersions {{ nodes {{ version status cluster agent {{ name }} metrics {{ {_MEASURED} }} }} }} }}"
)
_VERSION: Final = """query ($agent: AgentBy!) { agentVersion(agent: $agent, version: "0") {
  metrics { p50RuntimeMs p95RuntimeMs p99RuntimeMs } } }"""
_RUNS: Final = """query ($first: Int, $after: String) { runs(first: $first, after: $after) {
  pageInfo { endCursor } nodes { id runId status createdAt durationMs initiator cost } } }"""


async def measure(uri: str, plan: Plan, *, say: Callable[[str], None]) -> list[Figure]:
    """Measure the dashboard, the list of versions, percentiles of one, and page 1,000 of all runs."""
    async with AsyncExitStack() as stack:
        found: list[tuple[Bench, Mapping[str, bytes]]] = []
        for count in plan.fleets:
            name = f"bench_runs_{count}"
            say(f"Seeding {count:,} runs")
            async with database.connect(uri, name, DOCUMENTS) as store:
                secret = await fill(store, count, datetime.now(UTC))
                bodies = await _bodies()
            found.append((await stack.enter_async_context(bench(uri, name, secret, plan=plan)), bodies))
        measured: list[Figure] = []
        for title in found[0][1]:
            say(f"Measuring {title}")
            few, many = await rounds(plan.rounds, *[await _reader(each, bodies[title]) for each, bodies in found])
            measured += _figures(title, plan.fleets, few, many)
    return measured


def _figures(title: str, counts: tuple[int, int], few: Sequence[Sample], many: Sequence[Sample]) -> list[Figure]:  # noqa: PLR0917  # in the order they are read
    lines = [
        Figure(f"{title}, {count:,} runs", "ms / request", [1000 / each.per_second for each in samples])
        for count, samples in zip(counts, (few, many), strict=True)
    ]
    pairs = list(zip(few, many, strict=True))
    against = f"{title}, {counts[1]:,} against {counts[0]:,}"
    return [
        *lines,
        Figure(against, "times the time", [one.per_second / other.per_second for one, other in pairs]),
        Figure(against, "times the CPU", [other.cpu_ms / one.cpu_ms for one, other in pairs]),
    ]


async def _reader(bench: Bench, body: bytes) -> Run:
    first = await bench.caller.post(bench.server.graphql, body)
    said = json.loads(first)
    if "errors" in said or not _is_whole(said["data"]):
        raise WrongAnswer(repr(first[:500]))
    return await bench.served(body, lambda answer: answer[:20] == first[:20] and b'"errors"' not in answer)


def _is_whole(data: Mapping[str, Any]) -> bool:
    """Whether all that was asked for is there: what is fast because it is missing must not count."""
    if "runs" in data:
        return len(data["runs"]["nodes"]) == SIZE
    if "agentVersions" in data:
        return len(data["agentVersions"]["nodes"]) == VERSIONS and all(
            each["metrics"]["p99RuntimeMs"] for each in data["agentVersions"]["nodes"]
        )
    if "agentVersion" in data:
        return all(data["agentVersion"]["metrics"].values())
    return all(each["raw"] for each in data["dashboard"])


async def _bodies() -> Mapping[str, bytes]:
    wanted = pages.asked("all runs", listed.NEWEST)
    rows = database.collection(AgentRun).find({}).sort([("created_at", -1), ("_id", -1)])
    (last,) = await rows.skip((PAGE - 1) * SIZE - 1).limit(1).to_list(1)
    after = pages.encode(wanted.scope, listed.NEWEST.position(last))
    return {
        "dashboard": queries.body(_DASHBOARD),
        "20 versions": queries.body(_VERSIONS),
        "percentiles of a version": queries.body(_VERSION, {"agent": {"name": queries.agent_name(0)}}),
        "page 1,000 of runs": queries.body(_RUNS, {"first": SIZE, "after": after}),
    }


# ---------------------------------------------------------------- runs


async def fill(store: Database, count: int, now: datetime) -> str:
    """Make `count` runs of 20 versions over 10 days; gives the secret of a key.

    Runs go in by raw `insert_many` without waiting for the journal, and are indexed then. What they come to is counted
    by the product's `Tally` and written by its `keep`.
    """
    _, secret = await seed.people(now)
    keys = (await seed.fleet(now))[:AGENTS]
    made = [
        versions.row_of(
            {"_id": keys[number % AGENTS], "name": queries.agent_name(number % AGENTS)},
            {"version": str(number // AGENTS), "cluster": "eu-1"},
            now=now,
        )
        for number in range(VERSIONS)
    ]
    await database.collection(AgentVersion).insert_many(made)
    raw = database.collection(AgentRun).with_options(write_concern=WriteConcern(w=1, j=False))
    # Built in one go once all is there: ten indexes kept while loading take most of its time.
    await raw.drop_indexes()
    tally = Tally(_ZONE, since=now - figures.HOURS_KEPT)
    dice = random.Random(20261121)
    commit = Key()
    writing: asyncio.Task[object] | None = None
    for start in range(0, count, _RAW_BATCH):
        rows = [
            _row(dice, made[n % VERSIONS], n / count, now=now) for n in range(start, min(count, start + _RAW_BATCH))
        ]
        for number, row in enumerate(rows):
            row |= {"run_id": str(start + number), "_id": Key(), "commit": commit}
            tally.add(row)
        if writing:
            await writing
        writing = asyncio.create_task(_insert(raw, rows))
    if writing:
        await writing
    with pymongo.timeout(_PATIENCE_S):
        await raw.create_indexes(AgentRun.Settings.indexes)
    async with store.client.start_session() as session:
        await figures.keep(tally, part=0, session=session)
        await database.collection(AgentVersion).bulk_write(
            [
                UpdateOne(
                    {"_id": key},
                    {
                        "$inc": {f"metrics.{name}": value for name, value in figure.sums.items() if value},
                        "$max": {"last_seen_at": figure.last},
                    },
                )
                for key, figure in tally.of_versions().items()
            ],
            session=session,
        )
    return secret


async def _insert(raw: Any, rows: list[dict[str, Any]]) -> None:  # noqa: ANN401  # the driver's collection
    await raw.insert_many(rows, ordered=False)


def _row(dice: random.Random, version: Mapping[str, Any], share: float, *, now: datetime) -> dict[str, Any]:
    took = dice.randint(4_000, 16_000)
    row = {
        "agent": version["agent"],
        "version": version["_id"],
        "task_id": f"task {dice.randrange(10_000)}",
        "status": (RunStatus.FAILED if dice.random() < 0.1 else RunStatus.COMPLETED).value,
        # The whole span, however many: as many fall into the last hour as into any.
        "created_at": (now - timedelta(days=DAYS) * share).replace(microsecond=0),
        "duration_ms": took,
        "initiator": dice.choice(["scheduler", "webhook", "ada@example.com"]),
        "tools": ["search"],
        "models": ["gpt-5-mini"],
        "cost_nanodollars": took * 1000,
        "content": b"0123456789abcdef",
    }
    return {**row, "at": reports.happened(row, now=now)}
