"""Messages are handed out, one of each thread and recipient at a time, and answered, tried again, or given up.

Each function is one step of a transaction, and refuses before it writes.
"""

import random
from typing import Any, Final

from models import agents
from models.errors import Conflict, NotFound
from models.store import database
from models.store.database import ASCENDING, Key, ReturnDocument, Row, Session
from models.store.outbox import DeliveryStatus
from models.threads import activity, conversations, events, messages, putting
from models.threads.events import EventKind
from models.threads.messages import INBOX, POST, TIMED, Message
from models.threads.sending import Terms

_LONGEST_PAUSE_MS: Final = 60_000
_AT_ONCE: Final = 200
_DUE: Final = {"$expr": {"$lte": ["$due", "$$NOW"]}}
# What only a message that is not delivered yet has.
_OPEN_ONLY: Final = ["open", "head", "way", "due", "holder"]
_NO_ANSWER: Final = "No answer within the lease."

# ---------------------------------------------------------------- reads


async def waits(agent: Key, *, holder: Key, most: int) -> bool:
    """Whether a message waits for a subscriber of an inbox that holds fewer than `most`."""
    rows = database.collection(Message)
    if await rows.find_one({"recipient": agent, "head": True, "way": INBOX}, {"_id": 1}) is None:
        return False
    held = {"recipient": agent, "head": True, "holder": holder, "status": DeliveryStatus.LEASED.value}
    return await rows.count_documents(held, limit=most) < most


async def due_for_post() -> bool:
    """Whether a message is due to be posted."""
    return await database.collection(Message).find_one({"way": POST, **_DUE}, {"_id": 1}) is not None


async def overdue() -> list[Key]:
    """Find the messages whose lease has run out, or whose pause is over; those first that have been so for longest."""
    rows = database.collection(Message).find({"way": TIMED, **_DUE}, {"_id": 1}).sort("due", ASCENDING).limit(_AT_ONCE)
    return [row["_id"] async for row in rows]


# ---------------------------------------------------------------- writes


async def hand_out(agent: Key | None, *, holder: Key, terms: Terms, session: Session) -> Row | None:
    """Lease a message to `holder`: the first that waits in an agent's inbox, or for None one that is due to be posted.

    Gives None where there is none. No other holder gets it before the lease has ended.
    """
    if agent is None:
        where: dict[str, Any] = {"way": POST, **_DUE}
        first = "due"
    else:
        where = {"recipient": agent, "head": True, "way": INBOX}
        first = "number"
    until = {"$add": ["$$NOW", terms.lease_ms]}
    leased: list[Row] = [
        {
            "$set": {
                "status": DeliveryStatus.LEASED.value,
                "attempts": {"$add": ["$attempts", 1]},
                "lease": Key(),
                "leased_until": until,
                "due": until,
                "way": TIMED,
                "holder": holder,
            }
        }
    ]
    row = await database.collection(Message).find_one_and_update(
        where, leased, sort=[(first, ASCENDING)], return_document=ReturnDocument.AFTER, session=session
    )
    if row is not None:
        await activity.handed(row, session=session)
        await conversations.handed(row, session=session)
        await _tell(row, session=session)
    return row


async def acknowledge(message: Key, *, lease: Key, agent: Key | None, session: Session) -> Row:
    """Note that a message was taken by who holds its lease; a second time changes nothing.

    `agent`: whose key says so; None for an operator. Raises `NotFound`, and `Conflict` when the lease has ended.
    """
    row = await _require(message, agent, session=session)
    if row["status"] == DeliveryStatus.DELIVERED and row["lease"] == lease:
        return row
    _require_lease(row, lease)
    return await _finish(row, DeliveryStatus.DELIVERED, error=None, session=session)


async def fail(
    message: Key,
    *,
    lease: Key,
    agent: Key | None,
    error: str,
    for_good: bool = False,
    terms: Terms,
    session: Session,
) -> Row:
    """Note that who holds the lease could not take the message: it is tried again after a pause, or given up.

    `for_good`: trying again is of no use. Raises as `acknowledge`.
    """
    row = await _require(message, agent, session=session)
    said_before = row["status"] in {DeliveryStatus.PENDING, DeliveryStatus.FAILED}
    if said_before and row["lease"] == lease:
        return row
    _require_lease(row, lease)
    if for_good or row["attempts"] >= terms.attempts:
        return await _finish(row, DeliveryStatus.FAILED, error=error, session=session)
    pause = min(terms.pause_ms * 2 ** (row["attempts"] - 1), _LONGEST_PAUSE_MS)
    # It varies by half, so that what failed together does not come back together.
    spread = round(pause * random.uniform(0.5, 1))  # noqa: S311  # spreads tries, guards nothing
    return await _put_back(row, pause_ms=spread, error=error, lease=lease, session=session)


async def expire(message: Key, *, terms: Terms, session: Session) -> None:
    """Do what is due for a message: end a lease that has run out, or end the pause after a failure."""
    row = await database.collection(Message).find_one({"_id": message, "way": TIMED, **_DUE}, session=session)
    if row is None:
        return
    if row["status"] == DeliveryStatus.PENDING:
        await _put_back(row, pause_ms=0, error=row["error"], lease=row["lease"], session=session)
    elif row["attempts"] >= terms.attempts:
        error = f"{_NO_ANSWER} It was handed out {row['attempts']} times."
        await _finish(row, DeliveryStatus.FAILED, error=error, session=session)
    else:
        await _put_back(row, pause_ms=0, error=_NO_ANSWER, lease=None, session=session)


async def withdraw(thread: Key, *, reason: str, session: Session) -> None:
    """Withdraw all messages of a thread that are not delivered; their leases are void."""
    where = {"thread": thread, "open": True}
    leased = {"$sum": {"$cond": [{"$eq": ["$status", DeliveryStatus.LEASED.value]}, 1, 0]}}
    by_recipient: list[Row] = [
        {"$match": where},
        {"$group": {"_id": "$recipient", "count": {"$sum": 1}, "leased": leased}},
        {"$sort": {"_id": 1}},
    ]
    found = await database.aggregate(Message, by_recipient, session=session)
    await database.collection(Message).update_many(
        where, _closed(DeliveryStatus.WITHDRAWN, error=reason), session=session
    )
    for each in found:
        await activity.taken_back(each["_id"], count=each["count"], leased=each["leased"], failed=None, session=session)


async def hold(agent: Key, *, session: Session) -> None:
    """Pause an agent: nothing is handed to it. What it holds already may still be answered."""
    theirs = await activity.find(agent, session=session)
    if theirs is None or theirs["paused_at"] is None:
        await activity.set_paused(agent, paused=True, session=session)
        await database.collection(Message).update_many(
            {"recipient": agent, "head": True}, {"$unset": {"way": ""}}, session=session
        )
        await events.append(EventKind.AGENT, agents=[agent], status="PAUSED", session=session)


async def release(agent: Row, *, session: Session) -> None:
    """Resume an agent: what waits is handed out, in the order in which it was sent."""
    theirs = await activity.find(agent["_id"], session=session)
    if theirs is not None and theirs["paused_at"] is not None:
        await activity.set_paused(agent["_id"], paused=False, session=session)
        await _route(agent, session=session)
        await events.append(EventKind.AGENT, agents=[agent["_id"]], status="RESUMED", session=session)


async def reroute(agent: Row, *, session: Session) -> None:
    """Have messages find an agent by its endpoint, or by its inbox, after that has changed."""
    theirs = await activity.find(agent["_id"], session=session)
    if theirs is not None and theirs["paused_at"] is None:
        await _route(agent, session=session)


# ---------------------------------------------------------------- rules


async def _require(message: Key, agent: Key | None, *, session: Session) -> Row:
    row = await messages.find(message, session=session)
    if row is None or (agent is not None and row["recipient"] != agent):
        raise NotFound("There is no such message for you.", field="message")
    return row


def _require_lease(row: Row, lease: Key) -> None:
    if row["status"] != DeliveryStatus.LEASED or row["lease"] != lease:
        raise Conflict(
            f"This lease has ended, and the message is {row['status']}. Answer within the lease, by the one it came "
            "with last.",
            field="lease",
        )


async def _finish(row: Row, status: DeliveryStatus, *, error: str | None, session: Session) -> Row:
    """End a delivery that was leased, and let the next message of its queue come to the head."""
    rows, recipient = database.collection(Message), row["recipient"]
    after = await database.change_and_read(rows, {"_id": row["_id"]}, _closed(status, error=error), session=session)
    await conversations.stirred(row["thread"], session=session)
    theirs = await activity.taken_back(
        recipient, count=1, leased=1, failed=status is DeliveryStatus.FAILED, session=session
    )
    if status is DeliveryStatus.FAILED and row["sender"] is not None:
        await activity.unanswered(row["sender"], message=row["_id"], session=session)
    queue = {"thread": row["thread"], "recipient": recipient, "open": True}
    following = await rows.find_one(queue, {"_id": 1}, sort=[("number", ASCENDING)], session=session)
    if following is not None:
        change: list[Row] = [{"$set": putting.to_the_head(await _agent(recipient, session=session), theirs)}]
        await rows.update_one({"_id": following["_id"]}, change, session=session)
    await _tell(after, session=session)
    return after


async def _put_back(row: Row, *, pause_ms: int, error: str | None, lease: Key | None, session: Session) -> Row:
    """Put a message that nobody holds any more back at the head of its queue."""
    theirs = await activity.taken_back(
        row["recipient"],
        count=0,
        leased=int(row["status"] == DeliveryStatus.LEASED),
        failed=None,
        session=session,
    )
    change: dict[str, Any] = {
        "status": DeliveryStatus.PENDING.value,
        "due": {"$add": ["$$NOW", pause_ms]},
        "leased_until": None,
        "lease": lease,
        "error": {"$literal": error},
    }
    if theirs["paused_at"] is None:
        way = putting.way_of(await _agent(row["recipient"], session=session))
        change["way"] = TIMED if pause_ms and way == INBOX else way
    await conversations.stirred(row["thread"], session=session)
    after = await database.change_and_read(
        database.collection(Message), {"_id": row["_id"]}, [{"$set": change}, {"$unset": "holder"}], session=session
    )
    await _tell(after, session=session)
    return after


async def _route(agent: Row, *, session: Session) -> None:
    way = putting.way_of(agent)
    is_held = {"$eq": ["$status", DeliveryStatus.LEASED.value]}
    waits = is_held if way == POST else {"$or": [is_held, {"$gt": ["$due", "$$NOW"]}]}
    change: list[Row] = [{"$set": {"way": {"$cond": [waits, TIMED, way]}}}]
    await database.collection(Message).update_many({"recipient": agent["_id"], "head": True}, change, session=session)


async def _agent(agent: Key, *, session: Session) -> Row:
    # A deleted one too: its messages are still there.
    found = await agents.by_keys([agent], session=session)
    return found[agent]


async def _tell(row: Row, *, session: Session) -> None:
    await events.append(
        EventKind.MESSAGE,
        thread=row["thread"],
        message=row["_id"],
        agents=row["agents"],
        status=row["status"],
        session=session,
    )


def _closed(status: DeliveryStatus, *, error: str | None) -> list[Row]:
    delivered = "$$NOW" if status is DeliveryStatus.DELIVERED else None
    change = {"status": status.value, "delivered_at": delivered, "leased_until": None, "error": {"$literal": error}}
    return [{"$set": change}, {"$unset": _OPEN_ONLY}]
