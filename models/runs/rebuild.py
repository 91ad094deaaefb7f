"""What is kept of runs, counted anew from the runs: what differs is said, and repaired when asked."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from models.runs import figures, retention
from models.runs.figures import COMPANY, Figure, Owner, RunFigures, RunHour, Sums, Tally
from models.runs.reports import AgentRun
from models.runs.versions import AgentVersion
from models.store import database
from models.store.database import Key, Session, Stored, UpdateOne

_READ: Final = 10_000
# The oldest hours go by themselves while they are read; nobody looks at them any more.
_HOURS_CHECKED: Final = figures.HOURS_KEPT - timedelta(days=1)
_NONE: Final[Sums] = {}


@dataclass(frozen=True, slots=True)
class Difference:
    """One kept figure that is not what the runs say."""

    where: str
    figure: str
    kept: object
    right: object


@dataclass(slots=True)
class Report:
    """What a rebuild has found, and what would repair it."""

    runs: int = 0
    differences: list[Difference] = field(default_factory=list)
    repaired: bool = False
    writes: dict[type[Stored], list[UpdateOne]] = field(default_factory=dict)
    emptied: list[str] = field(default_factory=list)

    def compare(self, where: str, kept: Mapping[str, int], right: Mapping[str, int]) -> Sums:
        """Note which figures differ, and give what is missing of each."""
        missing: Sums = {}
        for name in sorted(kept.keys() | right.keys()):
            before, after = kept.get(name, 0), right.get(name, 0)
            if before != after:
                self.differences.append(Difference(where, name, before, after))
                missing[name] = after - before
        return missing

    def moment(self, document: type[Stored], where: str, key: Key | str, **moments: tuple[object, object]) -> None:
        """Note which moments differ, kept and right; one that has changed since is left as it is then."""
        for name, (kept, right) in moments.items():
            if kept != right:
                self.differences.append(Difference(where, name, kept, right))
                self.write(document, UpdateOne({"_id": key, name: kept}, {"$set": {name: right}}))

    def write(self, document: type[Stored], write: UpdateOne) -> None:
        """Note what repairs something."""
        self.writes.setdefault(document, []).append(write)


async def rebuild(zone: ZoneInfo, *, repair: bool, progress: Callable[[int], None] = lambda _: None) -> Report:
    """Count every run again, as of one moment, by the days of `zone`; recording may go on meanwhile.

    What removed runs came to is kept beside the figures, and counts. What differs is repaired by adding the difference,
    so that runs recorded since are not lost.
    """
    report = Report()
    since = (datetime.now(UTC) - _HOURS_CHECKED).replace(minute=0, second=0, microsecond=0)
    tally = Tally(zone, since=since)
    async with database.snapshot(AgentRun) as session:
        await retention.add_removed(tally, session=session)
        async for row in database.collection(AgentRun).find({}, session=session).batch_size(_READ):
            tally.add(row)
            report.runs += 1
            if report.runs % _READ == 0:
                progress(report.runs)
        await _compare_versions(report, tally, session=session)
        await _compare_days(report, tally, session=session)
        await _compare_hours(report, tally, session=session)
    if repair and report.differences:
        await database.transaction(AgentVersion, lambda session: _repair(report, session))
        report.repaired = True
    return report


# ---------------------------------------------------------------- comparing


async def _compare_versions(report: Report, tally: Tally, *, session: Session) -> None:
    right = tally.of_versions()
    async for row in database.collection(AgentVersion).find({}, session=session):
        key, figure = row["_id"], right.get(row["_id"])
        where = f"version {row['version']} of {row['agent_name']}"
        missing = report.compare(where, figures.flat(row["metrics"]), figure.sums if figure else _NONE)
        if missing:
            added = {f"metrics.{name}": value for name, value in missing.items()}
            report.write(AgentVersion, UpdateOne({"_id": key}, {"$inc": added}))
        seen = (row["last_seen_at"], figure.last if figure else None)
        report.moment(AgentVersion, where, key, last_seen_at=seen)


async def _compare_days(report: Report, tally: Tally, *, session: Session) -> None:
    right = {owner.key(day): (owner, day, figure) for (owner, day), figure in tally.figures(0).items()}
    kept: dict[str, Sums] = {}
    async for row in database.collection(RunFigures).find({}, session=session):
        key = _whole(row["_id"])
        sums = figures.flat(row)
        kept[key] = figures.added_up([kept[key], sums]) if key in kept else sums
        if key in right and key == row["_id"] and right[key][0] not in COMPANY:
            figure = right[key][2]
            report.moment(
                RunFigures, key, key, first_at=(row["first_at"], figure.first), last_at=(row["last_at"], figure.last)
            )
    for key in sorted(kept.keys() | right.keys()):
        missing = report.compare(key, kept.get(key, _NONE), right[key][2].sums if key in right else _NONE)
        if not missing:
            continue
        if key in right:
            owner, day, figure = right[key]
            change = figures.change(owner, day, figure=Figure(missing, figure.first, figure.last))
        else:
            change = {"$inc": missing}
            report.emptied.append(key)
        report.write(RunFigures, UpdateOne({"_id": key}, change, upsert=True))


async def _compare_hours(report: Report, tally: Tally, *, session: Session) -> None:
    right = figures.hours(tally.minutes)
    kept: dict[datetime, Sums] = {}
    async for row in database.collection(RunHour).find({"hour": {"$gte": tally.since}}, session=session):
        kept[row["hour"]] = figures.added_up([kept.get(row["hour"], _NONE), figures.flat_hour(row)])
    for hour in sorted(kept.keys() | right.keys()):
        if missing := report.compare(f"hour {hour:%Y-%m-%d %H}", kept.get(hour, _NONE), right.get(hour, _NONE)):
            report.write(RunHour, figures.hour_write(hour, missing, part=0))


def _whole(key: str) -> str:
    """Name the parts of the company's day by the first of them."""
    kind, whose, day = key.split(":")
    return COMPANY[0].key(int(day)) if Owner(kind, whose) in COMPANY else key


# ---------------------------------------------------------------- writes


async def _repair(report: Report, session: Session) -> None:
    for document, writes in report.writes.items():
        await database.collection(document).bulk_write(writes, ordered=True, session=session)
    if report.emptied:
        # An agent without runs on a day was not active on it.
        await database.collection(RunFigures).delete_many(
            {"_id": {"$in": report.emptied}, "total_runs": 0}, session=session
        )
