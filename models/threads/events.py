"""What happens to messages, threads and agents, as one numbered log: watchers on every process read it in order.

Whoever changes one of them appends an event in the same transaction. To add a kind: name it in `EventKind`, and call
`append` with the session of the change. To read: `live.follow(ControlEvent, after=number, where=...)`; the number of an
event is its cursor. Events say that something has changed and what it was; what it is now stands in its own document.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, ClassVar, Final

from models.enums import DescribedEnum
from models.store import database, sequences
from models.store.database import ASCENDING, IndexModel, Key, Row, Session, Stored


class EventKind(DescribedEnum):
    """What an event is about."""

    MESSAGE = "MESSAGE", "A message was sent, or its delivery has changed; `status` is that of the delivery."
    THREAD = "THREAD", "A thread was opened, or its status has changed; `status` is the thread's."
    AGENT = "AGENT", "An agent was paused or resumed; `status` is PAUSED or RESUMED."
    RELOAD = "RELOAD", "What the organism's file declares was applied."


class ControlEvent(Stored):
    """One event. Its number is taken in the transaction of the change: the order of numbers is the order of commit."""

    id: int  # type: ignore[assignment]  # the number
    kind: EventKind
    at: datetime
    thread: Key | None = None
    message: Key | None = None
    agents: list[Key] = []
    status: str | None = None

    class Settings:
        """Where it is stored; gone after a day."""

        name = "control_events"
        indexes: ClassVar[list[IndexModel]] = [
            IndexModel([("thread", ASCENDING), ("_id", ASCENDING)], name="of a thread"),
            IndexModel([("at", ASCENDING)], name="expiry", expireAfterSeconds=86_400),
        ]


KEPT: Final = timedelta(days=1)
_SEQUENCE: Final = "control"

# ---------------------------------------------------------------- reads


async def last() -> int:
    """Give the number of the newest event."""
    row = await database.collection(sequences.Sequence, majority=True).find_one({"_id": _SEQUENCE})
    return row["value"] if row else 0


async def reach_back_to(number: int) -> bool:
    """Whether every event after this number is still kept."""
    oldest = await database.collection(ControlEvent, majority=True).find_one({}, {"_id": 1}, sort=[("_id", ASCENDING)])
    return number >= (oldest["_id"] - 1 if oldest else await last())


# ---------------------------------------------------------------- writes


async def append(
    kind: EventKind,
    *,
    thread: Key | None = None,
    message: Key | None = None,
    agents: Sequence[Key] = (),
    status: str | None = None,
    session: Session,
) -> int:
    """Append an event and give its number. `agents`: those whose state it may have changed."""
    (number,) = await sequences.take(_SEQUENCE, 1, session=session)
    values: Row = {
        "kind": kind.value,
        "thread": thread,
        "message": message,
        "agents": list(dict.fromkeys(agents)),
        "status": status,
    }
    change: list[Any] = [{"$set": {"at": "$$NOW", **{name: {"$literal": value} for name, value in values.items()}}}]
    await database.collection(ControlEvent).update_one({"_id": number}, change, upsert=True, session=session)
    return number
