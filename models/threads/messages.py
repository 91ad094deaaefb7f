"""Messages: what one agent, or a person, says to an agent, in a thread; numbered in the order of commit."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar, Final

from models.store import database, pages
from models.store.database import ASCENDING, DESCENDING, IndexModel, Key, Row, Session, Stored
from models.store.outbox import DeliveryStatus
from models.store.pages import Order, Page, Window


class Message(Stored):
    """One message and how far its delivery has come.

    Its number is taken in the transaction that stores it: what is sent later has a higher one. The payload is kept as
    JSON text, since BSON does not hold every JSON value.
    """

    number: int
    thread: Key
    sender: Key | None
    sender_name: str
    recipient: Key
    agents: list[Key]
    payload_type: str
    payload: str
    depth: int
    parent: Key | None
    content: bytes
    created_at: datetime
    status: DeliveryStatus = DeliveryStatus.PENDING
    open: bool | None = True
    attempts: int = 0
    lease: Key | None = None
    leased_until: datetime | None = None
    delivered_at: datetime | None = None
    error: str | None = None

    class Settings:
        """Where it is stored, and an index for each way in which messages are listed."""

        name = "messages"
        indexes: ClassVar[list[IndexModel]] = [
            IndexModel([("number", DESCENDING)], unique=True, name="newest"),
            IndexModel([("thread", ASCENDING), ("number", ASCENDING)], name="of a thread"),
            IndexModel([("agents", ASCENDING), ("number", DESCENDING)], name="of an agent"),
            IndexModel([("thread", ASCENDING), ("agents", ASCENDING), ("number", DESCENDING)], name="of both"),
            # What is not delivered yet: it stays small, whatever has been sent before.
            IndexModel(
                [("thread", ASCENDING), ("recipient", ASCENDING), ("number", ASCENDING)],
                name="open",
                partialFilterExpression={"open": True},
            ),
        ]


NEWEST: Final = Order("number", descending=True)
OLDEST: Final = Order("number")


# ---------------------------------------------------------------- reads


async def find(message: Key, *, session: Session | None = None) -> Row | None:
    """Find one."""
    return await database.collection(Message).find_one({"_id": message}, session=session)


async def by_keys(keys: Sequence[Key]) -> Mapping[Key, Row]:
    """Find many at once."""
    return {row["_id"]: row async for row in database.collection(Message).find({"_id": {"$in": list(keys)}})}


async def page(*, agent: Key | None, thread: Key | None, window: Window) -> Page:
    """Read one page of messages that an agent has sent or been sent, newest first."""
    return await pages.read(database.collection(Message), _where(agent, thread), order=NEWEST, window=window)


async def count(*, agent: Key | None, thread: Key | None) -> int:
    """Count messages."""
    return await database.collection(Message).count_documents(_where(agent, thread))


async def of_threads(threads: Sequence[Key], *, window: Window) -> Mapping[Key, Page]:
    """Read one page of each thread's messages, in the order in which they were sent."""
    return await pages.read_each(database.collection(Message), threads, field="thread", order=OLDEST, window=window)


# ---------------------------------------------------------------- rules


def _where(agent: Key | None, thread: Key | None) -> dict[str, Any]:
    wanted = {"agents": agent, "thread": thread}
    return {name: key for name, key in wanted.items() if key is not None}
