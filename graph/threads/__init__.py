"""Threads and their messages as clients see them."""

import asyncio
from collections.abc import Collection
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated, ClassVar

import orjson
import strawberry
from strawberry import ID, UNSET, Private

import graph.agents
import graph.budgets
from auth.permissions import Permission, readers
from graph.context import Context, Info
from graph.language import nodes, pages
from graph.language.describe import field, object_type, one_of
from graph.language.enums import expose
from graph.language.nodes import Node, key_of
from graph.language.pages import After, Connection, First
from graph.language.rows import reader
from graph.language.scalars import JSON, as_any
from models import agents
from models.budgets import kept as budgets
from models.budgets.kept import Scope
from models.errors import BadInput
from models.store import outbox
from models.store.database import Key, Row
from models.threads import conversations, messages

if TYPE_CHECKING:
    from graph.agents import Agent
    from graph.budgets import ThreadBudget

DeliveryStatus = expose(outbox.DeliveryStatus)
ThreadStatus = expose(conversations.ThreadStatus)
LazyAgent = Annotated["Agent", strawberry.lazy("graph.agents")]


def own(context: Context) -> list[Key]:
    """Give the agents whose threads and messages alone may be read: that of an agent's key; none means all."""
    return [context.viewer.agent] if context.viewer.agent is not None else []


def may_read(context: Context, agents: Collection[Key]) -> bool:
    """Whether what concerns these agents may be read: an agent's key reads what concerns its own."""
    return context.viewer.agent is None or context.viewer.agent in agents


@object_type
class Thread(Node):
    """One conversation of agents, with people at times."""

    readable_by: ClassVar[Permission] = readers

    key: Private[Key]
    row: Private[Row]
    own_key: str | None = strawberry.field(name="key")
    """The caller's own name for it, by which `ThreadBy` finds it; null when it was opened without one."""
    status: ThreadStatus  # type: ignore[valid-type]  # mypy takes an exposed enum for a variable
    """How far it has come."""
    created_at: datetime
    """When it was opened."""
    updated_at: datetime
    """When something last happened in it: a message, a delivery, a change of its status."""
    closed_at: datetime | None
    """When it was closed, by the database's clock; null while it is ACTIVE."""
    closed_reason: str | None
    """Why it was closed; null while it is ACTIVE, and when nobody has said."""

    @field
    async def participants(self, info: Info) -> list[LazyAgent]:
        """List the agents that have sent or been sent a message in it, at most 100, in the order of their coming."""
        found = (info.context.load(agents.by_keys, key) for key in self.row["participants"])
        return [graph.agents.Agent.of(row) for row in await asyncio.gather(*found)]

    @field
    async def budget(self, info: Info) -> Annotated["ThreadBudget", strawberry.lazy("graph.budgets")]:
        """Give its budget of tokens."""
        return graph.budgets.ThreadBudget.of(await info.context.load(budgets.by_ids, Scope.thread(self.key).id))

    @field
    async def messages(self, info: Info, first: First = None, after: After = None) -> Connection["Message"]:
        """List its messages in the order in which they were sent; for an agent's key those that it sent or was sent."""
        wanted = pages.asked("thread messages", messages.OLDEST, first=first, after=after)
        agent = info.context.viewer.agent
        page = await info.context.load(messages.of_threads, self.key, only=agent, window=wanted.window)
        return wanted.connection(page, Message.of, partial(self.count, agent))

    async def count(self, agent: Key | None) -> int:
        """Count its messages for a list of them: all of them are counted already."""
        total: int = self.row["messages"]
        return total if agent is None else await messages.count(agents=[agent], thread=self.key)

    @classmethod
    def of(cls, row: Row) -> "Thread":
        """Shape a stored thread."""
        return _thread(row)

    @classmethod
    async def find_node(cls, context: Context, key: str) -> "Thread | None":
        """Find one by its key."""
        row = await context.find(conversations.by_keys, key_of(key))
        return cls.of(row) if row and may_read(context, row["participants"]) else None


_thread = reader(Thread, own_key=lambda row: row["key"])


async def find(info: Info, thread: Key | None) -> Thread | None:
    """Find a thread for whoever asks; None where there is none to be read."""
    row = await info.context.find(conversations.by_keys, thread)
    return Thread.of(row) if row and may_read(info.context, row["participants"]) else None


@object_type
class Delivery:
    """How far a message has come on its way to its recipient."""

    status: DeliveryStatus  # type: ignore[valid-type]  # mypy takes an exposed enum for a variable
    """How far it has come. LEASED stays until the recipient answers, or until it is tried again."""
    attempts: int
    """How often it has been handed to its recipient."""
    delivered_at: datetime | None
    """When the recipient acknowledged it; null until then."""
    leased_until: datetime | None
    """Until when the recipient may acknowledge it before it is tried again; null when nobody has it."""
    error: str | None
    """Why the last try failed, or why it was given up or withdrawn; null when all is well."""


_delivery = reader(Delivery)


@object_type
class Message(Node):
    """What an agent, or a person, says to an agent."""

    readable_by: ClassVar[Permission] = readers

    key: Private[Key]
    row: Private[Row]
    sender_name: str
    """The name of the agent or person that sent it, as it was then; `system` for what the service says itself."""
    payload_type: str
    """Which of the recipient's payload types it is."""
    depth: int
    """How many messages stand before it in its chain of answers: 0 for one that answers none."""
    created_at: datetime
    """When it was sent, by the database's clock."""

    @field
    def payload(self) -> JSON:
        """Give what it says."""
        return as_any(orjson.loads(self.row["payload"]))

    @field
    def delivery(self) -> Delivery:
        """Say how far it has come."""
        return _delivery(self.row)

    @field
    async def thread(self, info: Info) -> Thread:
        """Give the conversation that it belongs to."""
        return Thread.of(await info.context.load(conversations.by_keys, self.row["thread"]))

    @field
    async def sender(self, info: Info) -> LazyAgent | None:
        """Give the agent that sent it; null when a person or the service did."""
        row = await info.context.find(agents.by_keys, self.row["sender"])
        return graph.agents.Agent.of(row) if row else None

    @field
    async def recipient(self, info: Info) -> LazyAgent:
        """Give the agent that it is for."""
        return graph.agents.Agent.of(await info.context.load(agents.by_keys, self.row["recipient"]))

    @field
    async def parent(self, info: Info) -> "Message | None":
        """Give the message that it answers; null when it answers none, or one that an agent's key may not read."""
        row = await info.context.find(messages.by_keys, self.row["parent"])
        return Message.of(row) if row and may_read(info.context, row["agents"]) else None

    @classmethod
    def of(cls, row: Row) -> "Message":
        """Shape a stored message."""
        return _message(row)

    @classmethod
    async def find_node(cls, context: Context, key: str) -> "Message | None":
        """Find one by its key."""
        row = await context.find(messages.by_keys, key_of(key))
        return cls.of(row) if row and may_read(context, row["agents"]) else None


_message = reader(Message)


# ---------------------------------------------------------------- what selects


@one_of
class ThreadBy:
    """Which thread: by its id, or by a name of your own, exactly one of them."""

    id: ID | None = UNSET
    """Its id; it must be there."""
    key: str | None = UNSET
    """Your own name for a conversation, 1 to 200 characters: opened when it is new."""

    def ref(self, path: str) -> conversations.Ref:
        """Give what names the thread. Raises `BadInput` for an id or a name that cannot be read."""
        if isinstance(self.id, str):
            return conversations.Ref(nodes.decode(self.id, "Thread", field=f"{path}.id"))
        if isinstance(self.key, str):
            return conversations.named(self.key, field=f"{path}.key")
        raise BadInput.at(path, "Give exactly one of `id` and `key`.")
