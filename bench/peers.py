"""`python -m bench.peers`: takes over the data of a comparison with other servers, and writes what to ask this one.

The comparison is of one small service written in several stacks, on 500 agents, 45,000 days and 10,000 ratings.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final
from zoneinfo import ZoneInfo

import typer
from rich.console import Console

from bench import seed
from models import agents, ratings
from models.agents import Discipline
from models.alerts import rules
from models.alerts.rules import AlertMetric, AlertWindow
from models.store import database
from models.store.commits import Commits
from models.store.database import Handle, Key, Row
from models.usage.counting import Batch, Counting
from models.usage.events import Event, UsageEvent
from server.application import DOCUMENTS

_BATCH: Final = 4000
_SCALARS: Final = (
    "id name description status discipline department contactPerson project usage { messages totalTokens } "
    "rating { average } createdAt tags"
)
_ALL: Final = (
    "id name description status auditStatus discipline tags userbase department contactPerson project "
    "usage { messages requests conversations users promptTokens completionTokens totalTokens cost lastUsedAt } "
    "rating { count average } createdAt updatedAt"
)
# As many values in the answers as those of the others have.
QUERIES: Final[Mapping[str, str]] = {
    "Q1.graphql": f"query Q1 {{ agents(first: 50) {{ nodes {{ {_SCALARS} }} }} }}",
    "Q2.graphql": (
        f"query Q2 {{ agents(first: 50) {{ nodes {{ {_SCALARS} "
        "usageTimeline(days: 30) { day messages promptTokens completionTokens } "
        "ratings(first: 5) { nodes { stars createdAt comment } } } } }"
    ),
    "Q3.graphql": (
        f"query Q3($id: ID!) {{ agent(by: {{id: $id}}) {{ {_ALL} "
        "usageTimeline(days: 90) { day messages promptTokens completionTokens totalTokens cost } } }"
    ),
    "M1.graphql": (
        "mutation M1($events: [UsageEventInput!]!) { collectUsage(input: {events: $events}) { accepted duplicates } }"
    ),
    "M1.variables.json": '{"events": $EVENTS}',
    "M1.event.json": (
        '{"id":"$KEY","agent":{"id":"$AGENT"},"at":"$AT","messages":1,"promptTokens":$PROMPT,'
        '"completionTokens":$COMPLETION,"cost":$COST}'
    ),
    "S1.graphql": ("subscription S1 { thresholdAlerts { agent { id name } metric threshold value raisedAt } }"),
}

console = Console(stderr=True, highlight=False)


@dataclass(frozen=True, slots=True)
class _Company:
    keys: Mapping[Key, Key]
    last: Row


async def _take_over(source: Handle, raters: Sequence[Key], now: datetime) -> _Company:
    keys: dict[Key, Key] = {}
    row: Row = {}
    disciplines = list(Discipline)
    async for theirs in source["agents"].find().sort("_id", 1):
        row = await agents.create(
            {
                "name": theirs["name"],
                "description": theirs["description"],
                "project": theirs["version"],
                "discipline": disciplines[len(keys) % len(disciplines)],
                "tags": theirs["tags"],
                "userbase": theirs["endpoint"],
                "department": theirs["department"],
                "contact_person": theirs["owner"],
            },
            owner=None,
            by_person=False,
            now=theirs["createdAt"],
        )
        keys[theirs["_id"]] = row["_id"]
    await _use(source, keys, now)
    await _rate(source, keys, raters)
    return _Company(keys, row)


async def _use(source: Handle, keys: Mapping[Key, Key], now: datetime) -> None:
    change, waiting = Counting(ZoneInfo("UTC")), list[Event]()
    async with Commits(UsageEvent) as commits:

        async def send() -> None:
            await commits.submit(change, Batch(list(waiting), now), weight=len(waiting))
            waiting.clear()

        async for day in source["usage_daily"].find():
            event = Event(
                source="peers",
                id=str(day["_id"]),
                agent=keys[day["agentId"]],
                at=day["day"],
                model="large-1",
                messages=day["messages"],
                prompt_tokens=day["promptTokens"],
                completion_tokens=day["completionTokens"],
                cost=Decimal(str(day["cost"])),
            )
            waiting.append(event)
            if len(waiting) == _BATCH:
                await send()
        if waiting:
            await send()


async def _rate(source: Handle, keys: Mapping[Key, Key], raters: Sequence[Key]) -> None:
    given: dict[Key, int] = {}
    async for theirs in source["ratings"].find().sort("createdAt", 1):
        place = given[theirs["agentId"]] = given.get(theirs["agentId"], -1) + 1
        await ratings.rate(
            keys[theirs["agentId"]],
            by=raters[place % len(raters)],
            stars=theirs["stars"],
            comment=theirs["comment"],
            now=theirs["createdAt"],
        )


async def _prepare(uri: str, *, theirs: str, ours: str) -> tuple[str, Mapping[str, str]]:
    now = datetime.now(UTC)
    async with database.connect(uri, ours, DOCUMENTS) as store:
        await store.empty()
        console.print(f"Taking over {theirs} into {ours}: a minute or so")
        raters, secret = await seed.people(now)
        company = await _take_over(store.client[theirs], raters, now)
        # One that speaks at each event of the last agent.
        watched: dict[str, Any] = {
            "name": "Every event",
            "metric": AlertMetric.TOTAL_TOKENS,
            "window": AlertWindow.LIFETIME,
            "threshold": Decimal(1),
            "percents": [100],
            "cooldown_hours": 1e-9,
            "agent": company.last["_id"],
        }
        await rules.create(watched, now=now)
    names = [database.global_id("Agent", key) for key in company.keys.values()]
    files = {"agents.txt": "\n".join(names), "Q3.variables.json": f'{{"id": "{names[249]}"}}'}
    return secret, {**QUERIES, **files}


def main(
    *,
    uri: Annotated[str, typer.Option(help="The replica set on which the comparison has seeded its database.")],
    queries: Annotated[Path, typer.Option(help="Where to write the queries for this service.")],
    theirs: Annotated[str, typer.Option(help="The comparison's database.")] = "peers",
    ours: Annotated[str, typer.Option(help="The database to fill for this service; emptied first.")] = "agenthub_peers",
) -> None:
    """Take over the data of a comparison with other servers; prints the API key to send as a Bearer token."""
    secret, files = asyncio.run(_prepare(uri, theirs=theirs, ours=ours))
    queries.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (queries / name).write_text(text)
    print(secret)  # for a shell to take


if __name__ == "__main__":
    typer.run(main)
