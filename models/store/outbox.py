"""Messages written with the change that causes them, leased to who sends them, tried again, given up visibly."""

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar, Final

from beanie import Document

from models.enums import DescribedEnum
from models.errors import Conflict, NotFound
from models.store import database
from models.store.database import ASCENDING, IndexModel, Key, ReturnDocument, Row, Session


class DeliveryStatus(DescribedEnum):
    """How far a message has come."""

    PENDING = "PENDING", "Waits to be sent, or to be tried again."
    LEASED = "LEASED", "Is being sent right now."
    DELIVERED = "DELIVERED", "The other side has taken it."
    FAILED = "FAILED", "Given up; `error` says why."
    WITHDRAWN = "WITHDRAWN", "Not to be sent any more; `error` says why."


class OutboxItem(Document):
    """One message on its way out."""

    id: str  # type: ignore[assignment]  # the message's own key: a receiver can tell a repeat by it
    subject: str
    kind: str
    payload: dict[str, Any]
    status: DeliveryStatus = DeliveryStatus.PENDING
    due: datetime
    attempts: int = 0
    lease: Any = None
    error: str | None = None
    created_at: datetime
    give_up_at: datetime
    delivered_at: datetime | None = None

    class Settings:
        """Where it is stored; gone after 90 days."""

        name = "outbox"
        indexes: ClassVar[list[IndexModel]] = [
            IndexModel([("status", ASCENDING), ("due", ASCENDING)], name="due"),
            IndexModel([("subject", ASCENDING), ("_id", ASCENDING)], name="subject"),
            IndexModel([("created_at", ASCENDING)], name="expiry", expireAfterSeconds=90 * 86_400),
        ]


@dataclass(frozen=True, slots=True)
class Message:
    """What is to be sent: `key` stays the same for every try, `subject` is what it is about, `kind` says by whom."""

    key: str
    subject: str
    kind: str
    payload: Mapping[str, Any]


# Longer than any try may take: a lease that runs out means that whoever held it is gone.
LEASE: Final = timedelta(seconds=30)
PERSEVERANCE: Final = timedelta(days=1)
_FIRST_PAUSE_S: Final = 5.0
_LONGEST_PAUSE_S: Final = 3600.0
_OPEN: Final = (DeliveryStatus.PENDING.value, DeliveryStatus.LEASED.value)

# ---------------------------------------------------------------- reads


async def by_subject(subjects: Sequence[str]) -> Mapping[str, Sequence[Row]]:
    """Read what has been sent about many things; those about which there is nothing are left out."""
    found: dict[str, list[Row]] = {}
    async for row in database.collection(OutboxItem).find({"subject": {"$in": list(subjects)}}).sort("_id", ASCENDING):
        found.setdefault(row["subject"], []).append(row)
    return found


async def counts() -> Mapping[str, int]:
    """Count messages by status."""
    pipeline: Sequence[Row] = [{"$group": {"_id": "$status", "count": {"$sum": 1}}}]
    found = {row["_id"]: row["count"] for row in await database.aggregate(OutboxItem, pipeline)}
    return {status.value: found.get(status.value, 0) for status in DeliveryStatus}


async def find(key: str) -> Row | None:
    """Find one message."""
    return await database.collection(OutboxItem).find_one({"_id": key})


# ---------------------------------------------------------------- writes


async def put(messages: Sequence[Message], *, now: datetime, session: Session) -> None:
    """Write messages into the transaction of the change that causes them."""
    if messages:
        await database.collection(OutboxItem).insert_many(
            [
                {
                    "_id": message.key,
                    "subject": message.subject,
                    "kind": message.kind,
                    "payload": dict(message.payload),
                    "status": DeliveryStatus.PENDING.value,
                    "due": now,
                    "attempts": 0,
                    "lease": None,
                    "error": None,
                    "created_at": now,
                    "give_up_at": now + PERSEVERANCE,
                    "delivered_at": None,
                }
                for message in messages
            ],
            session=session,
        )


async def claim(kinds: Collection[str]) -> Row | None:
    """Take the message that has been due longest, for the time of a lease; None when none is due.

    Of many who claim at once each gets another one. A message whose lease has run out is due again.
    """
    due = {"kind": {"$in": list(kinds)}, "status": {"$in": list(_OPEN)}, "$expr": {"$lte": ["$due", "$$NOW"]}}
    leased: list[Row] = [
        {
            "$set": {
                "status": DeliveryStatus.LEASED.value,
                "due": {"$add": ["$$NOW", _ms(LEASE)]},
                "attempts": {"$add": ["$attempts", 1]},
                "lease": Key(),
            }
        }
    ]
    return await database.collection(OutboxItem).find_one_and_update(
        due, leased, sort=[("due", ASCENDING)], return_document=ReturnDocument.AFTER
    )


async def delivered(item: Row) -> None:
    """Note that a message has been taken; not when its lease has gone to somebody else meanwhile."""
    await _settle(item, {"status": DeliveryStatus.DELIVERED.value, "delivered_at": "$$NOW", "error": None})


async def withdrawn(item: Row, reason: str) -> None:
    """Note that a message is not to be sent any more."""
    await _settle(item, {"status": DeliveryStatus.WITHDRAWN.value, "error": {"$literal": reason}})


async def failed(item: Row, reason: str, *, for_good: bool = False) -> None:
    """Note that a try has failed: it is tried again after a pause that doubles, until its day is over.

    The pause varies by half, so that what failed together does not come back together.
    """
    pause = min(_FIRST_PAUSE_S * 2 ** (item["attempts"] - 1), _LONGEST_PAUSE_S) * random.uniform(0.5, 1)  # noqa: S311  # spreads tries, guards nothing
    due = {"$add": ["$$NOW", round(pause * 1000)]}
    over = True if for_good else {"$gt": [due, "$give_up_at"]}
    status = {"$cond": [over, DeliveryStatus.FAILED.value, DeliveryStatus.PENDING.value]}
    await _settle(item, {"status": status, "due": due, "error": {"$literal": reason}})


async def retry(key: str) -> Row:
    """Send a message once more, now, and persevere for another day; its key stays, by which a repeat can be told.

    Raises `NotFound`, and `Conflict` for one that is being sent.
    """
    again: list[Row] = [
        {
            "$set": {
                "status": DeliveryStatus.PENDING.value,
                "due": "$$NOW",
                "attempts": 0,
                "give_up_at": {"$add": ["$$NOW", _ms(PERSEVERANCE)]},
            }
        }
    ]
    rows = database.collection(OutboxItem)
    row = await rows.find_one_and_update(
        {"_id": key, "status": {"$ne": DeliveryStatus.LEASED.value}}, again, return_document=ReturnDocument.AFTER
    )
    if row is None:
        if await find(key):
            raise Conflict("It is being sent right now. Look again in half a minute.", field="id")
        raise NotFound("There is no such delivery.", field="id")
    return row


# ---------------------------------------------------------------- rules


async def _settle(item: Row, values: Mapping[str, Any]) -> None:
    await database.collection(OutboxItem).update_one(
        {"_id": item["_id"], "lease": item["lease"], "status": DeliveryStatus.LEASED.value},
        [{"$set": {**values, "lease": None}}],
    )


def _ms(time: timedelta) -> int:
    return round(time.total_seconds() * 1000)
