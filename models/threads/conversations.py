"""Threads: one conversation each, opened by id or by a name of the caller's own, closed once and for all."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, ClassVar, Final

from pydantic import BaseModel

from models import text
from models.enums import DescribedEnum
from models.errors import BadInput, NotFound
from models.store import database, pages
from models.store.database import ASCENDING, DESCENDING, IndexModel, Key, Row, Session, Stored
from models.store.pages import Order, Page, Window


class ThreadStatus(DescribedEnum):
    """How far a thread has come."""

    ACTIVE = "ACTIVE", "Takes messages."
    COMPLETED = "COMPLETED", "Done; what was sent is still delivered, nothing more is taken."
    FAILED = "FAILED", "Ended by an error; nothing more is taken."
    KILLED = "KILLED", "Stopped by an operator: what was not delivered has been withdrawn, nothing more is taken."
    EXHAUSTED = "EXHAUSTED", "Its token budget is used up; what was sent is still delivered, nothing more is taken."


class ThreadFields(BaseModel):
    """What a caller says of a thread."""

    key: Annotated[str, text.Line(200)]


class Thread(Stored):
    """One conversation."""

    key: str | None = None
    status: ThreadStatus = ThreadStatus.ACTIVE
    participants: list[Key] = []
    messages: int = 0
    created_at: datetime
    updated_at: datetime
    closed_at: datetime | None = None
    closed_reason: str | None = None

    class Settings:
        """Where it is stored, and an index for each way in which threads are listed."""

        name = "threads"
        indexes: ClassVar[list[IndexModel]] = [
            IndexModel([*fields, ("created_at", DESCENDING), ("_id", DESCENDING)], name=name)
            for name, fields in (
                ("newest", []),
                ("status", [("status", ASCENDING)]),
                ("participant", [("participants", ASCENDING)]),
                ("participant and status", [("participants", ASCENDING), ("status", ASCENDING)]),
            )
        ]


NEWEST: Final = Order("created_at", descending=True)
MOST_PARTICIPANTS: Final = 100


@dataclass(frozen=True, slots=True)
class Ref:
    """What names a thread: its key, and the caller's own name for it where it was named by that."""

    thread: Key
    name: str | None = None


# ---------------------------------------------------------------- reads


async def find(thread: Key, *, session: Session | None = None) -> Row | None:
    """Find one."""
    return await database.collection(Thread).find_one({"_id": thread}, session=session)


async def require(thread: Key, *, field: str = "id", session: Session | None = None) -> Row:
    """Find one; `NotFound` names the input `field`."""
    row = await find(thread, session=session)
    if row is None:
        raise NotFound("There is no such thread.", field=field)
    return row


async def by_keys(keys: Sequence[Key]) -> Mapping[Key, Row]:
    """Find many at once."""
    return {row["_id"]: row async for row in database.collection(Thread).find({"_id": {"$in": list(keys)}})}


async def page(*, status: ThreadStatus | None, participant: Key | None, window: Window) -> Page:
    """Read one page of threads, newest first."""
    return await pages.read(database.collection(Thread), _where(status, participant), order=NEWEST, window=window)


async def count(*, status: ThreadStatus | None, participant: Key | None) -> int:
    """Count threads."""
    return await database.collection(Thread).count_documents(_where(status, participant))


# ---------------------------------------------------------------- writes


async def open_now(ref: Ref, *, now: datetime, session: Session | None = None) -> Row:
    """Find a thread, or open the one that is named for the first time. Raises `NotFound` for an unknown id.

    Whoever opens one and stores what hangs on it in one transaction passes its `session`.
    """
    if ref.name is None:
        return await require(ref.thread, field="thread", session=session)
    rows = database.collection(Thread)
    # Looked for first: most are there, and a write would meet those of others.
    row = await find(ref.thread, session=session)
    if row is None:
        row = await database.change_and_read(
            rows, {"_id": ref.thread}, {"$setOnInsert": _without_id(row_of(ref, now=now))}, upsert=True, session=session
        )
    return row


# ---------------------------------------------------------------- rules


def named(name: str, *, field: str = "thread.key") -> Ref:
    """Give what the caller's own name for a thread names: everybody's same name is the same thread.

    Raises `BadInput`.
    """
    name = check_name(name, field=field)
    # A digest of 96 bits, so that it names the thread as other keys name theirs, and nobody has to look it up.
    return Ref(Key(hashlib.blake2b(name.encode(), digest_size=12, person=b"threads").digest()), name)


def id_of(thread: Key) -> str:
    """Give the id by which clients know a thread."""
    return database.global_id(Thread.__name__, thread)


def check_name(name: str, *, field: str) -> str:
    """Check the caller's own name for a thread: 1 to 200 characters in one line. Raises `BadInput` at `field`."""
    try:
        checked: str = text.validate(ThreadFields, {"key": name})["key"]
    except BadInput as error:
        raise BadInput.at(field, error.message) from None
    return checked


def row_of(ref: Ref, *, now: datetime) -> dict[str, Any]:
    """Write a new thread as stored."""
    thread = Thread(key=ref.name, created_at=now, updated_at=now)
    return {"_id": ref.thread, **thread.model_dump(exclude={"id", "revision_id"})}


def _without_id(row: Row) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "_id"}


def _where(status: ThreadStatus | None, participant: Key | None) -> dict[str, Any]:
    wanted: dict[str, Any] = {}
    if participant is not None:
        wanted["participants"] = participant
    if status is not None:
        wanted["status"] = status.value
    return wanted
