"""What subscribers to the organism are told: how it is to begin with, and whatever happens in it."""

import asyncio
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from strawberry import Private

from graph.agents import Agent
from graph.context import Context, Info
from graph.language import pages
from graph.language.describe import field, object_type
from graph.language.enums import expose
from graph.organism import Organism
from graph.threads import Message, Thread
from models import agents
from models.enums import DescribedEnum
from models.errors import BadInput
from models.organism import applying
from models.store.database import Key, Row
from models.store.pages import Order
from models.threads import conversations, events, messages
from models.threads.conversations import ThreadStatus
from models.threads.events import ControlEvent


class OrganismEventType(DescribedEnum):
    """What an event of the organism is about; more may follow."""

    SNAPSHOT = "SNAPSHOT", "How everything is to begin with."
    AGENT = "AGENT", "An agent was paused or resumed."
    MESSAGE = "MESSAGE", "A message was sent, or its delivery has changed, and so may the state of its agents."
    THREAD = "THREAD", "A thread was opened, or its status has changed."
    RELOAD = "RELOAD", "A file that declares something else was applied to the organism."


expose(OrganismEventType)


@dataclass(frozen=True, slots=True)
class Watched:
    """What a subscriber wants to hear of; None where it does not matter."""

    agents: Collection[Key] | None
    threads: Collection[Key] | None
    types: Collection[str] | None

    def concerns(self, event: Row) -> bool:
        """Whether an event is among it."""
        return (
            (self.types is None or event["kind"] in self.types)
            and (self.threads is None or event["thread"] in self.threads)
            and (self.agents is None or any(each in self.agents for each in event["agents"]))
        )


@object_type
class OrganismEvent:
    """Something that has happened in the organism, or the snapshot before all that."""

    row: Private[Row]
    cursor: str
    """Its place among all events, to go on after it."""
    type: OrganismEventType
    """What it is about."""
    status: str | None
    """What it came to: the status of the thread or of the delivery, PAUSED or RESUMED; null for the others."""
    at: datetime
    """When it was stored; for a snapshot, when it was read."""

    @field
    async def agents(self, info: Info) -> list[Agent]:
        """List the agents that it concerns, as they are when this is told.

        For a snapshot those that are watched, or all of the organism; at most 500.
        """
        found = await asyncio.gather(*(info.context.find(agents.by_keys, each) for each in self.row["agents"]))
        return [Agent.of(row) for row in found if row]

    @field
    async def thread(self, info: Info) -> Thread | None:
        """Give the thread as it is when this is told; null unless it is about one, or about a message."""
        row = await info.context.find(conversations.by_keys, self.row["thread"])
        return Thread.of(row) if row else None

    @field
    async def message(self, info: Info) -> Message | None:
        """Give the message as it is when this is told; null unless it is about one."""
        row = await info.context.find(messages.by_keys, self.row["message"])
        return Message.of(row) if row else None

    @field
    async def threads(self, info: Info) -> list[Thread]:
        """List, for a snapshot, the threads that are watched; where none are named, the newest 100 that are ACTIVE.

        Of these, where agents are named, those that one of them takes part in.
        """
        keys = self.row.get("threads", ())
        found = await asyncio.gather(*(info.context.find(conversations.by_keys, each) for each in keys))
        return [Thread.of(row) for row in found if row]

    @field
    async def organism(self) -> Organism | None:
        """Give the organism as it is when this is told, for a snapshot and a RELOAD; null for the others."""
        told = self.type in {OrganismEventType.SNAPSHOT, OrganismEventType.RELOAD}
        return Organism(row=await applying.find()) if told else None


_ORDER: Final = Order("_id")
_SCOPE: Final = pages.asked("organism events", _ORDER).scope
_MOST_THREADS: Final = 100


async def happening(context: Context, watched: Watched, *, after: str | None) -> AsyncIterator[OrganismEvent]:
    """Give what happens, from a cursor on, or from a snapshot. Raises `BadInput`."""
    start = _number(after) if after is not None else None
    # The number first: what changes after it is told, whether or not the snapshot has it already.
    now = await events.last()
    if start is None or start > now or not await events.reach_back_to(start):
        start = now
        yield OrganismEvent(
            row=await _snapshot(watched),
            cursor=_cursor(now),
            type=OrganismEventType.SNAPSHOT,
            status=None,
            at=context.now,
        )
    async for event in context.services.live.follow(ControlEvent, after=start, where=watched.concerns):
        yield OrganismEvent(
            row=event,
            cursor=_cursor(event["_id"]),
            type=OrganismEventType[event["kind"]],
            status=event["status"],
            at=event["at"],
        )


async def _snapshot(watched: Watched) -> Row:
    members = watched.agents
    if members is None:
        organism = await applying.find()
        members = organism["members"] if organism else []
    threads = watched.threads
    if threads is None:
        newest = pages.asked("snapshot", conversations.NEWEST, first=_MOST_THREADS).window
        page = await conversations.page(status=ThreadStatus.ACTIVE, participants=(), window=newest)
        threads = [row["_id"] for row in page.rows if _takes_part(row, watched.agents)]
    return {"agents": members, "threads": threads, "thread": None, "message": None}


def _takes_part(thread: Row, agents: Collection[Key] | None) -> bool:
    return agents is None or any(each in agents for each in thread["participants"])


def _cursor(number: int) -> str:
    return pages.encode(_SCOPE, (number, number))


def _number(text: str) -> int:
    try:
        found = pages.decode(_SCOPE, text)[1]
    except ValueError:
        found = None
    if not isinstance(found, int) or isinstance(found, bool):
        raise BadInput.at("after", "`after` is no cursor of an event. Take it from its `cursor`.")
    return found
