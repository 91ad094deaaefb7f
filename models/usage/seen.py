"""Distinct users and conversations: exact, each counted once per agent, on the first day that an event names it."""

from collections.abc import Mapping
from datetime import date
from enum import StrEnum
from typing import NamedTuple

from beanie import Document

from models.store import database
from models.store.database import Key, Session, UpdateOne


class Kind(StrEnum):
    """What is counted; the value is the name of the figure."""

    USER = "users"
    CONVERSATION = "conversations"


class Seen(Document):
    """One user or conversation that an agent has had, and the first day of it."""

    id: str  # type: ignore[assignment]  # agent, kind and the reporter's own identifier
    day: int

    class Settings:
        """Where it is stored."""

        name = "usage_seen"


class Claim(NamedTuple):
    """A user or conversation that an event names."""

    agent: Key
    kind: Kind
    identifier: str

    @property
    def key(self) -> str:
        """The stored key: one look-up answers whether it is new."""
        return f"{self.agent}\x1f{self.kind}\x1f{self.identifier}"


class Move(NamedTuple):
    """A change to a day's count: one more, or one fewer when an earlier event took it to its own day."""

    agent: Key
    kind: Kind
    day: date
    change: int
    is_new: bool


async def note(claims: Mapping[Claim, date], *, session: Session) -> list[Move]:
    """Remember the claims, each with its earliest day, and say what that does to the counts.

    The result does not depend on the order in which events arrive, so that it can be computed again from them.
    """
    if not claims:
        return []
    known: dict[str, int] = {}
    cursor = database.collection(Seen).find({"_id": {"$in": [claim.key for claim in claims]}}, session=session)
    async for row in cursor:
        known[row["_id"]] = row["day"]
    moves: list[Move] = []
    new: list[dict[str, object]] = []
    earlier: list[UpdateOne] = []
    for claim, day in claims.items():
        before = known.get(claim.key)
        if before is None:
            new.append({"_id": claim.key, "day": day.toordinal()})
            moves.append(Move(claim.agent, claim.kind, day, 1, is_new=True))
        elif day.toordinal() < before:
            earlier.append(UpdateOne({"_id": claim.key}, {"$set": {"day": day.toordinal()}}))
            moves.append(Move(claim.agent, claim.kind, date.fromordinal(before), -1, is_new=False))
            moves.append(Move(claim.agent, claim.kind, day, 1, is_new=False))
    if new:
        await database.collection(Seen).insert_many(new, ordered=False, session=session)
    if earlier:
        await database.collection(Seen).bulk_write(earlier, ordered=False, session=session)
    return moves
