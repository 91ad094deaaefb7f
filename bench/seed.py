"""Fills a database: people, a key, agents, usage and ratings by the product's own functions; the same at every run."""

import asyncio
import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo

from pymongo.write_concern import WriteConcern

from auth.minting import Minting
from auth.passwords import Passwords
from auth.registration import Registration
from bench.queries import LISTED, agent_name
from models import agents, ratings
from models.agents import Discipline
from models.keys import ApiKeyScope
from models.store import database
from models.store.commits import Commits
from models.store.database import Database, Key
from models.usage import tallying
from models.usage.counting import Batch, Counting
from models.usage.days import Cell, Sums, UsageMonth
from models.usage.events import Event, UsageEvent
from models.usage.tallying import Tally
from models.users import Role

AGENTS: Final = 500
DAYS: Final = 90
RATINGS: Final = 2000
FLEET_DAYS: Final = 30
# Few enough that 10,000 events are some in every cell: what grows with more of them is then their number alone.
FLEET_AGENTS: Final = 100

_PEOPLE: Final = 20
_RATINGS_OF_LISTED: Final = 10
_MODELS: Final = ("claude-sonnet-4-5", "gpt-5-mini")
_BATCH: Final = 4000
_RAW_BATCH: Final = 20_000
_AT_ONCE: Final = 8
_ZONE: Final = ZoneInfo("UTC")


async def people(now: datetime) -> tuple[Sequence[Key], str]:
    """Make the people who rate, and a key that may read and report; gives their keys and its secret."""
    async with Passwords("cheap") as passwords:
        registration = Registration(passwords)
        rows = [
            await registration.create(
                email=f"person-{number}@example.com",
                name=f"Person {number}",
                password="correct horse battery staple",  # noqa: S106  # of a database that lives for minutes
                role=Role.ADMIN if number == 0 else Role.USER,
                now=now,
            )
            for number in range(_PEOPLE)
        ]
    _, secret = await Minting().mint_for(
        rows[0]["_id"],
        {"name": "bench", "scopes": [ApiKeyScope.READ, ApiKeyScope.COLLECT], "expires_at": None},
        is_admin=True,
        now=now,
    )
    return [row["_id"] for row in rows], secret


async def fleet(now: datetime) -> Sequence[Key]:
    """Register the agents, every field said."""
    born = now - timedelta(days=200)
    rows = [
        await agents.create(
            {
                "name": agent_name(number),
                "description": f"Helps team {number % 12} with its daily work, and answers within a few seconds.",
                "project": f"Project {number % 25}",
                "discipline": list(Discipline)[number % len(Discipline)],
                "tags": ["internal", f"team-{number % 12}", "beta"],
                "userbase": "Whole company",
                "department": f"Department {number % 9}",
                "contact_person": f"Person {number % _PEOPLE}",
            },
            owner=None,
            by_person=False,
            now=born,
        )
        for number in range(AGENTS)
    ]
    return [row["_id"] for row in rows]


async def usage(keys: Sequence[Key], now: datetime) -> None:
    """Report one event of each agent on each of 90 days, through the change that `collectUsage` makes."""
    waiting: list[Event] = []
    change = Counting(_ZONE)
    async with Commits(UsageEvent) as commits:
        for event in _events(keys, now):
            waiting.append(event)
            if len(waiting) == _BATCH:
                await commits.submit(change, Batch(waiting, now), weight=len(waiting))
                waiting = []
        if waiting:
            await commits.submit(change, Batch(waiting, now), weight=len(waiting))


def _events(keys: Sequence[Key], now: datetime) -> Iterator[Event]:
    for past in reversed(range(DAYS)):
        for number, key in enumerate(keys):
            yield Event(
                source="seed",
                id=f"{number}-{past}",
                agent=key,
                at=now - timedelta(days=past),
                model=_MODELS[(number + past) % 2],
                prompt_tokens=1000 + number,
                completion_tokens=200 + past,
                cached_tokens=300,
                messages=3,
                cost=Decimal("0.0123"),
                latency_ms=900 + past,
            )


async def rate(keys: Sequence[Key], raters: Sequence[Key], now: datetime) -> None:
    """Rate: ten times each agent of the list's first page, the others as often as makes 2,000."""
    dice = random.Random(20261121)
    pairs = [(key, rater) for key in keys[:LISTED] for rater in raters[:_RATINGS_OF_LISTED]]
    rest = RATINGS - len(pairs)
    pairs += [(keys[LISTED + n % (AGENTS - LISTED)], raters[n // (AGENTS - LISTED)]) for n in range(rest)]
    dice.shuffle(pairs)
    waiting = iter(pairs)

    async def work() -> None:
        for key, rater in waiting:
            await ratings.rate(key, by=rater, stars=dice.randint(1, 5), comment="Saves me an hour a day.", now=now)

    await asyncio.gather(*(work() for _ in range(_AT_ONCE)))


async def company(now: datetime) -> str:
    """Make all of it; gives the secret of the key."""
    raters, secret = await people(now)
    keys = await fleet(now)
    await usage(keys, now)
    await rate(keys, raters, now)
    return secret


async def bulk(store: Database, count: int, now: datetime) -> str:
    """Make a fleet with `count` events over 30 days; gives the secret of a key.

    Events go in by raw `insert_many` without waiting for the journal; days and totals are summed from the same rows
    by the product's `figures_of` and written by its `days.add` and `add_totals`. Hours are left out: nothing that is
    measured here reads them.
    """
    _, secret = await people(now)
    keys = (await fleet(now))[:FLEET_AGENTS]
    raw = database.collection(UsageEvent).with_options(write_concern=WriteConcern(w=1, j=False))
    tally = Tally()
    commit = Key()
    writing: asyncio.Task[object] | None = None
    for start in range(0, count, _RAW_BATCH):
        rows = [_row(keys, number, now=now, commit=commit) for number in range(start, min(count, start + _RAW_BATCH))]
        for row in rows:
            _sum(tally, row)
        if writing:
            await writing
        writing = asyncio.create_task(_insert(raw, rows))
    if writing:
        await writing
    async with store.client.start_session() as session:
        await tallying.add_totals(tally.totals, tally.spans, session=session)
        await tallying.add(UsageMonth, tally.days, used=tally.used, running=tally.running, session=session)
    return secret


async def _insert(raw: Any, rows: list[dict[str, Any]]) -> None:  # noqa: ANN401  # the driver's collection
    await raw.insert_many(rows, ordered=False)


def _row(keys: Sequence[Key], number: int, *, now: datetime, commit: Key) -> dict[str, Any]:
    turn = number // FLEET_AGENTS
    day = turn % FLEET_DAYS
    return {
        "_id": f"bulk\x1f{number}",
        "agent": keys[number % FLEET_AGENTS],
        "at": now - timedelta(days=day),
        "model": _MODELS[(turn // FLEET_DAYS + day) % 2],
        "prompt_tokens": 1000 + number % 97,
        "completion_tokens": 200 + number % 31,
        "messages": 1,
        "content": b"0123456789abcdef",
        "commit": commit,
        "cost_nanodollars": 12_300_000,
        "latency_ms": 900,
    }


def _sum(tally: Tally, row: dict[str, Any]) -> None:
    agent, at = row["agent"], row["at"]
    cell = Cell.of_day(agent, row["model"], at.astimezone(UTC).date())
    figures = tallying.figures_of([row])
    _add(tally.days.setdefault(cell, {}), figures)
    _add(tally.totals.setdefault(agent, {}), figures)
    tally.used[cell] = (at, at)
    first, last = tally.spans.get(agent, (at, at))
    tally.spans[agent] = (min(first, at), max(last, at))


def _add(sums: Sums, figures: Sums) -> None:
    for name, value in figures.items():
        if value:
            sums[name] = sums.get(name, 0) + value
