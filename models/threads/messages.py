"""Messages: what one agent, or a person, says to an agent, in a thread; numbered in the order of commit."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar, Final

from models.store import database, pages
from models.store.database import ASCENDING, DESCENDING, IndexModel, Key, Row, Session, Stored
from models.store.outbox import DeliveryStatus
from models.store.pages import Order, Page, Window


class Message(Stored):
    """One message and how far its delivery has come.

    Its number is that of the event of its sending: what is sent later has a higher one. The payload is kept as JSON
    text, since BSON does not hold every JSON value.

    `open`: it is not delivered yet; `head`: it is the first such one of its thread and recipient, and none but the head
    is handed out; `way`: what is to be done next about a head whose recipient is not paused, by `due`.
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
    head: bool | None = None
    way: str | None = None
    due: datetime | None = None
    attempts: int = 0
    lease: Key | None = None
    leased_until: datetime | None = None
    holder: Key | None = None
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
            IndexModel(
                [("recipient", ASCENDING), ("way", ASCENDING), ("number", ASCENDING)],
                name="heads by way",
                partialFilterExpression={"head": True},
            ),
            IndexModel(
                [("holder", ASCENDING)], name="held", partialFilterExpression={"status": DeliveryStatus.LEASED.value}
            ),
            IndexModel(
                # By recipient last: those of one who is busy are passed over without a look at them.
                [("way", ASCENDING), ("due", ASCENDING), ("recipient", ASCENDING)],
                name="due for whom",
                partialFilterExpression={"way": {"$exists": True}},
            ),
        ]


POST: Final = "POST"
"""It is posted to its recipient's endpoint when it is due."""
INBOX: Final = "INBOX"
"""It waits for a subscriber of its recipient's inbox."""
TIMED: Final = "TIMED"
"""It is held, or to be tried again later, or the rest of its thread is to be withdrawn: nothing is done before it is
due."""


NEWEST: Final = Order("number", descending=True)
OLDEST: Final = Order("number")


# ---------------------------------------------------------------- reads


async def find(message: Key, *, session: Session | None = None) -> Row | None:
    """Find one."""
    return await database.collection(Message).find_one({"_id": message}, session=session)


async def by_keys(keys: Sequence[Key]) -> Mapping[Key, Row]:
    """Find many at once."""
    return {row["_id"]: row async for row in database.collection(Message).find({"_id": {"$in": list(keys)}})}


async def page(*, agents: Collection[Key], thread: Key | None, window: Window) -> Page:
    """Read one page of messages that each of these agents has sent or been sent, newest first."""
    return await pages.read(database.collection(Message), _where(agents, thread), order=NEWEST, window=window)


async def count(*, agents: Collection[Key], thread: Key | None) -> int:
    """Count messages."""
    return await database.collection(Message).count_documents(_where(agents, thread))


async def of_threads(threads: Sequence[Key], *, only: Key | None = None, window: Window) -> Mapping[Key, Page]:
    """Read one page of each thread's messages, in the order in which they were sent; `only` those of this agent."""
    where = {} if only is None else {"agents": only}
    source = database.collection(Message)
    return await pages.read_each(source, threads, field="thread", where=where, order=OLDEST, window=window)


# ---------------------------------------------------------------- rules


def key_of(scope: str, key: str) -> Key:
    """Make the key of a message of who sends it and the key that they gave it: a digest of 96 bits."""
    said = f"{scope}\x1f{key}".encode("utf-8", "surrogatepass")
    return Key(hashlib.blake2b(said, digest_size=12, person=b"messages").digest())


def _where(agents: Collection[Key], thread: Key | None) -> dict[str, Any]:
    wanted: dict[str, Any] = {"agents": {"$all": list(agents)}} if agents else {}
    return wanted if thread is None else {**wanted, "thread": thread}
