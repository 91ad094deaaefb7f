"""Threads and messages: read them."""

from functools import partial
from typing import Annotated

import strawberry
from strawberry import ID

from auth.permissions import readers
from graph import agents as agent_types
from graph.agents import AgentBy
from graph.language import nodes, pages
from graph.language.describe import object_type
from graph.language.guards import query
from graph.language.pages import After, Connection, First
from graph.threads import Message, Thread, ThreadStatus
from models.threads import conversations, messages


@object_type
class ThreadQueries:
    """What can be asked about threads."""

    @query(allow=readers)
    async def thread(self, id: Annotated[ID, strawberry.argument(description="The thread's id.")]) -> Thread | None:
        """Find one thread; null when there is none."""
        row = await conversations.find(nodes.decode(id, "Thread"))
        return Thread.of(row) if row else None

    @query(allow=readers)
    async def threads(
        self,
        status: Annotated[
            ThreadStatus | None,  # type: ignore[valid-type]  # mypy takes an exposed enum for a variable
            strawberry.argument(description="Only those that have come so far."),
        ] = None,
        participant: Annotated[
            AgentBy | None, strawberry.argument(description="Only those that this agent takes part in.")
        ] = None,
        first: First = None,
        after: After = None,
    ) -> Connection[Thread]:
        """List threads, newest first."""
        wanted = pages.asked("threads", conversations.NEWEST, first=first, after=after)
        key = await agent_types.key_of(participant, field="participant") if participant else None
        taking_part = [key] if key else []
        page = await conversations.page(status=status, participants=taking_part, window=wanted.window)
        return wanted.connection(page, Thread.of, partial(conversations.count, status=status, participants=taking_part))

    @query(allow=readers)
    async def messages(
        self,
        agent: Annotated[
            AgentBy | None, strawberry.argument(description="Only those that this agent has sent or been sent.")
        ] = None,
        thread: Annotated[ID | None, strawberry.argument(description="Only those of the thread with this id.")] = None,
        first: First = None,
        after: After = None,
    ) -> Connection[Message]:
        """List messages of all threads, newest first."""
        wanted = pages.asked("messages", messages.NEWEST, first=first, after=after)
        key = await agent_types.key_of(agent, field="agent") if agent else None
        within = nodes.decode(thread, "Thread", field="thread") if thread else None
        agents = [key] if key else []
        page = await messages.page(agents=agents, thread=within, window=wanted.window)
        return wanted.connection(page, Message.of, partial(messages.count, agents=agents, thread=within))
