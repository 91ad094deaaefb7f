"""One rating per person and agent; an agent's average and count are right at once."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, ClassVar, Final, NamedTuple, TypeVar
from weakref import WeakValueDictionary

from pydantic import BaseModel, Field

from models import agents, text
from models.agents import Agent
from models.errors import NotFound, ServiceUnavailable
from models.store import database, pages
from models.store.database import ASCENDING, DESCENDING, IndexModel, Key, Row, Session, Stored
from models.store.pages import Order, Page, Window


class RatingFields(BaseModel):
    """What a person says of an agent."""

    stars: Annotated[int, Field(ge=1, le=5, strict=True)]
    comment: Annotated[str, text.Lines(2000)] | None = None


class Rating(Stored, RatingFields):
    """One person's rating of one agent."""

    agent: Key
    user: Key
    created_at: datetime
    updated_at: datetime

    class Settings:
        """Where it is stored."""

        name = "ratings"
        indexes: ClassVar[list[IndexModel]] = [
            IndexModel([("agent", ASCENDING), ("user", ASCENDING)], unique=True, name="one each"),
            IndexModel([("agent", ASCENDING), ("created_at", DESCENDING), ("_id", DESCENDING)], name="newest"),
        ]


class StarMeaning(NamedTuple):
    """What a number of stars stands for."""

    stars: int
    title: str
    meaning: str


FRAMEWORK: Final = (
    StarMeaning(1, "Not usable", "Wrong or harmful answers; I would stop others from using it."),
    StarMeaning(2, "Weak", "Needs so much correction that doing the work by hand is quicker."),
    StarMeaning(3, "Useful with care", "Helps, but every answer has to be checked and often mended."),
    StarMeaning(4, "Good", "Saves time on most days; small corrections only."),
    StarMeaning(5, "Excellent", "I rely on it and recommend it to colleagues."),
)
NEWEST: Final = Order("created_at", descending=True)

T = TypeVar("T")

# Raters of one agent wait for each other here rather than by write conflicts, which on a slow machine use up the time
# of the last of fifty. Between processes the conflicts decide.
_PATIENCE_S: Final = 10
_locks: Final[WeakValueDictionary[agents.Ref, asyncio.Lock]] = WeakValueDictionary()


# ---------------------------------------------------------------- reads


async def find(rating: Key) -> Row | None:
    """Find one rating."""
    return await database.collection(Rating).find_one({"_id": rating})


async def given_by(keys: Sequence[Key], *, user: Key) -> Mapping[Key, int]:
    """Read the stars one person has given to many agents; agents not rated are left out."""
    cursor = database.collection(Rating).find({"user": user, "agent": {"$in": list(keys)}}, {"agent": 1, "stars": 1})
    return {row["agent"]: row["stars"] async for row in cursor}


async def newest(keys: Sequence[Key], *, window: Window) -> Mapping[Key, Page]:
    """Read one page of each agent's ratings, newest first."""
    return await pages.read_each(database.collection(Rating), keys, field="agent", order=NEWEST, window=window)


# ---------------------------------------------------------------- writes


async def rate(ref: agents.Ref, *, by: Key, stars: int, comment: str | None, now: datetime) -> tuple[Row, Row]:
    """Rate an agent, or replace one's rating of it. Gives the rating and the agent as they stand then.

    Rating and sums change in one transaction: whoever rates the same agent meanwhile meets a write conflict on the
    agent and starts again, so that no update is lost and the sums never drift from the ratings.
    """
    said = text.validate(RatingFields, {"stars": stars, "comment": comment}, partial=False)

    async def body(session: Session) -> tuple[Row, Row]:
        agent = await agents.require(ref, field="agent", session=session)
        rows = database.collection(Rating)
        mine = {"agent": agent["_id"], "user": by}
        before = await rows.find_one(mine, session=session)
        after = await _move(agent["_id"], old=before["stars"] if before else None, new=stars, session=session)
        rating: Row = await database.change_and_read(
            rows,
            mine,
            {"$set": {**said, "updated_at": now}, "$setOnInsert": {"created_at": now}},
            upsert=True,
            session=session,
        )
        return rating, after

    # Two first ratings of one person at once: the second finds the first's and replaces it.
    return await _one_by_one(ref, body)


async def remove(ref: agents.Ref, *, by: Key) -> tuple[Key, Row]:
    """Take back one's rating of an agent. Gives the rating's key and the agent as it stands then."""

    async def body(session: Session) -> tuple[Key, Row]:
        agent = await agents.require(ref, field="agent", session=session)
        before = await database.collection(Rating).find_one_and_delete(
            {"agent": agent["_id"], "user": by}, session=session
        )
        if before is None:
            raise NotFound("You have not rated this agent.", field="agent")
        after = await _move(agent["_id"], old=before["stars"], new=None, session=session)
        return before["_id"], after

    return await _one_by_one(ref, body)


# ---------------------------------------------------------------- rules


async def _one_by_one(ref: agents.Ref, body: Callable[[Session], Awaitable[T]]) -> T:
    lock = _locks.setdefault(ref, asyncio.Lock())
    try:
        async with asyncio.timeout(_PATIENCE_S):
            await lock.acquire()
    except TimeoutError as error:
        raise ServiceUnavailable from error
    try:
        return await database.transaction(Rating, body, retry_duplicates=True)
    finally:
        lock.release()


async def _move(agent: Key, *, old: int | None, new: int | None, session: Session) -> Row:
    changes: dict[str, Any] = {
        "rating.count": _plus("rating.count", (new is not None) - (old is not None)),
        "rating.sum": _plus("rating.sum", (new or 0) - (old or 0)),
    }
    if old != new:
        for stars, change in ((old, -1), (new, 1)):
            if stars is not None:
                field = f"rating.distribution.{stars}"
                changes[field] = _plus(field, change)
    average = {"$cond": ["$rating.count", {"$divide": ["$rating.sum", "$rating.count"]}, None]}
    after: Row = await database.change_and_read(
        database.collection(Agent),
        {"_id": agent},
        [{"$set": changes}, {"$set": {"rating.average": average}}],
        session=session,
    )
    return after


def _plus(field: str, change: int) -> Mapping[str, Any]:
    return {"$add": [f"${field}", change]}
