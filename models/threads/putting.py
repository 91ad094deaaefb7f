"""A message is stored: numbered, put in its queue, and counted for whom it concerns, in one transaction."""

from dataclasses import dataclass
from typing import Any

from models.agents import declared
from models.store import database
from models.store.database import Key, Row, Session
from models.store.outbox import DeliveryStatus
from models.threads import activity, conversations, events, messages
from models.threads.events import EventKind
from models.threads.messages import INBOX, POST, Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A message that may be stored: everything about it has been checked. `payload` is JSON text."""

    key: Key
    sender: Key | None
    sender_name: str
    recipient: Row
    payload_type: str
    payload: str
    depth: int
    parent: Key | None
    content: bytes


async def put(draft: Draft, thread: Row, *, session: Session) -> Row:
    """Store a message in a thread, and give it as stored."""
    recipient: Key = draft.recipient["_id"]
    agents = list(dict.fromkeys(each for each in (draft.sender, recipient) if each is not None))
    if not thread["messages"]:
        await events.append(
            EventKind.THREAD, thread=thread["_id"], agents=agents, status=thread["status"], session=session
        )
    number = await events.append(
        EventKind.MESSAGE,
        thread=thread["_id"],
        message=draft.key,
        agents=agents,
        status=DeliveryStatus.PENDING.value,
        session=session,
    )
    await conversations.joined(thread, agents, session=session)
    if draft.sender is not None:
        awaited = recipient if recipient != draft.sender and declared.is_agent(draft.recipient) else None
        await activity.sent(draft.sender, message=draft.key, awaited=awaited, thread=thread["_id"], session=session)
    theirs = await activity.received(
        recipient, sender=draft.sender, thread=thread["_id"], counted=draft.sender != recipient, session=session
    )
    values = Message.model_construct(
        number=number,
        thread=thread["_id"],
        sender=draft.sender,
        sender_name=draft.sender_name,
        recipient=recipient,
        agents=agents,
        payload_type=draft.payload_type,
        payload=draft.payload,
        depth=draft.depth,
        parent=draft.parent,
        content=draft.content,
    ).model_dump(exclude={"id", "revision_id", "created_at", "status", "head", "way", "due"})
    stored: list[Any] = [
        {"$set": {name: {"$literal": value} for name, value in values.items()}},
        {"$set": {"created_at": "$$NOW", "status": DeliveryStatus.PENDING.value}},
    ]
    if await _is_first(thread["_id"], recipient, session=session):
        stored.append({"$set": to_the_head(draft.recipient, theirs)})
    return await database.change_and_read(
        database.collection(Message), {"_id": draft.key}, stored, upsert=True, session=session
    )


def to_the_head(recipient: Row, theirs: Row) -> dict[str, Any]:
    """Say what changes of a message that comes to the head of its queue; `theirs`: its recipient's activity."""
    change: dict[str, Any] = {"head": True, "due": "$$NOW"}
    return change if theirs["paused_at"] is not None else {**change, "way": way_of(recipient)}


def way_of(recipient: Row) -> str:
    """Say how messages get to an agent."""
    return POST if (recipient.get("declared") or {}).get("endpoint") else INBOX


async def _is_first(thread: Key, recipient: Key, *, session: Session) -> bool:
    where = {"thread": thread, "recipient": recipient, "open": True}
    return await database.collection(messages.Message).find_one(where, {"_id": 1}, session=session) is None
