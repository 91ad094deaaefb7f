"""Threads and messages: read them, send, deliver and answer them, stop them."""

from collections.abc import AsyncGenerator
from functools import partial
from typing import Annotated

import strawberry
from strawberry import ID

from auth.permissions import agents_and_operators, agents_themselves, operators, readers
from graph import agents as agent_types
from graph.agents import Agent, AgentBy
from graph.context import Info
from graph.language import nodes, pages
from graph.language.describe import object_type
from graph.language.guards import mutation, query, subscription
from graph.language.pages import After, Connection, First
from graph.threads import Message, Thread, ThreadStatus, may_read, own
from graph.threads.changing import (
    AcknowledgeMessageInput,
    AcknowledgeMessagePayload,
    CompleteThreadInput,
    CompleteThreadPayload,
    FailMessageInput,
    FailMessagePayload,
    InjectMessageInput,
    InjectMessagePayload,
    KillThreadInput,
    KillThreadPayload,
    PauseAgentInput,
    PauseAgentPayload,
    ResumeAgentInput,
    ResumeAgentPayload,
    SendMessageInput,
    SendMessagePayload,
)
from graph.threads.watching import InboxItem, ThreadUpdate, inbox_of, updates
from models.threads import conversations, messages


@object_type
class ThreadQueries:
    """What can be asked about threads."""

    @query(allow=readers)
    async def thread(
        self, info: Info, id: Annotated[ID, strawberry.argument(description="The thread's id.")]
    ) -> Thread | None:
        """Find one thread; null when there is none, or none that the agent of an API key takes part in."""
        row = await conversations.find(nodes.decode(id, "Thread"))
        return Thread.of(row) if row and may_read(info.context, row["participants"]) else None

    @query(allow=readers)
    async def threads(
        self,
        info: Info,
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
        """List threads, newest first; for an agent's key those that it takes part in."""
        wanted = pages.asked("threads", conversations.NEWEST, first=first, after=after)
        key = await agent_types.key_of(participant, field="participant") if participant else None
        taking_part = [*own(info.context), *([key] if key else [])]
        page = await conversations.page(status=status, participants=taking_part, window=wanted.window)
        return wanted.connection(page, Thread.of, partial(conversations.count, status=status, participants=taking_part))

    @query(allow=readers)
    async def messages(
        self,
        info: Info,
        agent: Annotated[
            AgentBy | None, strawberry.argument(description="Only those that this agent has sent or been sent.")
        ] = None,
        thread: Annotated[ID | None, strawberry.argument(description="Only those of the thread with this id.")] = None,
        first: First = None,
        after: After = None,
    ) -> Connection[Message]:
        """List messages of all threads, newest first; for an agent's key those that it sent or was sent."""
        wanted = pages.asked("messages", messages.NEWEST, first=first, after=after)
        key = await agent_types.key_of(agent, field="agent") if agent else None
        within = nodes.decode(thread, "Thread", field="thread") if thread else None
        agents = [*own(info.context), *([key] if key else [])]
        page = await messages.page(agents=agents, thread=within, window=wanted.window)
        return wanted.connection(page, Message.of, partial(messages.count, agents=agents, thread=within))


@object_type
class ThreadMutations:
    """How messages are sent and answered, agents paused, and threads ended."""

    @mutation(allow=operators)
    async def inject_message(self, info: Info, input: InjectMessageInput) -> InjectMessagePayload | None:
        """Send a message to an agent, as the person or program that you are. It is really delivered.

        It waits while the agent is paused. Retired agents (CONFLICT), closed threads (CONFLICT) and threads without
        tokens (BUDGET_EXHAUSTED) take none.
        """
        row = await info.context.services.messaging.send(await input.letter(info.context), now=info.context.now)
        return InjectMessagePayload(message=Message.of(row))

    @mutation(allow=agents_themselves)
    async def send_message(self, info: Info, input: SendMessageInput) -> SendMessagePayload | None:
        """Send a message to a peer, as the agent whose API key this is. Whoever is no peer is FORBIDDEN.

        Its depth is that of the message it answers, and one; past `MAX_MESSAGE_DEPTH` it is refused (CONFLICT).
        """
        row = await info.context.services.messaging.send(await input.letter(info.context), now=info.context.now)
        return SendMessagePayload(message=Message.of(row))

    @mutation(allow=agents_and_operators)
    async def acknowledge_message(self, info: Info, input: AcknowledgeMessageInput) -> AcknowledgeMessagePayload | None:
        """Say that a message was taken, by the lease it came with; the next one of its thread follows.

        An agent's key answers its own messages. A lease that has ended is a CONFLICT: the message comes again.
        """
        row = await info.context.services.messaging.acknowledge(
            nodes.decode(input.message, "Message", field="message"), lease=input.key(), agent=info.context.viewer.agent
        )
        return AcknowledgeMessagePayload(message=Message.of(row))

    @mutation(allow=agents_and_operators)
    async def fail_message(self, info: Info, input: FailMessageInput) -> FailMessagePayload | None:
        """Say that a message could not be taken: it comes again after a pause, until it is given up (FAILED).

        How often it comes is `MESSAGE_ATTEMPTS`. A lease that has ended is a CONFLICT.
        """
        row = await info.context.services.messaging.fail(
            nodes.decode(input.message, "Message", field="message"),
            lease=input.key(),
            agent=info.context.viewer.agent,
            error=input.error,
        )
        return FailMessagePayload(message=Message.of(row))

    @mutation(allow=operators)
    async def pause_agent(self, info: Info, input: PauseAgentInput) -> PauseAgentPayload | None:
        """Pause an agent, on every process at once: messages wait for it. What it holds may still be answered."""
        row = await info.context.services.messaging.pause(input.agent.ref("agent"))
        return PauseAgentPayload(agent=Agent.of(row))

    @mutation(allow=operators)
    async def resume_agent(self, info: Info, input: ResumeAgentInput) -> ResumeAgentPayload | None:
        """Resume an agent: what has waited is delivered, in order."""
        row = await info.context.services.messaging.resume(input.agent.ref("agent"))
        return ResumeAgentPayload(agent=Agent.of(row))

    @mutation(allow=operators)
    async def kill_thread(self, info: Info, input: KillThreadInput) -> KillThreadPayload | None:
        """Stop a thread, on every process at once, whatever its status.

        Leases are void, nothing can be sent or reserved in it any more. What is not delivered is withdrawn: none of it
        is handed out; where thousands of messages wait, the last are WITHDRAWN some seconds later.
        """
        row = await info.context.services.messaging.kill(
            nodes.decode(input.thread, "Thread", field="thread"), reason=input.reason
        )
        return KillThreadPayload(thread=Thread.of(row))

    @mutation(allow=agents_and_operators)
    async def complete_thread(self, info: Info, input: CompleteThreadInput) -> CompleteThreadPayload | None:
        """Close a thread that is done: what was sent is still delivered, nothing can be sent or reserved any more.

        An agent's key closes threads that it takes part in.
        """
        row = await info.context.services.messaging.complete(
            nodes.decode(input.thread, "Thread", field="thread"),
            reason=input.reason,
            failed=input.failed,
            agent=info.context.viewer.agent,
        )
        return CompleteThreadPayload(thread=Thread.of(row))


@object_type
class ThreadSubscriptions:
    """What can be watched of messages."""

    @subscription(allow=agents_and_operators)
    async def inbox(
        self,
        info: Info,
        agent: Annotated[AgentBy, strawberry.argument(description="Whose; an agent's key reads its own.")],
        max_unacknowledged: Annotated[
            int, strawberry.argument(description="Messages at a time without an answer, 1 to 100.")
        ] = 10,
    ) -> AsyncGenerator[InboxItem, None]:
        """Receive an agent's messages, each with a lease: answer by `acknowledgeMessage` or `failMessage` within it.

        Of one thread they come in the order in which they were sent, each when the one before is answered. A message
        comes at least once: again when its lease ends without an answer, with another lease. Of several subscribers
        each gets other messages. An agent with an endpoint gets none here.
        """
        key = await inbox_of(info.context, agent, most=max_unacknowledged)
        async for row in info.context.services.inboxes.items(key, most=max_unacknowledged):
            yield InboxItem.of(row)

    @subscription(allow=readers)
    async def thread_updates(
        self,
        info: Info,
        thread: Annotated[ID, strawberry.argument(description="The thread's id.")],
        after: Annotated[
            str | None, strawberry.argument(description="Begin after the update with this cursor, the stored first.")
        ] = None,
    ) -> AsyncGenerator[ThreadUpdate, None]:
        """Watch a thread: a snapshot of it first, then each change in the order in which it was stored.

        Keep the last `cursor` and pass it as `after` to go on after a break, without a snapshot; updates are kept for a
        day, and whoever was away for longer begins with a snapshot again. For an agent's key: of a thread that it takes
        part in, the messages that it sent or was sent.
        """
        async for update in updates(info.context, thread, after=after):
            yield update
