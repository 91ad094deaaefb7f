"""Messages between agents: sent, handed out, answered, paused and stopped; the one door for resolvers and workers."""

import asyncio
from collections.abc import Callable, Collection
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Annotated, Self

from pydantic import BaseModel

from models import agents, text
from models.errors import Conflict, NotFound
from models.store.database import Key, Row, Session
from models.store.steps import Steps
from models.threads import activity, conversations, delivery, sending
from models.threads.conversations import ThreadStatus
from models.threads.messages import Message
from models.threads.sending import Letter, Terms


class ReasonFields(BaseModel):
    """What people and agents say of why something failed, or was ended."""

    error: Annotated[str, text.Line(500)]
    reason: Annotated[str, text.Line(500)] | None = None


class Messaging:
    """Makes each change in one transaction, which it shares with what else changes at that moment."""

    def __init__(self, terms: Terms, *, stored: Callable[[], None]) -> None:
        """Take the terms, and what is called after each commit: `stored`."""
        self._terms = terms
        self._stored = stored
        self._steps = Steps(Message, stored=self._tell)
        self.stirred = asyncio.Event()
        """Set after each commit of this process: there may be something to deliver."""

    async def __aenter__(self) -> Self:
        await self._steps.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._steps.__aexit__(kind, error, trace)

    def _tell(self) -> None:
        self.stirred.set()
        self._stored()

    @property
    def lease_s(self) -> float:
        """How long a message may be held, in seconds."""
        return self._terms.lease_ms / 1000

    # ------------------------------------------------------------ messages

    async def send(self, letter: Letter, *, now: datetime) -> Row:
        """Send a message, and give it as stored; one that was sent before under its key as it is by now.

        Raises `BadInput`, `NotFound`, `Forbidden`, `Conflict` and `BudgetExhausted`.
        """
        checked = await sending.check(letter, now=now)
        if not isinstance(checked, sending.Checked):
            return checked
        return await self._steps.run(lambda session: sending.send(checked, terms=self._terms, session=session))

    async def hand_out(
        self, agent: Key | None, *, holder: Key, most: int = 1, busy: Collection[Key] = ()
    ) -> Row | None:
        """Lease the next message of an agent's inbox, or for None one that is due to be posted; None without any.

        None is posted to agents that are `busy`. An inbox gives `holder` none while it holds `most` without an answer.
        """
        # Looked for first: mostly there is nothing, and a transaction would be in the way of others.
        there_is = (
            await delivery.due_for_post(busy=busy)
            if agent is None
            else await delivery.waits(agent, holder=holder, most=most)
        )
        if not there_is:
            return None

        async def step(session: Session) -> Row | None:
            return await delivery.hand_out(agent, holder=holder, busy=busy, terms=self._terms, session=session)

        return await self._steps.run(step)

    async def acknowledge(self, message: Key, *, lease: Key, agent: Key | None) -> Row:
        """Note that a message was taken. Raises as `delivery.acknowledge`."""
        return await self._steps.run(
            lambda session: delivery.acknowledge(message, lease=lease, agent=agent, session=session)
        )

    async def fail(self, message: Key, *, lease: Key, agent: Key | None, error: str, for_good: bool = False) -> Row:
        """Note that a message could not be taken. Raises as `delivery.fail`, and `BadInput` for no reason."""
        said = text.validate(ReasonFields, {"error": error})["error"]

        async def step(session: Session) -> Row:
            return await delivery.fail(
                message, lease=lease, agent=agent, error=said, for_good=for_good, terms=self._terms, session=session
            )

        return await self._steps.run(step)

    async def sweep(self) -> int:
        """Do what is due for messages, and go on with queues that do not stand as they should; gives how many."""
        steps = [partial(self._expire, key) for key in await delivery.overdue()]
        steps += [partial(self._align, key) for key in await activity.unaligned()]
        await asyncio.gather(*(self._steps.run(step) for step in steps))
        return len(steps)

    @staticmethod
    async def _align(agent: Key, session: Session) -> None:
        await delivery.align(agent, session=session)

    async def _expire(self, message: Key, session: Session) -> None:
        await delivery.expire(message, terms=self._terms, session=session)

    # ------------------------------------------------------------ agents

    async def pause(self, ref: agents.Ref) -> Row:
        """Pause an agent, and give it; one that is paused stays so. Raises `NotFound`."""
        agent = await agents.require(ref, field="agent")
        await self._steps.run(lambda session: delivery.hold(agent["_id"], session=session))
        return agent

    async def resume(self, ref: agents.Ref) -> Row:
        """Resume an agent, and give it; one that is not paused stays so. Raises `NotFound`."""
        agent = await agents.require(ref, field="agent")

        async def step(session: Session) -> None:
            await delivery.release(agent["_id"], session=session)

        await self._steps.run(step)
        return agent

    # ------------------------------------------------------------ threads

    async def kill(self, thread: Key, *, reason: str | None) -> Row:
        """Stop a thread: what is not delivered is withdrawn, nothing more is taken. Raises `NotFound`."""
        said = text.validate(ReasonFields, {"reason": reason})["reason"]
        return await self._steps.run(partial(self._kill, thread, said))

    @staticmethod
    async def _kill(thread: Key, reason: str | None, session: Session) -> Row:
        row = await conversations.require(thread, field="thread", session=session)
        if row["status"] == ThreadStatus.KILLED:
            return row
        await delivery.withdraw(thread, session=session)
        await activity.answered_by_nobody(thread, session=session)
        return await conversations.close(row, ThreadStatus.KILLED, reason=reason, session=session)

    async def complete(self, thread: Key, *, reason: str | None, failed: bool, agent: Key | None) -> Row:
        """Close a thread that is done, or has `failed`: what was sent is still delivered, nothing more is taken.

        `agent`: who says so; it has to take part. Raises `NotFound`, and `Conflict` for one closed otherwise.
        """
        said = text.validate(ReasonFields, {"reason": reason})["reason"]
        status = ThreadStatus.FAILED if failed else ThreadStatus.COMPLETED

        async def step(session: Session) -> Row:
            row = await conversations.find(thread, session=session)
            if row is None or (agent is not None and agent not in row["participants"]):
                raise NotFound("There is no such thread for you.", field="thread")
            if row["status"] == status:
                return row
            if row["status"] not in conversations.GOING:
                raise Conflict(f"This thread is {row['status']} already.", field="thread")
            await activity.answered_by_nobody(thread, session=session)
            return await conversations.close(row, status, reason=said, session=session)

        return await self._steps.run(step)
