"""What subscribers to inboxes and threads are told."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Final

from strawberry import ID, Private

import graph.agents
from graph.agents import AgentBy
from graph.context import Context, Info
from graph.language import nodes, pages
from graph.language.describe import field, object_type
from graph.language.enums import expose
from graph.language.rows import reader
from graph.threads import Message, Thread, may_read
from models import agents
from models.enums import DescribedEnum
from models.errors import BadInput, Forbidden, NotFound
from models.store.database import Key, Row
from models.store.pages import Order
from models.threads import conversations, events, messages
from models.threads.events import ControlEvent, EventKind

# ---------------------------------------------------------------- inbox


@object_type
class InboxItem:
    """A message that is handed to its recipient, to be answered within the lease."""

    row: Private[Row]
    lease: ID
    """What it is answered by; another one each time that it comes."""
    lease_expires_at: datetime
    """When the lease ends: without an answer the message comes again then."""
    attempt: int
    """How often it has come, this time included."""

    @field
    def message(self) -> Message:
        """Give the message."""
        return Message.of(self.row)

    @classmethod
    def of(cls, row: Row) -> "InboxItem":
        """Shape a message just handed out."""
        return _item(row)


_item = reader(
    InboxItem,
    lease=lambda row: str(row["lease"]),
    lease_expires_at=lambda row: row["leased_until"],
    attempt=lambda row: row["attempts"],
)


async def inbox_of(context: Context, by: AgentBy, *, most: int) -> Key:
    """Find the agent whose inbox is asked for. Raises `Forbidden` for that of another agent, and `BadInput`."""
    if not 1 <= most <= pages.MOST:
        raise BadInput.at("max_unacknowledged", f"`maxUnacknowledged` lies between 1 and {pages.MOST}.")
    own, ref = context.viewer.agent, by.ref("agent")
    if own is None:
        return await graph.agents.key_of(by, field="agent")
    row = await context.find(agents.by_keys, own)
    if row is None or ref not in {own, row["name"]}:
        # The same whether or not there is one of that name.
        raise Forbidden("An agent's key reads the inbox of that agent alone.", field="agent")
    return own


# ---------------------------------------------------------------- threadUpdates


class ThreadUpdateType(DescribedEnum):
    """What an update of a thread is about; more may follow."""

    SNAPSHOT = "SNAPSHOT", "How the thread is to begin with."
    THREAD = "THREAD", "The thread was opened, or its status has changed."
    MESSAGE = "MESSAGE", "A message was sent, or its delivery has changed."


expose(ThreadUpdateType)


@object_type
class ThreadUpdate:
    """A change of a thread, or the snapshot before the first."""

    thread_key: Private[Key]
    message_key: Private[Key | None]
    cursor: str
    """Its place among all updates, to go on after it."""
    type: ThreadUpdateType
    """What it is about."""
    status: str | None
    """The status that the thread or the delivery came to by this change; null for a snapshot."""
    at: datetime
    """When it was stored; for a snapshot, when it was read."""

    @field
    async def thread(self, info: Info) -> Thread:
        """Give the thread as it is when this is told."""
        return Thread.of(await info.context.load(conversations.by_keys, self.thread_key))

    @field
    async def message(self, info: Info) -> Message | None:
        """Give the message as it is when this is told; null unless it is about one."""
        row = await info.context.find(messages.by_keys, self.message_key)
        return Message.of(row) if row else None


_ORDER: Final = Order("_id")
_SCOPE: Final = pages.asked("thread updates", _ORDER).scope
_SHOWN: Final = frozenset({EventKind.THREAD.value, EventKind.MESSAGE.value})


async def updates(context: Context, identifier: str, *, after: str | None) -> AsyncIterator[ThreadUpdate]:
    """Give what changes in a thread, from a cursor on, or from a snapshot. Raises `BadInput` and `NotFound`."""
    thread = nodes.decode(identifier, "Thread", field="thread")
    start = number(after) if after is not None else None
    # The number first: what changes after it is told, whether or not the snapshot has it already.
    now = await events.last()
    row = await conversations.find(thread)
    if row is None or not may_read(context, row["participants"]):
        raise NotFound("There is no such thread for you.", field="thread")
    if start is None or start > now or not await events.reach_back_to(start):
        start = now
        yield ThreadUpdate(
            thread_key=thread,
            message_key=None,
            cursor=cursor(now),
            type=ThreadUpdateType.SNAPSHOT,
            status=None,
            at=context.now,
        )

    def concerns(event: Row) -> bool:
        if event["thread"] != thread or event["kind"] not in _SHOWN:
            return False
        return event["kind"] == EventKind.THREAD or may_read(context, event["agents"])

    follow = context.services.live.follow(ControlEvent, after=start, where=concerns, stored={"thread": thread})
    async for event in follow:
        yield ThreadUpdate(
            thread_key=thread,
            message_key=event["message"],
            cursor=cursor(event["_id"]),
            type=ThreadUpdateType[event["kind"]],
            status=event["status"],
            at=event["at"],
        )


def cursor(number: int) -> str:
    """Write the number of an event as a cursor."""
    return pages.encode(_SCOPE, (number, number))


def number(text: str, *, name: str = "after") -> int:
    """Read a cursor back. Raises `BadInput`."""
    try:
        found = pages.decode(_SCOPE, text)[1]
    except ValueError:
        found = None
    if not isinstance(found, int) or isinstance(found, bool):
        raise BadInput.at(name, f"`{name}` is no cursor of an update. Take it from its `cursor`.")
    return found
