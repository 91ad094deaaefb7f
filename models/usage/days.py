"""Packed figures: a document per agent, model and month holds days, one per day hours; timelines are read here."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, ClassVar, Final
from zoneinfo import ZoneInfo

from models.errors import BadInput
from models.store import database
from models.store.database import ASCENDING, IndexModel, Key, Row, Session, Stored, UpdateOne

FIGURES: Final = (
    "messages",
    "requests",
    "conversations",
    "users",
    "prompt_tokens",
    "completion_tokens",
    "unsplit_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "cost_nanodollars",
    "unpriced_events",
    "latency_ms",
    "timed_events",
)
"""What is summed. `total_tokens` is prompt, completion and unsplit tokens together and is not kept apart."""

MOST_DAYS: Final = 366
MOST_HOURS: Final = 744
EARLIEST: Final = date(2000, 1, 1)
LATEST: Final = date(2999, 12, 31)


class _Packed(Stored):
    agent: Key
    period: int
    model: str

    # Each figure is one more sub-document, {cell: sum}: `$inc` of a path creates what is missing, a cell without use
    # takes no room, and a reader asks for the figures that it shows and no others.


class UsageMonth(_Packed):
    """One agent's use of one model in one month (`period` 202605); a cell is a day (`05`) of the company."""

    class Settings:
        """Where it is stored."""

        name = "usage_months"
        indexes: ClassVar[list[IndexModel]] = [
            IndexModel([("period", ASCENDING), ("agent", ASCENDING), ("model", ASCENDING)], unique=True, name="cell")
        ]


class UsageHours(_Packed):
    """One agent's use of one model on one day of UTC (`period` 20260521); a cell is an hour (`09`)."""

    class Settings:
        """Where it is stored."""

        name = "usage_hours"
        indexes: ClassVar[list[IndexModel]] = [
            IndexModel([("period", ASCENDING), ("agent", ASCENDING), ("model", ASCENDING)], unique=True, name="cell")
        ]


@dataclass(frozen=True, slots=True)
class Cell:
    """Where a figure is kept: which document, and which of its cells."""

    agent: Key
    model: str
    period: int
    cell: str

    def __str__(self) -> str:
        return f"{self.agent} {self.model!r} {self.period}/{self.cell}"

    @classmethod
    def of_day(cls, agent: Key, model: str, day: date) -> "Cell":
        """Give the cell of a day."""
        return cls(agent, model, day.year * 100 + day.month, f"{day.day:02d}")

    @classmethod
    def of_hour(cls, agent: Key, model: str, at: datetime) -> "Cell":
        """Give the cell of the hour (UTC) that holds a moment."""
        at = at.astimezone(UTC)
        return cls(agent, model, (at.year * 100 + at.month) * 100 + at.day, f"{at.hour:02d}")


Sums = dict[str, int]


@dataclass(slots=True)
class Totals:
    """Figures summed over whatever was asked for."""

    sums: Sums = field(default_factory=lambda: dict.fromkeys(FIGURES, 0))
    first_used_at: datetime | None = None
    last_used_at: datetime | None = None

    def add(self, figures: Iterable[tuple[str, int]]) -> None:
        """Add some figures."""
        for name, value in figures:
            self.sums[name] += value

    @property
    def total_tokens(self) -> int:
        """All tokens, whether or not they were reported as prompt and completion."""
        return self.sums["prompt_tokens"] + self.sums["completion_tokens"] + self.sums["unsplit_tokens"]

    def seen(self, first: datetime | None, last: datetime | None) -> None:
        """Widen the span of use."""
        if first is not None and (self.first_used_at is None or first < self.first_used_at):
            self.first_used_at = first
        if last is not None and (self.last_used_at is None or last > self.last_used_at):
            self.last_used_at = last


@dataclass(frozen=True, slots=True)
class Span:
    """Usage of some agents over some days: as a whole, by day, by agent, by model."""

    totals: Totals
    by_day: Mapping[date, Sums]
    by_agent: Mapping[Key, Totals]
    by_model: Mapping[str, Totals]


# ---------------------------------------------------------------- reads


async def timelines(
    agents: Sequence[Key], *, first: date, last: date, session: Session | None = None
) -> Mapping[Key, Mapping[date, Sums]]:
    """Read each agent's days from `first` to `last`: every agent and every day is there, without use as zeros."""
    days = _days(first, last)
    found: dict[Key, dict[date, Sums]] = {agent: {day: dict.fromkeys(FIGURES, 0) for day in days} for agent in agents}
    for row in await _months(agents, first, last, session=session):
        lines = found[row["agent"]]
        for day, name, value in _cells_of_month(row, first, last):
            lines[day][name] += value
    return found


async def hourly(agents: Sequence[Key], *, since: datetime, hours: int) -> Mapping[Key, Mapping[datetime, Sums]]:
    """Read each agent's hours from the one that holds `since` on; without use as zeros."""
    start = since.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    found: dict[Key, dict[datetime, Sums]] = {
        agent: {start + timedelta(hours=n): dict.fromkeys(FIGURES, 0) for n in range(hours)} for agent in agents
    }
    for row in await _hours(agents, start, start + timedelta(hours=hours - 1)):
        lines = found[row["agent"]]
        for hour, name, value in _cells_of_hours(row):
            if hour in lines:
                lines[hour][name] += value
    return found


async def fleet_hours(agents: Sequence[Key], *, since: datetime, hours: int) -> Mapping[datetime, Sums]:
    """Read the hours of some agents together."""
    each = await hourly(agents, since=since, hours=hours)
    start = since.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    together = {start + timedelta(hours=n): dict.fromkeys(FIGURES, 0) for n in range(hours)}
    for lines in each.values():
        for hour, sums in lines.items():
            for name, value in sums.items():
                together[hour][name] += value
    return together


async def span(agents: Sequence[Key], *, first: date, last: date) -> Span:
    """Read some agents' usage over some days; its cost grows with agents and days, never with events."""
    totals = Totals()
    by_day: dict[date, Sums] = {day: dict.fromkeys(FIGURES, 0) for day in _days(first, last)}
    by_agent: dict[Key, Totals] = {}
    by_model: dict[str, Totals] = {}
    for row in await _months(agents, first, last):
        agent = by_agent.setdefault(row["agent"], Totals())
        model = by_model.setdefault(row["model"], Totals())
        for day, name, value in _cells_of_month(row, first, last):
            by_day[day][name] += value
            totals.sums[name] += value
            agent.sums[name] += value
            model.sums[name] += value
        used = _used(row, first, last)
        for each in (totals, agent, model):
            each.seen(*used)
    return Span(totals, by_day, by_agent, by_model)


def window(asked_days: int | None, first: date | None, last: date | None, *, today: date) -> tuple[date, date]:
    """Settle which days are meant: `first` to `last` where given, else `asked_days` up to `last` or today.

    Raises `BadInput` for days that are none, or too many.
    """
    count = 30 if asked_days is None else asked_days
    if not 1 <= count <= MOST_DAYS:
        raise BadInput.at("days", f"`days` lies between 1 and {MOST_DAYS}.")
    for name, day in (("from", first), ("to", last)):
        if day is not None and not EARLIEST <= day <= LATEST:
            raise BadInput.at(name, f"`{name}` lies between {EARLIEST} and {LATEST}.")
    end = last or today
    start = first or end - timedelta(days=count - 1)
    if start > end:
        raise BadInput.at("from", "`from` lies after `to`." if last else "`from` lies after today.")
    if (end - start).days >= MOST_DAYS:
        raise BadInput.at("from", f"At most {MOST_DAYS} days at once.")
    return start, end


def hours_back(hours: int | None, *, now: datetime) -> tuple[datetime, int]:
    """Settle which hours are meant: the hour that runs now is the last. Raises `BadInput` for too many."""
    count = 24 if hours is None else hours
    if not 1 <= count <= MOST_HOURS:
        raise BadInput.at("hours", f"`hours` lies between 1 and {MOST_HOURS}.")
    return now - timedelta(hours=count - 1), count


def today(now: datetime, zone: ZoneInfo) -> date:
    """Give the company's day."""
    return now.astimezone(zone).date()


# ---------------------------------------------------------------- writes


async def add(
    document: type[UsageMonth | UsageHours],
    sums: Mapping[Cell, Mapping[str, int]],
    *,
    used: Mapping[Cell, tuple[datetime, datetime]] | None = None,
    session: Session,
) -> None:
    """Add figures to their cells, creating what is missing; `used`: first and last use within each cell."""
    documents: dict[tuple[int, Key, str], dict[str, dict[str, Any]]] = {}
    for cell, figures in sums.items():
        change = documents.setdefault((cell.period, cell.agent, cell.model), {"$inc": {}, "$min": {}, "$max": {}})
        for name, value in figures.items():
            if value:
                change["$inc"][f"{name}.{cell.cell}"] = value
        if used and cell in used:
            change["$min"][f"first_used_at.{cell.cell}"], change["$max"][f"last_used_at.{cell.cell}"] = used[cell]
    # In one order for everybody: two transactions that meet do so at the first document, before work is done.
    writes = [
        UpdateOne(
            {"period": period, "agent": agent, "model": model},
            {operator: fields for operator, fields in change.items() if fields},
            upsert=True,
        )
        for (period, agent, model), change in sorted(documents.items())
        if any(change.values())
    ]
    if writes:
        await database.collection(document).bulk_write(writes, ordered=False, session=session)


# ---------------------------------------------------------------- rules


def _days(first: date, last: date) -> list[date]:
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]


def months(first: date, last: date) -> list[int]:
    """Give the periods of the months that hold some days."""
    count = (last.year - first.year) * 12 + last.month - first.month + 1
    return [(first.year + (first.month - 1 + n) // 12) * 100 + (first.month - 1 + n) % 12 + 1 for n in range(count)]


async def _months(agents: Sequence[Key], first: date, last: date, *, session: Session | None = None) -> Sequence[Row]:
    where = {"period": {"$in": months(first, last)}, "agent": {"$in": list(agents)}}
    rows: Sequence[Row] = await database.collection(UsageMonth).find(where, {"_id": 0}, session=session).to_list(None)
    return rows


async def _hours(
    agents: Sequence[Key], start: datetime, end: datetime, *, session: Session | None = None
) -> Sequence[Row]:
    periods = [day.year * 10_000 + day.month * 100 + day.day for day in _days(start.date(), end.date())]
    where = {"period": {"$in": periods}, "agent": {"$in": list(agents)}}
    rows: Sequence[Row] = await database.collection(UsageHours).find(where, {"_id": 0}, session=session).to_list(None)
    return rows


async def day_sums(
    agents: Sequence[Key], *, first: date, last: date, session: Session
) -> Mapping[tuple[Key, date], Sums]:
    """Read days with use as a transaction sees them; for the windows of alert rules."""
    found: dict[tuple[Key, date], Sums] = {}
    for row in await _months(agents, first, last, session=session):
        for day, name, value in _cells_of_month(row, first, last):
            sums = found.setdefault((row["agent"], day), {})
            sums[name] = sums.get(name, 0) + value
    return found


async def hour_sums(
    agents: Sequence[Key], *, first: datetime, last: datetime, session: Session
) -> Mapping[tuple[Key, datetime], Sums]:
    """Read hours with use as a transaction sees them; for the windows of alert rules."""
    found: dict[tuple[Key, datetime], Sums] = {}
    for row in await _hours(agents, first, last, session=session):
        for hour, name, value in _cells_of_hours(row):
            sums = found.setdefault((row["agent"], hour), {})
            sums[name] = sums.get(name, 0) + value
    return found


def _cells_of_month(row: Row, first: date, last: date) -> Iterator[tuple[date, str, int]]:
    year, month = divmod(row["period"], 100)
    start = first.day if (first.year, first.month) == (year, month) else 1
    end = last.day if (last.year, last.month) == (year, month) else 31
    for name in FIGURES:
        for cell, value in row.get(name, {}).items():
            day = int(cell)
            if start <= day <= end:
                yield date(year, month, day), name, value


def _cells_of_hours(row: Row) -> Iterator[tuple[datetime, str, int]]:
    period = row["period"]
    midnight = datetime(period // 10_000, period // 100 % 100, period % 100, tzinfo=UTC)
    for name in FIGURES:
        for cell, value in row.get(name, {}).items():
            yield midnight + timedelta(hours=int(cell)), name, value


def _used(row: Row, first: date, last: date) -> tuple[datetime | None, datetime | None]:
    year, month = divmod(row["period"], 100)

    def inside(cells: Mapping[str, datetime]) -> list[datetime]:
        return [at for cell, at in cells.items() if first <= date(year, month, int(cell)) <= last]

    starts, ends = inside(row.get("first_used_at", {})), inside(row.get("last_used_at", {}))
    return min(starts, default=None), max(ends, default=None)
