"""Threads: one conversation each, opened by id or by a name of the caller's own, closed once and for all."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, ClassVar, Final

from pydantic import BaseModel

from models import text
from models.budgets import defaults
from models.budgets import kept as budgets
from models.budgets.kept import Scope
from models.enums import DescribedEnum
from models.errors import BadInput, BudgetExhausted, Conflict, NotFound
from models.store import database, pages
from models.store.database import ASCENDING, DESCENDING, IndexModel, Key, Row, Session, Stored
from models.store.pages import Order, Page, Window
from models.threads import events
from models.threads.events import EventKind


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
    """One conversation; `handed` says which message was handed last to each participant."""

    key: str | None = None
    status: ThreadStatus = ThreadStatus.ACTIVE
    participants: list[Key] = []
    messages: int = 0
    handed: dict[str, Key] = {}
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
GOING: Final = frozenset({ThreadStatus.ACTIVE, ThreadStatus.EXHAUSTED})
"""What threads are that may take messages again, if they do not now."""


@dataclass(frozen=True, slots=True)
class Ref:
    """What names a thread: its key, and the caller's own name for it where it was named by that.

    `is_new`: nobody named any, and one is to be opened.
    """

    thread: Key
    name: str | None = None
    is_new: bool = False


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


async def page(*, status: ThreadStatus | None, participants: Collection[Key], window: Window) -> Page:
    """Read one page of the threads that each of these agents takes part in, newest first."""
    return await pages.read(database.collection(Thread), _where(status, participants), order=NEWEST, window=window)


async def count(*, status: ThreadStatus | None, participants: Collection[Key]) -> int:
    """Count threads."""
    return await database.collection(Thread).count_documents(_where(status, participants))


# ---------------------------------------------------------------- writes


async def open_now(ref: Ref, *, limit: int, now: datetime, session: Session | None = None) -> Row:
    """Find a thread, or open the one that is named for the first time. Raises `NotFound` for an unknown id.

    `limit`: the tokens that may be spent in one that is opened, where the organism declares none. Whoever opens one and
    stores what hangs on it in one transaction passes its `session`.
    """
    if ref.name is None and not ref.is_new:
        return await require(ref.thread, field="thread", session=session)
    # Looked for first: most are there, and a write would meet those of others.
    found = await find(ref.thread, session=session)
    if found is not None:
        return found

    async def body(session: Session) -> Row:
        born = {"$setOnInsert": _without_id(row_of(ref, now=now))}
        row = await database.change_and_read(
            database.collection(Thread), {"_id": ref.thread}, born, upsert=True, session=session
        )
        tokens = await defaults.thread_tokens(otherwise=limit, session=session)
        await budgets.open(Scope.thread(ref.thread), tokens, session=session)
        return row

    if session is not None:
        return await body(session)
    return await database.transaction(Thread, body, retry_duplicates=True)


async def joined(thread: Row, agents: Collection[Key], *, session: Session) -> None:
    """Note that a message was sent in a thread, and who takes part in it by that."""
    new = [agent for agent in agents if agent not in thread["participants"]]
    await database.collection(Thread).update_one(
        {"_id": thread["_id"]},
        {
            "$inc": {"messages": 1},
            "$push": {"participants": {"$each": new}},
            "$currentDate": {"updated_at": True},
        },
        session=session,
    )


async def handed(message: Row, *, session: Session) -> None:
    """Note that a message was handed to its recipient."""
    change = {"$set": {f"handed.{message['recipient']}": message["_id"]}, "$currentDate": {"updated_at": True}}
    await database.collection(Thread).update_one({"_id": message["thread"]}, change, session=session)


async def stirred(thread: Key, *, session: Session) -> None:
    """Note that something has happened in a thread; of two transactions that do, one waits for the other."""
    await database.collection(Thread).update_one(
        {"_id": thread}, {"$currentDate": {"updated_at": True}}, session=session
    )


async def close(thread: Row, status: ThreadStatus, *, reason: str | None, session: Session) -> Row:
    """Close a thread, or close it otherwise than it was; unless its budget closes it, nothing is reserved any more."""
    if status is not ThreadStatus.EXHAUSTED:
        await budgets.close(Scope.thread(thread["_id"]), session=session)
    change: list[Row] = [
        {
            "$set": {
                "status": status.value,
                "closed_at": {"$ifNull": ["$closed_at", "$$NOW"]},
                "closed_reason": {"$literal": reason},
                "updated_at": "$$NOW",
            }
        }
    ]
    return await _changed(thread["_id"], change, agents=thread["participants"], session=session)


async def exhaust(thread: Key, *, session: Session) -> None:
    """Note that a thread's budget is used up: it takes no message any more. Only an ACTIVE one changes."""
    row = await find(thread, session=session)
    if row and row["status"] == ThreadStatus.ACTIVE:
        await close(row, ThreadStatus.EXHAUSTED, reason="Its token budget is used up.", session=session)


async def reopen(thread: Key, *, session: Session) -> None:
    """Note that a thread's budget has been raised: it takes messages again. Only an EXHAUSTED one changes."""
    row = await find(thread, session=session)
    if row and row["status"] == ThreadStatus.EXHAUSTED:
        again = {"status": ThreadStatus.ACTIVE.value, "closed_at": None, "closed_reason": None, "updated_at": "$$NOW"}
        await _changed(thread, [{"$set": again}], agents=row["participants"], session=session)


# ---------------------------------------------------------------- rules


async def refuse_closed(thread: Row, *, session: Session) -> None:
    """Raise for a thread that takes no message: `BudgetExhausted` or `Conflict`."""
    status = thread["status"]
    if status == ThreadStatus.EXHAUSTED:
        budget = await budgets.require(Scope.thread(thread["_id"]), session=session)
        raise BudgetExhausted(
            "The token budget of this thread is used up. Have its limit raised, or open another thread.",
            limit=budget["limit"],
            spent=budgets.spent(budget),
            reserved=budget["reserved"],
        )
    if status != ThreadStatus.ACTIVE:
        why = f" ({thread['closed_reason']})" if thread["closed_reason"] else ""
        raise Conflict(f"This thread is {status}{why}: it takes nothing more. Open another one.", field="thread")


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


async def _changed(thread: Key, change: list[Row], *, agents: Sequence[Key], session: Session) -> Row:
    row = await database.change_and_read(database.collection(Thread), {"_id": thread}, change, session=session)
    await events.append(EventKind.THREAD, thread=thread, agents=agents, status=row["status"], session=session)
    return row


def _without_id(row: Row) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "_id"}


def _where(status: ThreadStatus | None, participants: Collection[Key]) -> dict[str, Any]:
    wanted: dict[str, Any] = {}
    if participants:
        wanted["participants"] = {"$all": list(participants)}
    if status is not None:
        wanted["status"] = status.value
    return wanted
