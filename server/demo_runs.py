"""Runs of the believable company: versions that follow each other, each a little better, and 30 days of their work."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final

from graph.context import Services
from models import agents
from models.runs import versions
from models.runs.reports import Batch, Run, RunStatus
from models.store.database import Key, Row

_DAYS: Final = 30
_SATURDAY: Final = 5
_CLUSTERS: Final = ("eu-central", "eu-west", "us-east")
_TOOLS: Final = ("search", "calculator", "mail", "calendar", "spreadsheet", "browser", "knowledge-base")
_MODELS: Final = ("claude-sonnet-4-5", "gpt-5-mini", "gemini-2.5-flash", "mistral-medium-3")
_INITIATORS: Final = ("scheduler", "scheduler", "webhook", "mira@example.com", "jonas@example.com", "ravi@example.com")
_ENDS: Final = (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.TIMED_OUT, RunStatus.CANCELLED)


async def load(services: Services, known: Sequence[Key], *, now: datetime) -> None:
    """Record the runs of every second agent, through the same door that reporters use."""
    found = await agents.by_keys(known[::2])
    for number, key in enumerate(known[::2]):
        # An agent keeps its pace, its tools and its luck.
        dice = random.Random(number)  # noqa: S311  # makes a company, guards nothing
        batches = [each async for each in _versions(found[key], dice, now=now)]
        await asyncio.gather(
            *(services.commits.submit(services.recording, batch, weight=len(batch.runs)) for batch in batches)
        )


async def _versions(agent: Row, dice: random.Random, *, now: datetime) -> AsyncIterator[Batch]:
    count = dice.randint(1, 3)
    tools, models = dice.sample(_TOOLS, dice.randint(1, 4)), dice.sample(_MODELS, dice.randint(1, 2))
    first = now - timedelta(days=_DAYS)
    for number in range(count):
        begin = first + number * timedelta(days=_DAYS) / count
        end = first + (number + 1) * timedelta(days=_DAYS) / count
        version = f"{number + 1}.{dice.randint(0, 4)}"
        said = {
            "version": version,
            "cluster": dice.choice(_CLUSTERS),
            "deployment": f"{agent['name'].lower().replace(' ', '-')}-{version}",
            "tools": tools,
            "models": models,
        }
        await versions.add(agent, said, now=begin)
        runs = list(_runs(dice, begin, end, version=version, tools=tools, models=models, better=number, now=now))
        for start in range(0, len(runs), 1000):
            yield Batch(agent["_id"], version, runs[start : start + 1000], now)


def _runs(
    dice: random.Random,
    begin: datetime,
    end: datetime,
    *,
    version: str,
    tools: Sequence[str],
    models: Sequence[str],
    better: int,
    now: datetime,
) -> Iterator[Run]:
    """Give a version's runs: most by day and on working days, most of them short, a few that fail."""
    pace, typical = dice.choice([8, 16, 30]), dice.choice([8_000, 40_000, 180_000])
    at, number = begin, 0
    while (at := at + timedelta(hours=dice.expovariate(pace / 24))) < end:
        is_quiet = at.weekday() >= _SATURDAY or not 6 <= at.hour <= 20  # noqa: PLR2004  # of the day
        # The last hours are busy at any time of day, so that the dashboard has something to show.
        if is_quiet and dice.random() < 0.8 and now - at > timedelta(hours=3):  # noqa: PLR2004  # four of five
            continue
        number += 1
        took = round(min(typical * dice.lognormvariate(0, 0.7) * (1 - better / 10), 3_600_000))
        is_running = at + timedelta(milliseconds=took) > now
        status = dice.choices(_ENDS, weights=[88 + 4 * better, 8 - 2 * better, 2, 1])[0]
        yield Run(
            run_id=f"{version}-{number:04}",
            status=RunStatus.RUNNING if is_running else status,
            created_at=at.astimezone(UTC),
            duration_ms=None if is_running else took,
            task_id=f"task-{dice.randint(1, 400)}",
            initiator=dice.choice(_INITIATORS),
            tools=dice.sample(tools, dice.randint(1, len(tools))),
            models=[dice.choice(models)],
            cost=None if is_running else Decimal(took).scaleb(-6) * dice.randint(1, 4),
        )
