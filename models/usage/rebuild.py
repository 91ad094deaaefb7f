"""Every figure again from events and snapshots: says what differs from what is kept, and repairs it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar
from zoneinfo import ZoneInfo

from models.agents import Agent
from models.errors import Conflict
from models.store import database
from models.store.database import Key, Session, UpdateOne
from models.usage import resets, snapshots, tallying
from models.usage.days import FIGURES, Cell, Sums, UsageHours, UsageMonth
from models.usage.events import UNNAMED_MODEL, UsageEvent
from models.usage.running import Place, Run
from models.usage.seen import Seen
from models.usage.snapshots import UsageSnapshot
from models.usage.tallying import Tally

P = TypeVar("P", Key, Cell, Place)
Found = Mapping[P, Mapping[str, tuple[int, int]]]

_BATCH: Final = 2000


@dataclass(frozen=True, slots=True)
class Difference:
    """One figure that is kept otherwise than events and snapshots say."""

    where: str
    figure: str
    kept: int
    right: int


@dataclass(slots=True)
class Report:
    """What a rebuild has read and found."""

    events: int = 0
    differences: list[Difference] = field(default_factory=list)
    repaired: bool = False


@dataclass(slots=True)
class _Kept:
    totals: dict[Key, Sums] = field(default_factory=dict)
    days: dict[Cell, Sums] = field(default_factory=dict)
    hours: dict[Cell, Sums] = field(default_factory=dict)
    running: dict[Place, Run] = field(default_factory=dict)
    seen: dict[str, int] = field(default_factory=dict)


async def rebuild(zone: ZoneInfo, *, repair: bool, progress: Callable[[int], None] = lambda _: None) -> Report:
    """Count every event again, by the days of `zone`, and compare; with `repair`, bring what is kept into line.

    All is read at one moment of the database, so that collecting may go on meanwhile, and a repair adds the difference,
    so that what is collected meanwhile stays counted. `progress` is told how many events were read.
    """
    report = Report()
    async with database.snapshot(UsageEvent) as session:
        tally = Tally(await resets.of_agents(None, session=session))
        reset = await resets.newest(session=session)
        async for row in database.collection(UsageEvent).find({}, session=session).batch_size(_BATCH):
            tally.count([row], zone)
            report.events += 1
            if report.events % _BATCH == 0:
                progress(report.events)
        async for row in database.collection(UsageSnapshot).find({}, session=session):
            snapshots.count(tally, row, zone)
        kept = await _kept(session)
    progress(report.events)
    _count_distinct(tally)
    first_days = {claim.key: day.toordinal() for claim, day in tally.claims.items()}
    totals = _differences(kept.totals, tally.totals)
    by_day = _differences(kept.days, tally.days)
    by_hour = _differences(kept.hours, tally.hours)
    counted = resets.gathered(tally.running)
    running = _differences(_sums(kept.running), _sums(counted))
    moved = {
        key: (kept.seen.get(key), first_days.get(key))
        for key in kept.seen.keys() | first_days.keys()
        if kept.seen.get(key) != first_days.get(key)
    }
    report.differences = [
        *_described("agent", totals),
        *_described("day", by_day),
        *_described("hour", by_hour),
        *_described("since the last reset", running),
        *(
            Difference(f"first day of {key!r}", "day", kept=before or 0, right=right or 0)
            for key, (before, right) in moved.items()
        ),
    ]
    if repair and report.differences:

        async def body(session: Session) -> None:
            if await resets.newest(session=session) != reset:
                raise Conflict("Usage was reset meanwhile. Run it again.")
            await tallying.add_totals(_missing(totals), tally.spans, session=session)
            await tallying.add(UsageMonth, _missing(by_day), used=tally.used, session=session)
            await tallying.add(UsageHours, _missing(by_hour), session=session)
            spans = kept.running | counted
            runs = {
                place: Run(spans[place].first, spans[place].last, sums) for place, sums in _missing(running).items()
            }
            await tallying.add(UsageMonth, {}, running=runs, session=session)
            await _move(moved, session=session)

        await database.transaction(UsageEvent, body)
        report.repaired = True
    return report


async def _kept(session: Session) -> _Kept:
    kept = _Kept()
    async for row in database.collection(Agent).find({}, {"usage": 1}, session=session):
        kept.totals[row["_id"]] = {name: row["usage"].get(name, 0) for name in FIGURES}
    for document, cells in ((UsageMonth, kept.days), (UsageHours, kept.hours)):
        async for row in database.collection(document).find({}, session=session):
            for name in FIGURES:
                for cell, value in row.get(name, {}).items():
                    cells.setdefault(Cell(row["agent"], row["model"], row["period"], cell), {})[name] = value
    kept.running = await resets.running(session=session)
    async for row in database.collection(Seen).find({}, session=session):
        kept.seen[row["_id"]] = row["day"]
    return kept


def _count_distinct(tally: Tally) -> None:
    for claim, day in tally.claims.items():
        for sums in (
            tally.totals.setdefault(claim.agent, {}),
            tally.days.setdefault(Cell.of_day(claim.agent, UNNAMED_MODEL, day), {}),
        ):
            sums[claim.kind] = sums.get(claim.kind, 0) + 1


def _differences(kept: Mapping[P, Sums], right: Mapping[P, Sums]) -> Found[P]:
    found: dict[P, dict[str, tuple[int, int]]] = {}
    for place in kept.keys() | right.keys():
        before, after = kept.get(place, {}), right.get(place, {})
        for name in FIGURES:
            if before.get(name, 0) != after.get(name, 0):
                found.setdefault(place, {})[name] = (before.get(name, 0), after.get(name, 0))
    return found


def _sums(runs: Mapping[Place, Run]) -> Mapping[Place, Sums]:
    return {place: run.sums for place, run in runs.items()}


def _missing(found: Found[P]) -> dict[P, Sums]:
    return {place: {name: after - before for name, (before, after) in each.items()} for place, each in found.items()}


def _described(kind: str, found: Found[P]) -> Iterator[Difference]:
    for place, figures in found.items():
        for name, (before, after) in figures.items():
            yield Difference(f"{kind} {place}", name, kept=before, right=after)


async def _move(moved: Mapping[str, tuple[int | None, int | None]], *, session: Session) -> None:
    writes = [
        UpdateOne({"_id": key}, {"$set": {"day": right}}, upsert=True)
        for key, (_, right) in moved.items()
        if right is not None
    ]
    gone = [key for key, (_, right) in moved.items() if right is None]
    if writes:
        await database.collection(Seen).bulk_write(writes, ordered=False, session=session)
    if gone:
        await database.collection(Seen).delete_many({"_id": {"$in": gone}}, session=session)
