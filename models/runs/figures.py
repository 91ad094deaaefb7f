"""What runs come to, kept as they are recorded: of versions, agents and the company, by day, and by minute for today.

Every commit adds to the company's figures. So that processes do not meet there, these are kept in parts, of which each
process adds to one of its own as far as there are enough of them; a reader adds the parts up.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, ClassVar, Final, NamedTuple
from zoneinfo import ZoneInfo

from pydantic import BaseModel

from models.runs import histograms
from models.store import database
from models.store.database import ASCENDING, IndexModel, Key, Row, Session, Stored, UpdateOne

PARTS: Final = 16
HOURS_KEPT: Final = timedelta(days=4)
"""How far back the dashboard's hours are added to; they are deleted a day later."""

LIFE: Final = 0
"""The day under which what all days come to is kept."""

_SPANS: Final = "spans"
_STATUS: Final[Mapping[str, str]] = {
    "COMPLETED": "completed_runs",
    "FAILED": "failed_runs",
    "TIMED_OUT": "timed_out_runs",
    "CANCELLED": "cancelled_runs",
}

Sums = dict[str, int]


class Metrics(BaseModel):
    """What some runs come to."""

    total_runs: int = 0
    finished_runs: int = 0
    completed_runs: int = 0
    failed_runs: int = 0
    timed_out_runs: int = 0
    cancelled_runs: int = 0
    timed_runs: int = 0
    runtime_ms: int = 0
    cost_nanodollars: int = 0
    runtimes: dict[str, int] = {}


NAMES: Final = tuple(name for name in Metrics.model_fields if name != "runtimes")
SHOWN: Final = ("total_runs", "timed_runs", "runtime_ms", "cost_nanodollars")
"""What is kept of an hour and of a minute."""


class Owner(NamedTuple):
    """Whose runs a figure is about: a version's, an agent's, or one part of the company's."""

    kind: str
    whose: str

    @classmethod
    def version(cls, key: Key) -> "Owner":
        """Name a version."""
        return cls("version", str(key))

    @classmethod
    def agent(cls, key: Key) -> "Owner":
        """Name an agent."""
        return cls("agent", str(key))

    @classmethod
    def company(cls, part: int) -> "Owner":
        """Name one part of the company's figures."""
        return cls("company", f"{part:02}")

    def key(self, day: int) -> str:
        """Give the key of its figures of one day (20260521)."""
        return f"{self.kind}:{self.whose}:{day:08}"


COMPANY: Final = tuple(Owner.company(part) for part in range(PARTS))


class RunFigures(Stored, Metrics):
    """The runs of one owner that began on one of the company's days, or of an agent's whole life."""

    id: str  # type: ignore[assignment]  # where Beanie expects an ObjectId
    first_at: datetime
    last_at: datetime
    agent: Key | None = None
    day: int | None = None

    class Settings:
        """Where it is stored. Of an agent's days the index has what counts active agents: no histogram is read."""

        name = "run_figures"
        indexes: ClassVar[list[IndexModel]] = [
            IndexModel(
                [("day", ASCENDING), ("agent", ASCENDING), ("first_at", ASCENDING), ("last_at", ASCENDING)],
                name=_SPANS,
                partialFilterExpression={"day": {"$gt": LIFE}},
            )
        ]


class RunHour(Stored):
    """One part of the company's runs that began in one hour (UTC), as a whole and by minute."""

    id: str  # type: ignore[assignment]  # hour and part
    hour: datetime
    minutes: dict[str, dict[str, int]]

    class Settings:
        """Where it is stored; gone when no dashboard looks back so far."""

        name = "run_hours"
        indexes: ClassVar[list[IndexModel]] = [
            IndexModel([("hour", ASCENDING)], name="hour", expireAfterSeconds=5 * 86_400)
        ]


# ---------------------------------------------------------------- counting


class Place(NamedTuple):
    """What a run counts for: its agent, its version, and the company's day on which it began."""

    agent: Key
    version: Key
    day: int


@dataclass(slots=True)
class Figure:
    """What some runs add to one figure, and the span in which they began."""

    sums: Sums
    first: datetime
    last: datetime

    def add(self, sums: Mapping[str, int], first: datetime, last: datetime) -> None:
        """Add what others add."""
        for name, value in sums.items():
            self.sums[name] = self.sums.get(name, 0) + value
        self.first, self.last = min(self.first, first), max(self.last, last)


@dataclass(slots=True)
class Tally:
    """What some runs add to every figure that is kept; `since`: from when on hours are kept too."""

    zone: ZoneInfo
    since: datetime
    days: dict[Place, Figure] = field(default_factory=dict)
    minutes: dict[datetime, Sums] = field(default_factory=dict)

    def add(self, row: Row, *, sign: int = 1) -> None:
        """Add a stored run, or take it away."""
        at: datetime = row["created_at"]
        place = Place(row["agent"], row["version"], number(at.astimezone(self.zone).date()))
        added = {name: sign * value for name, value in contribution(row).items()}
        self.add_figure(place, Figure(added, at, at))
        if at >= self.since:
            shown = self.minutes.setdefault(at.astimezone(UTC).replace(second=0, microsecond=0), {})
            for name in SHOWN:
                shown[name] = shown.get(name, 0) + added.get(name, 0)

    def add_figure(self, place: Place, figure: Figure) -> None:
        """Add what some runs have come to."""
        if (found := self.days.get(place)) is None:
            self.days[place] = figure
        else:
            found.add(figure.sums, figure.first, figure.last)

    def of_versions(self) -> Mapping[Key, Figure]:
        """Give what is added to each version."""
        found: dict[Key, Figure] = {}
        for place, figure in self.days.items():
            _add(found, place.version, figure)
        return found

    def figures(self, part: int) -> Mapping[tuple[Owner, int], Figure]:
        """Give what is added to each owner's days, and to agents' lives."""
        found: dict[tuple[Owner, int], Figure] = {}
        for place, figure in self.days.items():
            agent = Owner.agent(place.agent)
            for owner, day in (
                (Owner.version(place.version), place.day),
                (agent, place.day),
                (agent, LIFE),
                (COMPANY[part], place.day),
            ):
                _add(found, (owner, day), figure)
        return found


def _add(found: dict[Any, Figure], key: object, figure: Figure) -> None:
    if key in found:
        found[key].add(figure.sums, figure.first, figure.last)
    else:
        found[key] = Figure(dict(figure.sums), figure.first, figure.last)


def contribution(row: Row) -> Sums:
    """Give what one stored run adds to figures. What has not ended has no runtime yet."""
    sums: Sums = {"total_runs": 1, "cost_nanodollars": row["cost_nanodollars"] or 0}
    if (ended := _STATUS.get(row["status"])) is None:
        return sums
    sums |= {"finished_runs": 1, ended: 1}
    if row["duration_ms"] is not None:
        sums |= {"timed_runs": 1, "runtime_ms": row["duration_ms"]}
        sums[f"runtimes.{histograms.bucket(row['duration_ms'])}"] = 1
    return sums


def added_up(each: Iterable[Mapping[str, int]]) -> Sums:
    """Add up figures of the same names."""
    found: Sums = {}
    for sums in each:
        for name, value in sums.items():
            found[name] = found.get(name, 0) + value
    return found


# ---------------------------------------------------------------- reads


async def of_agents(keys: Sequence[Key]) -> Mapping[Key, Row]:
    """Read what all runs of each agent come to; zeros of one without any."""
    wanted = {Owner.agent(key).key(LIFE): key for key in keys}
    where = {"_id": {"$in": list(wanted)}}
    found = {wanted[row["_id"]]: row async for row in database.collection(RunFigures).find(where)}
    return {key: {**Metrics().model_dump(), "last_at": None, **found.get(key, {})} for key in keys}


async def timelines(
    owners: Sequence[Sequence[Owner]], *, first: date, last: date, spread: bool
) -> Mapping[Sequence[Owner], Sequence[Row]]:
    """Read every day from `first` to `last` of each owner, or of some added up; days without runs as zeros.

    `spread`: whether histograms of runtimes are wanted too.
    """
    parts = [owner for group in owners for owner in group]
    spans = [{"_id": {"$gte": owner.key(number(first)), "$lte": owner.key(number(last))}} for owner in parts]
    found: dict[str, Row] = {}
    async for row in database.collection(RunFigures).find({"$or": spans}, None if spread else dict.fromkeys(NAMES, 1)):
        found[row["_id"]] = row
    days = [first + timedelta(days=n) for n in range((last - first).days + 1)]

    def merged(group: Sequence[Owner], day: date) -> Row:
        keys = (owner.key(number(day)) for owner in group)
        return {"day": day, **_merged([found[key] for key in keys if key in found])}

    return {group: [merged(group, day) for day in days] for group in owners}


async def active_agents(after: datetime, until: datetime, zone: ZoneInfo) -> int:
    """Count the agents of which a run began after one moment and up to another, at least a day later.

    Exact, though days are read: of the first day only the end counts, of the last only the beginning.
    """
    first, last = (number(moment.astimezone(zone).date()) for moment in (after, until))
    pipeline: list[Row] = [
        {"$match": {"day": {"$gte": first, "$lte": last}, "last_at": {"$gt": after}, "first_at": {"$lte": until}}},
        {"$group": {"_id": "$agent"}},
        {"$count": "count"},
    ]
    found = await database.aggregate(RunFigures, pipeline)
    return found[0]["count"] if found else 0


def _merged(rows: Sequence[Row]) -> Row:
    sums = added_up({name: row.get(name, 0) for name in NAMES} for row in rows)
    return {**Metrics().model_dump(), **sums, "runtimes": added_up(row.get("runtimes", {}) for row in rows)}


# ---------------------------------------------------------------- writes


async def keep(tally: Tally, *, part: int, session: Session) -> None:
    """Add to the figures of days, agents and the company; those of versions are kept with them."""
    # In one order for everybody: what another process changes too shows at the first document.
    days = [
        UpdateOne({"_id": owner.key(day)}, change(owner, day, figure=figure), upsert=True)
        for (owner, day), figure in sorted(tally.figures(part).items(), key=lambda each: each[0])
    ]
    if days:
        await database.collection(RunFigures).bulk_write(days, ordered=False, session=session)
    if passed := hours(tally.minutes):
        writes = [hour_write(hour, sums, part=part) for hour, sums in sorted(passed.items())]
        await database.collection(RunHour).bulk_write(writes, ordered=False, session=session)


def change(owner: Owner, day: int, *, figure: Figure) -> Row:
    """Write what adds to the figures of one owner's day."""
    said: dict[str, Any] = {"$min": {"first_at": figure.first}, "$max": {"last_at": figure.last}}
    if added := {name: value for name, value in figure.sums.items() if value}:
        said["$inc"] = added
    if owner.kind == "agent" and day != LIFE:
        said["$setOnInsert"] = {"agent": Key(owner.whose), "day": day}
    return said


def hour_write(hour: datetime, sums: Sums, *, part: int) -> UpdateOne:
    """Write what adds to one part of an hour."""
    return UpdateOne({"_id": f"{hour:%Y%m%d%H}:{part:02}"}, {"$inc": sums, "$setOnInsert": {"hour": hour}}, upsert=True)


# ---------------------------------------------------------------- rules


def number(day: date) -> int:
    """Write a day as keys do: 20260521."""
    return (day.year * 100 + day.month) * 100 + day.day


def hours(minutes: Mapping[datetime, Sums]) -> Mapping[datetime, Sums]:
    """Give what minutes add to their hours, as a whole and by minute; what adds nothing is left out."""
    found: dict[datetime, Sums] = {}
    for minute, sums in minutes.items():
        for name, value in sums.items():
            if value:
                hour = found.setdefault(minute.replace(minute=0), {})
                hour[name] = hour.get(name, 0) + value
                hour[f"minutes.{minute:%M}.{name}"] = value
    return found


def flat(row: Row) -> Sums:
    """Give a document's figures as `contribution` names them."""
    spread = {f"runtimes.{name}": count for name, count in row.get("runtimes", {}).items()}
    return {name: row.get(name, 0) for name in NAMES} | spread


def flat_hour(row: Row) -> Sums:
    """Give an hour's figures as `hours` names them."""
    minutes = {
        f"minutes.{minute}.{name}": value for minute, sums in row["minutes"].items() for name, value in sums.items()
    }
    return {name: row.get(name, 0) for name in SHOWN} | minutes
