"""What each agent is doing, kept as its messages come and go: its state, its queue, whom it waits for, the pause."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar, Final

from models.enums import DescribedEnum
from models.store import database
from models.store.database import ASCENDING, IndexModel, Key, Row, Session, Stored, UpdateOne


class AgentState(DescribedEnum):
    """What an agent is doing."""

    IDLE = "IDLE", "Nothing: no message is being handled, and no answer awaited."
    RUNNING = "RUNNING", "Handles a message that was handed to it."
    WAITING = "WAITING", "Has sent a message to a peer, and no answer has come yet."
    PAUSED = "PAUSED", "An operator has paused it: messages wait for it."
    ERROR = "ERROR", "The last message to it could not be delivered and was given up."


class AgentActivity(Stored):
    """One agent's activity; its key is the agent's. Changed in the transaction of each message.

    `queued`: messages that are not delivered yet, `leased` of which are being handled; `messages`: all that it has sent
    or been sent; `awaits`: from whom, in which thread, no answer to its last message has come yet, the latest hundred;
    `unaligned_at`: since when its queues may not stand as its pause and its endpoint ask.
    """

    queued: int = 0
    leased: int = 0
    messages: int = 0
    last_activity_at: datetime | None = None
    current_thread: Key | None = None
    current_message: Key | None = None
    paused_at: datetime | None = None
    failed: bool = False
    awaits: list[dict[str, Key]] = []
    unaligned_at: datetime | None = None

    class Settings:
        """Where it is stored."""

        name = "agent_activity"
        indexes: ClassVar[list[IndexModel]] = [
            IndexModel([("awaits.thread", ASCENDING)], name="awaited in"),
            IndexModel(
                [("unaligned_at", ASCENDING)],
                name="unaligned",
                partialFilterExpression={"unaligned_at": {"$type": "date"}},
            ),
        ]


_MOST_AWAITED: Final = 100
_AT_ONCE: Final = 50

# ---------------------------------------------------------------- reads


async def by_agents(agents: Sequence[Key]) -> Mapping[Key, Row]:
    """Read the activity of many agents; those that had none yet are left out."""
    return {row["_id"]: row async for row in database.collection(AgentActivity).find({"_id": {"$in": list(agents)}})}


async def find(agent: Key, *, session: Session) -> Row | None:
    """Read the activity of one agent."""
    return await database.collection(AgentActivity).find_one({"_id": agent}, session=session)


async def unaligned() -> Sequence[Key]:
    """Find agents whose queues may not stand as they should; those first that have been so for longest."""
    rows = database.collection(AgentActivity).find({"unaligned_at": {"$type": "date"}}, {"_id": 1})
    return [row["_id"] async for row in rows.sort("unaligned_at", ASCENDING).limit(_AT_ONCE)]


# ---------------------------------------------------------------- writes


async def sent(agent: Key, *, message: Key, awaited: Key | None, thread: Key, session: Session) -> None:
    """Note that an agent has sent a message; `awaited`: who is to answer it, None for nobody."""
    changes: dict[str, Any] = {"messages": _more("messages", 1), "last_activity_at": "$$NOW"}
    if awaited is not None:
        pair = {"thread": thread, "peer": awaited}
        latest = {"$concatArrays": [_others(pair), [{**pair, "message": message}]]}
        changes["awaits"] = {"$slice": [latest, -_MOST_AWAITED]}
    await _change(agent, changes, session)


async def received(agent: Key, *, sender: Key | None, thread: Key, counted: bool, session: Session) -> Row:
    """Note that a message waits for an agent; gives its activity. `counted`: its sending was not counted for it yet."""
    changes: dict[str, Any] = {"queued": _more("queued", 1), "messages": _more("messages", int(counted))}
    if sender is not None and sender != agent:
        changes["awaits"] = _others({"thread": thread, "peer": sender})
    return await _change(agent, changes, session)


async def handed(message: Row, *, session: Session) -> Row:
    """Note that a message was handed to its recipient; gives its activity."""
    changes = {
        "leased": _more("leased", 1),
        "last_activity_at": "$$NOW",
        "current_thread": message["thread"],
        "current_message": message["_id"],
    }
    return await _change(message["recipient"], changes, session)


async def taken_back(agent: Key, *, count: int, leased: int, failed: bool | None, session: Session) -> Row:
    """Note that `count` messages need no delivery any more, and that `leased` leases have ended; gives its activity.

    `failed`: whether the last one was given up; None leaves that as it was.
    """
    is_last = {"$lte": ["$leased", leased]}
    changes: dict[str, Any] = {
        "queued": _more("queued", -count),
        "leased": _more("leased", -leased),
        "current_thread": {"$cond": [is_last, None, "$current_thread"]},
        "current_message": {"$cond": [is_last, None, "$current_message"]},
    }
    if failed is not None:
        changes |= {"failed": failed, "last_activity_at": "$$NOW"}
    return await _change(agent, changes, session)


async def answered_by_nobody(thread: Key, *, session: Session) -> None:
    """Have nobody wait for an answer in a thread any more."""
    await database.collection(AgentActivity).update_many(
        {"awaits.thread": thread}, {"$pull": {"awaits": {"thread": thread}}}, session=session
    )


async def unanswered(agent: Key, *, message: Key, session: Session) -> None:
    """Have an agent wait no longer for the answer to a message that could not be delivered."""
    await database.collection(AgentActivity).update_one(
        {"_id": agent}, {"$pull": {"awaits": {"message": message}}}, session=session
    )


async def set_paused(agent: Key, *, paused: bool, session: Session) -> None:
    """Note that an agent is paused, since when it was first, or that it is no longer."""
    paused_at = {"$ifNull": ["$paused_at", "$$NOW"]} if paused else None
    await _change(agent, {"paused_at": paused_at, "unaligned_at": "$$NOW"}, session)


async def unalign(agents: Sequence[Key], *, session: Session) -> None:
    """Note that their queues may not stand as they should; whoever puts something into one just then tries again."""
    change = [*_born(), {"$set": {"unaligned_at": "$$NOW"}}]
    writes = [UpdateOne({"_id": agent}, change, upsert=True) for agent in agents]
    if writes:
        await database.collection(AgentActivity).bulk_write(writes, ordered=False, session=session)


async def aligned(agent: Key, *, session: Session) -> None:
    """Note that its queues stand as they should."""
    await _change(agent, {"unaligned_at": None}, session)


# ---------------------------------------------------------------- rules


def state(activity: Row | None) -> AgentState:
    """Say what an agent is doing; None for one that no message has ever reached or left."""
    if activity is None:
        return AgentState.IDLE
    if activity["paused_at"] is not None:
        return AgentState.PAUSED
    if activity["leased"]:
        return AgentState.RUNNING
    if activity["failed"]:
        return AgentState.ERROR
    return AgentState.WAITING if activity["awaits"] else AgentState.IDLE


async def _change(agent: Key, changes: Mapping[str, Any], session: Session) -> Row:
    return await database.change_and_read(
        database.collection(AgentActivity), {"_id": agent}, [*_born(), {"$set": changes}], upsert=True, session=session
    )


def _born() -> list[Row]:
    fields = AgentActivity.model_construct().model_dump(exclude={"id", "revision_id"})
    return [{"$set": {name: {"$ifNull": [f"${name}", value]} for name, value in fields.items()}}]


def _more(figure: str, count: int) -> Mapping[str, Any]:
    return {"$add": [f"${figure}", count]}


def _others(pair: Mapping[str, Key]) -> Mapping[str, Any]:
    same = [{"$eq": [f"$$this.{name}", value]} for name, value in pair.items()]
    return {"$filter": {"input": "$awaits", "cond": {"$not": [{"$and": same}]}}}
