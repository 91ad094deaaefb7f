"""Token buckets: so many at once, then one every so often; shared by all processes, by the clock of the database."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar

from beanie import Document

from models.store import database
from models.store.database import ASCENDING, IndexModel, Row


@dataclass(frozen=True, slots=True)
class Rate:
    """How many at once, and how long until there is one more."""

    burst: int
    every: timedelta

    @property
    def every_ms(self) -> float:
        """The time until there is one more, in milliseconds."""
        return self.every.total_seconds() * 1000


class Bucket(Document):
    """What somebody has taken lately, as the moment at which all of it will have come back."""

    id: str  # type: ignore[assignment]  # whose it is
    full_at: datetime

    class Settings:
        """Where it is stored; a full one is as good as none."""

        name = "buckets"
        indexes: ClassVar[list[IndexModel]] = [IndexModel([("full_at", ASCENDING)], name="full", expireAfterSeconds=0)]


async def take(key: str, rate: Rate, *, count: int = 1) -> timedelta | None:
    """Take some, all or none; None when there were as many, else how long until there are.

    Of many callers at once none takes too many.
    """
    room, taken = (rate.burst - count) * rate.every_ms, count * rate.every_ms
    change: list[Row] = [
        # A missing date counts as none: `$max` leaves it out.
        {"$set": {"from": {"$max": ["$full_at", "$$NOW"]}}},
        {"$set": {"over_ms": {"$subtract": [{"$subtract": ["$from", "$$NOW"]}, room]}}},
        {"$set": {"full_at": {"$cond": [{"$lte": ["$over_ms", 0]}, {"$add": ["$from", taken]}, "$from"]}}},
        {"$unset": "from"},
    ]
    row: Row = await database.change_and_read(database.collection(Bucket), {"_id": key}, change, upsert=True)
    return timedelta(milliseconds=row["over_ms"]) if row["over_ms"] > 0 else None


async def give_back(key: str, rate: Rate) -> None:
    """Put back one that was taken."""
    await database.collection(Bucket).update_one(
        {"_id": key}, [{"$set": {"full_at": {"$subtract": ["$full_at", rate.every_ms]}}}]
    )
