"""Runs are removed after a while; what they came to stays, and none of them counts again.

What removed runs came to is added up by version and day in the transaction that removes them, so that the figures can
always be counted anew. Before any is removed, the horizon is moved up: what began before it and is not stored is taken
for a run that was counted and removed.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from models.runs import figures
from models.runs.figures import Figure, Metrics, Place, Tally
from models.runs.reports import AgentRun
from models.runs.versions import AgentVersion
from models.store import database
from models.store.database import ASCENDING, DuplicateKeyError, Key, Row, Session, Stored, UpdateOne

_AT_ONCE: Final = 1000
_HORIZON: Final = "runs"


class RemovedRuns(Stored, Metrics):
    """What the removed runs of one version came to that began on one day."""

    id: str  # type: ignore[assignment]  # version and day
    agent: Key
    version: Key
    day: int
    first_at: datetime
    last_at: datetime

    class Settings:
        """Where it is stored."""

        name = "removed_runs"


class RunHorizon(Stored):
    """From when on runs are kept, never moved back; and when the next look for older ones is due."""

    id: str  # type: ignore[assignment]  # there is one
    before: datetime
    next_at: datetime
    by: Key

    class Settings:
        """Where it is stored."""

        name = "run_horizon"


# ---------------------------------------------------------------- reads


async def horizon(*, session: Session) -> datetime | None:
    """Give the moment before which runs may have been removed; None when none has ever been.

    To be read in the transaction that looks for a run: one that does not find a run any more sees the horizon that was
    moved before the run was removed.
    """
    row = await database.collection(RunHorizon).find_one({"_id": _HORIZON}, session=session)
    return row["before"] if row else None


async def add_removed(tally: Tally, *, session: Session) -> None:
    """Add what removed runs came to."""
    async for row in database.collection(RemovedRuns).find({}, session=session):
        place = Place(row["agent"], row["version"], row["day"])
        tally.add_figure(place, Figure(figures.flat(row), row["first_at"], row["last_at"]))


# ---------------------------------------------------------------- writes


async def remove(*, after: timedelta, every: timedelta, zone: ZoneInfo) -> int:
    """Remove the runs that began so long ago, by the database's clock, and give their number.

    Of many processes one does so in each `every`. What it leaves undone, should it be killed, is done the next time.
    """
    if (before := await _move_horizon(after, every)) is None:
        return 0
    removed = 0
    while count := await database.transaction(AgentRun, lambda session: _remove_some(before, zone, session=session)):
        removed += count
    return removed


async def _move_horizon(after: timedelta, every: timedelta) -> datetime | None:
    """Move the horizon up; None when somebody has, a short while ago."""
    me = Key()
    is_due = {"$lte": [{"$ifNull": ["$next_at", "$$NOW"]}, "$$NOW"]}
    moved = {
        "before": {"$max": ["$before", {"$subtract": ["$$NOW", _ms(after)]}]},
        "next_at": {"$add": ["$$NOW", _ms(every)]},
        "by": me,
    }
    try:
        row = await database.change_and_read(
            database.collection(RunHorizon),
            {"_id": _HORIZON},
            [{"$set": {name: {"$cond": [is_due, value, f"${name}"]} for name, value in moved.items()}}],
            upsert=True,
        )
    except DuplicateKeyError:
        # Somebody else was the first of all.
        return None
    before: datetime = row["before"]
    return before if row["by"] == me else None


def _ms(time: timedelta) -> int:
    return round(time.total_seconds() * 1000)


async def _remove_some(before: datetime, zone: ZoneInfo, *, session: Session) -> int:
    source = database.collection(AgentRun)
    cursor = source.find({"created_at": {"$lt": before}}, session=session).sort("created_at", ASCENDING)
    rows: Sequence[Row] = await cursor.limit(_AT_ONCE).to_list(_AT_ONCE)
    if not rows:
        return 0
    # Their hours are gone long since.
    tally = Tally(zone, since=before)
    for row in rows:
        tally.add(row)
    versions = {key: figure.sums["total_runs"] for key, figure in tally.of_versions().items()}
    await database.collection(AgentVersion).bulk_write(
        [UpdateOne({"_id": key}, {"$inc": {"removed_runs": count}}) for key, count in sorted(versions.items())],
        session=session,
    )
    await database.collection(RemovedRuns).bulk_write(
        [UpdateOne({"_id": f"{place.version}:{place.day}"}, _change(place, figure), upsert=True)
         for place, figure in sorted(tally.days.items(), key=lambda each: each[0])],
        session=session,
    )  # fmt: skip
    await source.delete_many({"_id": {"$in": [row["_id"] for row in rows]}}, session=session)
    return len(rows)


def _change(place: Place, figure: Figure) -> dict[str, Any]:
    return {
        "$inc": {name: value for name, value in figure.sums.items() if value},
        "$min": {"first_at": figure.first},
        "$max": {"last_at": figure.last},
        "$setOnInsert": place._asdict(),
    }
