"""What is asked of messages, agents and threads, and what comes of it."""

import strawberry
from strawberry import ID

from graph.agents import Agent, AgentBy
from graph.context import Context
from graph.language import nodes
from graph.language.describe import input_type, object_type
from graph.language.scalars import JSON
from graph.threads import Message, Thread, ThreadBy
from models import agents, keys, users
from models.errors import BadInput
from models.store.database import Key
from models.threads.sending import Letter, Sender

# ---------------------------------------------------------------- injectMessage


@input_type
class InjectMessageInput:
    """A message of a person or a program to an agent."""

    to: AgentBy
    """The agent that it is for."""
    payload_type: str
    """One of the recipient's `payloadTypes`; any, 1 to 100 characters, where it declares none."""
    payload: JSON
    """What it says: fits the schema of its type, any object where there is none. At most 256,000 bytes, 40 levels."""
    thread: ThreadBy | None = None
    """The conversation that it belongs to; one is opened when this is left out."""
    idempotency_key: ID | None = None
    """A key of your own, 1 to 200 characters, the same for every try to send this message: it is sent once."""
    parent: ID | None = None
    """The message that it answers; it then stands one deeper than that."""

    async def letter(self, context: Context) -> Letter:
        """Write it as what is sent."""
        return _letter(self, await _person(context))


@object_type
class InjectMessagePayload:
    """The message."""

    message: Message
    """It as it is by now, where it was sent before."""


# ---------------------------------------------------------------- sendMessage


@input_type
class SendMessageInput:
    """A message of an agent to a peer."""

    from_: AgentBy | None = strawberry.field(name="from", default=None)
    """The agent that sends: that of the API key, which it is when this is left out."""
    to: AgentBy
    """The agent that it is for: one of the sender's `peers`."""
    payload_type: str
    """One of the recipient's `payloadTypes`; any, 1 to 100 characters, where it declares none."""
    payload: JSON
    """What it says: fits the schema of its type, any object where there is none. At most 256,000 bytes, 40 levels."""
    thread: ThreadBy | None = None
    """The conversation that it belongs to, of which the sender is a part; one is opened when this is left out."""
    idempotency_key: ID | None = None
    """A key of your own, 1 to 200 characters, the same for every try to send this message: it is sent once."""
    parent: ID | None = None
    """The message that it answers: one that you sent or were sent. When left out, the last that was handed to you in
    this thread, or else the one that you hold."""

    async def letter(self, context: Context) -> Letter:
        """Write it as what is sent. Raises `BadInput` for a sender that is not the agent of the key."""
        sender = await _agent(context)
        if self.from_ is not None and self.from_.ref("from") not in {sender.agent, sender.name}:
            raise BadInput.at("from", "An agent sends as itself: leave `from` out.")
        return _letter(self, sender)


@object_type
class SendMessagePayload:
    """The message."""

    message: Message
    """It as it is by now, where it was sent before."""


async def _person(context: Context) -> Sender:
    viewer = context.viewer
    row = await users.find(viewer.user) if viewer.user is not None else None
    if row is None and viewer.api_key is not None:
        row = await keys.find(viewer.api_key)
    return Sender(agent=None, name=row["name"] if row else "somebody", scope=viewer.scope)


async def _agent(context: Context) -> Sender:
    agent = context.viewer.agent
    row = await context.find(agents.by_keys, agent)
    return Sender(agent=agent, name=row["name"] if row else "", scope=f"agent:{agent}")


def _letter(given: InjectMessageInput | SendMessageInput, sender: Sender) -> Letter:
    return Letter(
        sender=sender,
        to=given.to.ref("to"),
        thread=given.thread.ref("thread") if given.thread else None,
        payload_type=given.payload_type,
        payload=given.payload,
        idempotency_key=given.idempotency_key,
        parent=nodes.decode(given.parent, "Message", field="parent") if given.parent else None,
    )


# ---------------------------------------------------------------- acknowledgeMessage


@input_type
class AcknowledgeMessageInput:
    """Which message was taken."""

    message: ID
    """The message's id."""
    lease: ID
    """The lease that it came with."""

    def key(self) -> Key:
        """Read the lease. Raises `BadInput` for what is none."""
        return nodes.key_of(self.lease, field="lease")


@object_type
class AcknowledgeMessagePayload:
    """The message, DELIVERED."""

    message: Message
    """The message."""


# ---------------------------------------------------------------- failMessage


@input_type
class FailMessageInput:
    """Which message could not be taken."""

    message: ID
    """The message's id."""
    lease: ID
    """The lease that it came with."""
    error: str
    """Why, for operators to read: 1 to 500 characters."""

    def key(self) -> Key:
        """Read the lease. Raises `BadInput` for what is none."""
        return nodes.key_of(self.lease, field="lease")


@object_type
class FailMessagePayload:
    """The message, PENDING again or FAILED."""

    message: Message
    """The message."""


# ---------------------------------------------------------------- pauseAgent, resumeAgent


@input_type
class PauseAgentInput:
    """Which agent to pause."""

    agent: AgentBy
    """The agent."""


@object_type
class PauseAgentPayload:
    """The agent is paused."""

    agent: Agent
    """The agent."""


@input_type
class ResumeAgentInput:
    """Which agent to resume."""

    agent: AgentBy
    """The agent."""


@object_type
class ResumeAgentPayload:
    """The agent is paused no longer."""

    agent: Agent
    """The agent."""


# ---------------------------------------------------------------- killThread, completeThread


@input_type
class KillThreadInput:
    """Which thread to stop."""

    thread: ID
    """The thread's id."""
    reason: str | None = None
    """Why, 1 to 500 characters; shown as its `closedReason`."""


@object_type
class KillThreadPayload:
    """The thread is KILLED."""

    thread: Thread
    """The thread; who killed it first, and why, stays."""


@input_type
class CompleteThreadInput:
    """Which thread is done."""

    thread: ID
    """The thread's id."""
    reason: str | None = None
    """Why, 1 to 500 characters; shown as its `closedReason`."""
    failed: bool = False
    """Whether it ended by an error: it is then FAILED instead of COMPLETED."""


@object_type
class CompleteThreadPayload:
    """The thread is COMPLETED or FAILED."""

    thread: Thread
    """The thread."""
