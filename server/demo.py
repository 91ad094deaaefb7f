"""A believable company: people, some 60 agents, 90 days of usage, ratings, alerts, runs and threads."""

import random
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Final, NamedTuple

from graph.context import Services
from models import agents, ratings, users
from models.agents import AgentStatus, AuditStatus, Discipline
from models.alerts import rules
from models.alerts.rules import AlertMetric, AlertWindow
from models.store.database import Key
from models.usage.counting import Batch
from models.usage.events import Event
from models.users import Role
from server import demo_runs, demo_threads

ADMIN: Final = ("admin@agenthub.com", "admin123", "Ada Admin")
USER: Final = ("test@example.com", "testpass123", "Toni Test")
_DAYS: Final = 90
_BATCH: Final = 2000


class _Kind(NamedTuple):
    discipline: Discipline
    project: str
    department: str
    names: Sequence[str]


_PEOPLE: Final = (
    "Mira Lindqvist", "Jonas Weber", "Aisha Rahman", "Tomás Ferreira", "Yuki Tanaka", "Elena Petrova", "Noah Adeyemi",
    "Camille Laurent", "Ravi Menon", "Sofia Rossi",
)  # fmt: skip
_AGENTS: Final = (
    _Kind(Discipline.STRATEGY, "Northstar", "Strategy", (
        "Market Scout", "Competitor Radar", "Brief Analyst", "Audience Mapper", "Pricing Advisor", "Trend Digest",
        "Pitch Researcher", "Survey Reader", "Persona Builder", "Forecast Desk",
    )),
    _Kind(Discipline.CREATIVE, "Canvas", "Creative", (
        "Headline Smith", "Storyboard Helper", "Tone Keeper", "Image Prompter", "Script Doctor", "Localiser",
        "Campaign Muse", "Caption Writer", "Brand Voice Checker", "Moodboard Finder",
    )),
    _Kind(Discipline.OVERSIGHT, "Lighthouse", "Delivery", (
        "Release Watcher", "Scope Guard", "Status Reporter", "Risk Ledger", "Meeting Scribe", "Compliance Reader",
        "Handover Checker", "Quality Gate", "Timeline Keeper", "Vendor Monitor",
    )),
    _Kind(Discipline.OPTIMIZATION, "Flywheel", "Performance", (
        "Bid Tuner", "Landing Page Tester", "Churn Spotter", "Query Rewriter", "Budget Pacer", "Experiment Planner",
        "Attribution Helper", "Search Term Miner", "Feed Cleaner", "Cache Warmer",
    )),
    _Kind(Discipline.BACK_OFFICE, "Ledger", "Operations", (
        "Invoice Matcher", "Contract Reader", "Travel Desk", "Onboarding Guide", "Payroll Answerer", "Ticket Router",
        "Expense Auditor", "Policy Finder", "Asset Librarian", "Mailroom",
    )),
    _Kind(Discipline.PENCIL_AGENTS, "Sketchbook", "Studio", (
        "Pencil Layout", "Pencil Resizer", "Pencil Copy", "Pencil Review", "Pencil Export", "Pencil Colour",
        "Pencil Voiceover", "Pencil Subtitles", "Pencil Archive", "Pencil Planner",
    )),
)  # fmt: skip
_MODELS: Final = (
    ("claude-sonnet-4-5", "anthropic", Decimal("3.00"), Decimal("15.00")),
    ("gpt-5-mini", "openai", Decimal("0.25"), Decimal("2.00")),
    ("gemini-2.5-flash", "gcp.vertex_ai", Decimal("0.30"), Decimal("2.50")),
    ("mistral-medium-3", "mistral_ai", Decimal("0.40"), Decimal("2.00")),
)
_REMARKS: Final = (
    None, None, None, "Saves me an hour a day.", "Good first drafts, check the numbers.", "Misses the tone sometimes.",
    "Fast and reliable.", "Would like sources with every answer.", "The whole team uses it.",
)  # fmt: skip


async def load(services: Services, *, progress: Callable[[str, float], None]) -> None:
    """Fill an empty database, through the same doors that clients use; one that has demo agents is left as it is.

    What it makes is the same at every load but for the dates, which end today. `progress` is told what is loaded, and
    how much of the whole is done, from 0 to 1.
    """
    now = datetime.now(UTC)
    email, password, name = ADMIN
    admin, _ = await services.registration.ensure(
        email=email, name=name, password=password, role=Role.ADMIN, now=now, check=False
    )
    email, password, name = USER
    user, _ = await services.registration.ensure(
        email=email, name=name, password=password, role=Role.USER, now=now, check=False
    )
    if await agents.count(agents.Filter()):
        return
    dice = random.Random(20260501)  # noqa: S311  # makes a company, guards nothing
    progress("people and agents", 0.0)
    people = [admin["_id"], user["_id"], *await _people(services, now)]
    await _rules(now)
    known = await _agents(people, now, dice)
    await _usage(services, known, now=now, dice=dice, progress=progress)
    progress("runs", 0.7)
    await demo_runs.load(services, known, now=now)
    await demo_threads.load(services, list((await agents.by_keys(known)).values()), now=now)
    for place, key in enumerate(known):
        progress("ratings", 0.8 + 0.2 * place / len(known))
        for person in dice.sample(people, dice.randint(0, len(people))):
            await ratings.rate(
                key,
                by=person,
                stars=min(5, max(1, round(dice.gauss(3.9, 0.9)))),
                comment=dice.choice(_REMARKS),
                now=now,
            )


async def _people(services: Services, now: datetime) -> list[Key]:
    made = []
    for name in _PEOPLE:
        email = f"{name.split()[0].lower()}@example.com"
        # Nobody is told these passwords: the two demo accounts are there to sign in with.
        row, _ = await services.registration.ensure(
            email=email, name=name, password=f"{name}'s own", role=Role.USER, now=now
        )
        made.append(row["_id"])
    return [row["_id"] for row in (await users.by_keys(made)).values()]


async def _rules(now: datetime) -> None:
    await rules.create(
        {
            "name": "Daily spend",
            "metric": AlertMetric.COST,
            "window": AlertWindow.DAY,
            "threshold": Decimal("1.20"),
            "percents": [80, 100],
        },
        now=now,
    )
    await rules.create(
        {
            "name": "Creative monthly tokens",
            "metric": AlertMetric.TOTAL_TOKENS,
            "window": AlertWindow.MONTH,
            "threshold": Decimal(4_000_000),
            "percents": [80, 95, 100],
            "discipline": Discipline.CREATIVE,
        },
        now=now,
    )


async def _agents(people: Sequence[Key], now: datetime, dice: random.Random) -> list[Key]:
    known = []
    for kind in _AGENTS:
        for name in kind.names:
            values = {
                "name": name,
                "description": f"{name} helps the {kind.department} team of {kind.project} with its daily work.",
                "project": kind.project,
                "discipline": kind.discipline,
                "status": dice.choices(list(AgentStatus), weights=[8, 1, 2, 1])[0],
                "audit_status": dice.choices(list(AuditStatus), weights=[3, 2])[0],
                "tags": [kind.project.lower(), dice.choice(["internal", "client-facing"]), "beta"][
                    : dice.randint(1, 3)
                ],
                "userbase": dice.choice(["Whole company", "Team", "Clients"]),
                "department": kind.department,
                "contact_person": dice.choice(_PEOPLE),
            }
            owner = dice.choice([*people, None])
            born = now - timedelta(days=_DAYS + dice.randint(1, 200))
            known.append((await agents.create(values, owner=owner, by_person=False, now=born))["_id"])
    return known


async def _usage(
    services: Services,
    known: Sequence[Key],
    *,
    now: datetime,
    dice: random.Random,
    progress: Callable[[str, float], None],
) -> None:
    first = now.date() - timedelta(days=_DAYS - 1)
    batch: list[Event] = []
    for past in range(_DAYS):
        day = first + timedelta(days=past)
        for number, each in enumerate(known):
            batch += _day(each, day, own=number, now=now, dice=dice)
        if len(batch) >= _BATCH or past == _DAYS - 1:
            await services.commits.submit(services.counting, Batch(batch, now), weight=len(batch))
            batch = []
            progress("usage", 0.7 * (past + 1) / _DAYS)


def _day(agent: Key, day: date, *, own: int, now: datetime, dice: random.Random) -> Iterator[Event]:
    # An agent keeps its size and its favourite model; weekends are quiet.
    habits = random.Random(own)  # noqa: S311  # as above
    taste = [habits.random() + 0.05 for _ in _MODELS]
    busy = habits.choice([0, 1, 2, 3, 5]) * (0.2 if day.weekday() >= 5 else 1.0)  # noqa: PLR2004  # Saturday
    for number in range(int(busy * dice.uniform(0.4, 1.6))):
        model, provider, prompt_price, completion_price = dice.choices(_MODELS, weights=taste)[0]
        at = datetime(day.year, day.month, day.day, dice.randint(7, 19), dice.randint(0, 59), tzinfo=UTC)
        if at > now:
            continue
        messages = dice.randint(3, 60)
        prompt, completion = messages * dice.randint(300, 2500), messages * dice.randint(80, 500)
        cost = (prompt * prompt_price + completion * completion_price) / 1_000_000
        yield Event(
            source="demo",
            id=f"{agent}-{day}-{number}",
            agent=agent,
            at=at,
            model=model,
            provider=provider,
            prompt_tokens=prompt,
            completion_tokens=completion,
            cached_tokens=prompt // dice.randint(3, 8),
            reasoning_tokens=completion // 5,
            messages=messages,
            cost=cost if dice.random() > 0.03 else None,  # noqa: PLR2004  # some reporters know no price
            latency_ms=dice.randint(400, 9000),
            conversation=f"conversation-{dice.randint(1, 400)}",
            user=f"user-{dice.randint(1, 120)}",
        )
