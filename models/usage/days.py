"""Packed figures: a document per agent, model and month holds days, one per day hours; timelines are read here."""

from calendar import monthrange
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, ClassVar, Final, Generic, NamedTuple, TypeVar
from zoneinfo import ZoneInfo

from models.errors import BadInput
from models.store import database
from models.store.database import ASCENDING, IndexModel, Key, Row, Session, Stored

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

SHOWN: Final = ("messages", "requests", "prompt_tokens", "completion_tokens", "unsplit_tokens", "cost_nanodollars")
"""What is shown of a day and of an hour."""

_NONE: Final[Mapping[str, int]] = {}
_CELLS: Final = {f"{n:02d}": n for n in range(32)}

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
    """One agent's use of one model in one month (`period` 202605); a cell is a day (`05`) of the company.

    `running` is what it has counted since the last reset of usage.
    """

    running: dict[str, Any] | None = None

    class Settings:
        """Where it is stored, and an index of what counts since a reset, whose keys never change."""

        name = "usage_months"
        indexes: ClassVar[list[IndexModel]] = [
            IndexModel([("period", ASCENDING), ("agent", ASCENDING), ("model", ASCENDING)], unique=True, name="cell"),
            IndexModel(
                [("agent", ASCENDING), ("model", ASCENDING), ("period", ASCENDING)],
                partialFilterExpression={"running": {"$exists": True}},
                name="running",
            ),
        ]


class UsageHours(_Packed):
    """One agent's use of one model on one day of UTC (`period` 20260521); a cell is an hour (`09`)."""

    class Settings:
        """Where it is stored."""

        name = "usage_hours"
        indexes: ClassVar[list[IndexModel]] = [
            IndexModel([("period", ASCENDING), ("agent", ASCENDING), ("model", ASCENDING)], unique=True, name="cell")
        ]


class Cell(NamedTuple):
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
        self.first_used_at = min(filter(None, (self.first_used_at, first)), default=None)
        self.last_used_at = max(filter(None, (self.last_used_at, last)), default=None)


At = TypeVar("At", date, datetime)


@dataclass(frozen=True, slots=True)
class Lines(Generic[At]):
    """Some figures over consecutive days or hours: the n-th value of each column is that of the n-th of them."""

    at: Sequence[At]
    columns: Mapping[str, list[int]]

    @classmethod
    def empty(cls, at: Sequence[At], figures: Sequence[str] = SHOWN) -> "Lines[At]":
        """Begin with zeros."""
        return cls(at, {name: [0] * len(at) for name in figures})

    def add(self, row: Row, *, offset: int) -> None:
        """Add a packed document; its cell n belongs at place `offset` + n, or nowhere."""
        size = len(self.at)
        for name, column in self.columns.items():
            for cell, value in row.get(name, _NONE).items():
                place = offset + _CELLS[cell]
                if 0 <= place < size:
                    column[place] += value


@dataclass(frozen=True, slots=True)
class Span:
    """Usage of some agents over some days: as a whole, by day, by agent, by model."""

    totals: Totals
    by_day: Lines[date]
    by_agent: Mapping[Key, Totals]
    by_model: Mapping[str, Totals]


# ---------------------------------------------------------------- reads


async def timelines(
    agents: Sequence[Key], *, first: date, last: date, figures: Sequence[str] = SHOWN
) -> Mapping[Key, Lines[date]]:
    """Read each agent's days from `first` to `last`: every agent and every day is there, without use as zeros."""
    days = _days(first, last)
    found = {agent: Lines.empty(days, figures) for agent in agents}
    for row in await _months(agents, first, last, figures=figures):
        year, month = divmod(row["period"], 100)
        # What is asked for may begin and end within a month.
        found[row["agent"]].add(row, offset=(date(year, month, 1) - first).days - 1)
    return found


async def hourly(agents: Sequence[Key], *, since: datetime, hours: int) -> Mapping[Key, Lines[datetime]]:
    """Read each agent's hours from the one that holds `since` on; without use as zeros."""
    start, moments = _hours_from(since, hours)
    found = {agent: Lines.empty(moments) for agent in agents}
    for row in await _hours(agents, start, moments[-1], figures=SHOWN):
        found[row["agent"]].add(row, offset=_hours_between(start, row["period"]))
    return found


async def fleet_hours(agents: Sequence[Key], *, since: datetime, hours: int) -> Lines[datetime]:
    """Read the hours of some agents together."""
    start, moments = _hours_from(since, hours)
    together = Lines.empty(moments)
    for row in await _hours(agents, start, moments[-1], figures=SHOWN):
        together.add(row, offset=_hours_between(start, row["period"]))
    return together


async def span(agents: Sequence[Key], *, first: date, last: date, figures: Sequence[str] = FIGURES) -> Span:
    """Read some agents' usage over some days; its cost grows with agents and days, never with events.

    `figures`: those that are wanted. By agent and by model they are added up only where all are.
    """
    totals = Totals()
    is_whole = len(figures) == len(FIGURES)
    by_day = Lines.empty(_days(first, last), SHOWN if is_whole else figures)
    by_agent: dict[Key, Totals] = {}
    by_model: dict[str, Totals] = {}
    for row in await _months(agents, first, last, figures=None if is_whole else figures):
        year, month = divmod(row["period"], 100)
        by_day.add(row, offset=(date(year, month, 1) - first).days - 1)
        if not is_whole:
            continue
        sums = _sums_of_month(row, first, last)
        used = _used(row, first, last)
        agent, model = by_agent.setdefault(row["agent"], Totals()), by_model.setdefault(row["model"], Totals())
        for each in (totals, agent, model):
            each.add(sums)
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


# ---------------------------------------------------------------- rules


def _days(first: date, last: date) -> list[date]:
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]


def months(first: date, last: date) -> list[int]:
    """Give the periods of the months that hold some days."""
    count = (last.year - first.year) * 12 + last.month - first.month + 1
    return [(first.year + (first.month - 1 + n) // 12) * 100 + (first.month - 1 + n) % 12 + 1 for n in range(count)]


def _hours_from(since: datetime, hours: int) -> tuple[datetime, list[datetime]]:
    start = since.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    return start, [start + timedelta(hours=n) for n in range(hours)]


def _midnight(period: int) -> datetime:
    return datetime(period // 10_000, period // 100 % 100, period % 100, tzinfo=UTC)


def _hours_between(start: datetime, period: int) -> int:
    return round((_midnight(period) - start).total_seconds() / 3600)


async def _months(
    agents: Sequence[Key],
    first: date,
    last: date,
    *,
    figures: Sequence[str] | None = None,
    session: Session | None = None,
) -> Sequence[Row]:
    where = {"period": {"$in": months(first, last)}, "agent": {"$in": list(agents)}}
    return await database.collection(UsageMonth).find(where, _projection(figures), session=session).to_list(None)


async def _hours(
    agents: Sequence[Key],
    start: datetime,
    end: datetime,
    *,
    figures: Sequence[str] | None = None,
    session: Session | None = None,
) -> Sequence[Row]:
    periods = [day.year * 10_000 + day.month * 100 + day.day for day in _days(start.date(), end.date())]
    where = {"period": {"$in": periods}, "agent": {"$in": list(agents)}}
    return await database.collection(UsageHours).find(where, _projection(figures), session=session).to_list(None)


def _projection(figures: Sequence[str] | None) -> Mapping[str, int]:
    return (
        {"_id": 0, "running": 0}
        if figures is None
        else {"_id": 0, "agent": 1, "period": 1, **dict.fromkeys(figures, 1)}
    )


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


def _sums_of_month(row: Row, first: date, last: date) -> list[tuple[str, int]]:
    year, month = divmod(row["period"], 100)
    if first <= date(year, month, 1) and date(year, month, monthrange(year, month)[1]) <= last:
        return [(name, sum(row[name].values())) for name in FIGURES if name in row]
    return [(name, value) for _, name, value in _cells_of_month(row, first, last)]


def _cells_of_hours(row: Row) -> Iterator[tuple[datetime, str, int]]:
    midnight = _midnight(row["period"])
    for name in FIGURES:
        for cell, value in row.get(name, {}).items():
            yield midnight + timedelta(hours=int(cell)), name, value


def _used(row: Row, first: date, last: date) -> tuple[datetime | None, datetime | None]:
    year, month = divmod(row["period"], 100)

    def inside(cells: Mapping[str, datetime]) -> list[datetime]:
        return [at for cell, at in cells.items() if first <= date(year, month, int(cell)) <= last]

    starts, ends = inside(row.get("first_used_at", {})), inside(row.get("last_used_at", {}))
    return min(starts, default=None), max(ends, default=None)
