"""Refresh-token families: one for each sign-in; a token used twice ends its family."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import ClassVar, Final

from models.store import database
from models.store.database import ASCENDING, IndexModel, Key, ReturnDocument, Row, Stored

LIFE: Final = timedelta(days=30)


class Session(Stored):
    """One sign-in. Its refresh tokens are numbered; only the newest is good."""

    user: Key
    address: str
    generation: int = 1
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None = None

    class Settings:
        """Where it is stored; gone when it can no longer be refreshed."""

        name = "sessions"
        indexes: ClassVar[list[IndexModel]] = [
            IndexModel([("user", ASCENDING), ("address", ASCENDING)], name="user and address"),
            IndexModel([("expires_at", ASCENDING)], name="expiry", expireAfterSeconds=0),
        ]


# ---------------------------------------------------------------- reads


async def living(session: Key, *, now: datetime) -> Row | None:
    """Find a session that goes on together with its active `person`; None when either has ended."""
    rows = await database.aggregate(Session, _living([session], now=now))
    return rows[0] if rows else None


async def all_living(keys: Sequence[Key], *, now: datetime) -> Mapping[Key, Row]:
    """Find those of many sessions that go on, each with its active `person`."""
    return {row["_id"]: row for row in await database.aggregate(Session, _living(keys, now=now))}


async def began_at(user: Key, address: str) -> bool:
    """Whether somebody has signed in at an address within the last 30 days."""
    return await database.collection(Session).find_one({"user": user, "address": address}, {"_id": 1}) is not None


# ---------------------------------------------------------------- writes


async def start(user: Key, *, address: str, now: datetime) -> Row:
    """Begin a session, at generation 1; `address` is where from."""
    row = {
        "_id": Key(),
        "user": user,
        "address": address,
        "generation": 1,
        "created_at": now,
        "expires_at": now + LIFE,
        "revoked_at": None,
    }
    await database.collection(Session).insert_one(row)
    return row


async def renew(session: Key, *, generation: int, now: datetime) -> Row | None:
    """Trade in the token of a generation for the next; of two at once one wins.

    Gives None when the token is not the newest. A used token that comes again has been stolen, by this caller or from
    it: the family ends, so that neither can go on.
    """
    rows = database.collection(Session)
    row: Row | None = await rows.find_one_and_update(
        {"_id": session, "generation": generation, "revoked_at": None, "expires_at": {"$gt": now}},
        {"$inc": {"generation": 1}, "$set": {"expires_at": now + LIFE}},
        return_document=ReturnDocument.AFTER,
    )
    if row is None:
        await rows.update_one({"_id": session, "revoked_at": None}, {"$set": {"revoked_at": now}})
    return row


async def end(session: Key, *, now: datetime) -> None:
    """End one session."""
    await database.collection(Session).update_one({"_id": session, "revoked_at": None}, {"$set": {"revoked_at": now}})


async def end_all(user: Key, *, but: Key | None = None, now: datetime) -> None:
    """End every session of a person, save one."""
    await database.collection(Session).update_many(
        {"user": user, "revoked_at": None, "_id": {"$ne": but}}, {"$set": {"revoked_at": now}}
    )


# ---------------------------------------------------------------- rules


def _living(keys: Sequence[Key], *, now: datetime) -> list[Row]:
    return [
        {"$match": {"_id": {"$in": list(keys)}, "revoked_at": None, "expires_at": {"$gt": now}}},
        {"$lookup": {"from": "users", "localField": "user", "foreignField": "_id", "as": "person"}},
        {"$unwind": "$person"},
        {"$match": {"person.active": True}},
        {"$project": {"generation": 1, "user": 1, "person.role": 1, "person.last_seen_at": 1}},
    ]
