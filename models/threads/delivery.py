"""Messages are handed out, one of each thread and recipient at a time, and answered, tried again, or given up.

Each function is one step of a transaction, and refuses before it writes.
"""

import random
from collections import Counter
from collections.abc import Collection, Sequence
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
# So many messages are changed in one transaction: however long a queue is, it ends long before it may last no longer.
_PORTION: Final = 500
_DUE: Final = {"$expr": {"$lte": ["$due", "$$NOW"]}}
# What only a message that is not delivered yet has.
_OPEN_ONLY: Final = ["open", "head", "way", "due", "holder"]
_NO_ANSWER: Final = "No answer within the lease."
_KILLED: Final = "The thread was killed."

# ---------------------------------------------------------------- reads


async def waits(agent: Key, *, holder: Key, most: int) -> bool:
    """Whether a message waits for a subscriber of an inbox that holds fewer than `most`."""
    rows = database.collection(Message)
    if await rows.find_one({"recipient": agent, "head": True, "way": INBOX}, {"_id": 1}) is None:
        return False
    held = {"holder": holder, "status": DeliveryStatus.LEASED.value}
    return await rows.count_documents(held, limit=most) < most


async def due_for_post(*, busy: Collection[Key]) -> bool:
    """Whether a message is due to be posted to anybody but those who are `busy`."""
    return await database.collection(Message).find_one(_to_post(busy), {"_id": 1}) is not None


async def overdue() -> list[Key]:
    """Find the messages that something is to be done about by now; those first that have waited for longest."""
    rows = database.collection(Message).find({"way": TIMED, **_DUE}, {"_id": 1}).sort("due", ASCENDING).limit(_AT_ONCE)
    return [row["_id"] async for row in rows]


# ---------------------------------------------------------------- writes


async def hand_out(
    agent: Key | None, *, holder: Key, busy: Collection[Key], terms: Terms, session: Session
) -> Row | None:
    """Lease a message to `holder`: the first that waits in an agent's inbox, or for None one that is due to be posted.

    Gives None where there is none. No other holder gets it before the lease has ended.
    """
    if agent is None:
        where = _to_post(busy)
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
    if row is None:
        return None
    theirs = await activity.handed(row, session=session)
    if theirs["paused_at"] is not None:
        # The pause has not come to the whole of its queues yet.
        await _put_back(row, pause_ms=0, error=row["error"], lease=None, attempts=row["attempts"] - 1, session=session)
        return None
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
    """Do what is due for a message: end a lease that has run out, or a pause; withdraw more of its thread."""
    row = await database.collection(Message).find_one({"_id": message, "way": TIMED, **_DUE}, session=session)
    if row is None:
        return
    if row.get("head") is None:
        await _withdraw_more(row["thread"], session=session)
    elif row["status"] == DeliveryStatus.PENDING:
        await _put_back(row, pause_ms=0, error=row["error"], lease=row["lease"], session=session)
    elif row["attempts"] >= terms.attempts:
        error = f"{_NO_ANSWER} It was handed out {row['attempts']} times."
        await _finish(row, DeliveryStatus.FAILED, error=error, session=session)
    else:
        await _put_back(row, pause_ms=0, error=_NO_ANSWER, lease=None, session=session)


async def withdraw(thread: Key, *, session: Session) -> None:
    """Withdraw the messages of a thread that are not delivered; their leases are void.

    At once those that are or could be handed out, one for each who takes part; what waits behind them by portions.
    """
    heads = {"thread": thread, "open": True, "head": True}
    await _withdraw(await _found(heads, session=session), session=session)
    await _withdraw_more(thread, session=session)


async def hold(agent: Key, *, session: Session) -> None:
    """Pause an agent: nothing is handed to it. What it holds already may still be answered."""
    theirs = await activity.find(agent, session=session)
    if theirs is None or theirs["paused_at"] is None:
        await activity.set_paused(agent, paused=True, session=session)
        await _align(agent, session=session)
        await events.append(EventKind.AGENT, agents=[agent], status="PAUSED", session=session)


async def release(agent: Key, *, session: Session) -> None:
    """Resume an agent: what waits is handed out, in the order in which it was sent."""
    theirs = await activity.find(agent, session=session)
    if theirs is not None and theirs["paused_at"] is not None:
        await activity.set_paused(agent, paused=False, session=session)
        await _align(agent, session=session)
        await events.append(EventKind.AGENT, agents=[agent], status="RESUMED", session=session)


async def reroute(agents: Sequence[Key], *, session: Session) -> None:
    """Have messages find agents by their endpoint, or by their inbox, after that has changed."""
    await activity.unalign(agents, session=session)


async def align(agent: Key, *, session: Session) -> None:
    """Go on with the queues of an agent that do not stand as its pause and its endpoint ask."""
    found = await _align(agent, session=session)
    row = await messages.find(found[0], session=session) if found else None
    if row is not None and row.get("way") == INBOX:
        # Whoever waits at its inbox looks again.
        await _tell(row, session=session)


# ---------------------------------------------------------------- rules


def _to_post(busy: Collection[Key]) -> dict[str, Any]:
    others = {"recipient": {"$nin": list(busy)}} if busy else {}
    return {"way": POST, **_DUE, **others}


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


async def _put_back(
    row: Row, *, pause_ms: int, error: str | None, lease: Key | None, attempts: int | None = None, session: Session
) -> Row:
    """Put a message that nobody holds any more back at the head of its queue; `attempts`: where that changes too."""
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
        "attempts": row["attempts"] if attempts is None else attempts,
    }
    gone = ["holder", "way"]
    if theirs["paused_at"] is None:
        way = putting.way_of(await _agent(row["recipient"], session=session))
        change["way"] = TIMED if pause_ms and way == INBOX else way
        gone = ["holder"]
    await conversations.stirred(row["thread"], session=session)
    after = await database.change_and_read(
        database.collection(Message), {"_id": row["_id"]}, [{"$set": change}, {"$unset": gone}], session=session
    )
    await _tell(after, session=session)
    return after


async def _align(agent: Key, *, session: Session) -> Sequence[Key]:
    """Have a portion of its queues stand as they should; gives the messages that changed."""
    theirs = await activity.find(agent, session=session)
    if theirs is None or theirs["unaligned_at"] is None:
        return []
    paused = theirs["paused_at"] is not None
    way = None if paused else putting.way_of(await _agent(agent, session=session))
    others = [each for each in (None, INBOX, POST) if each != way]
    where = {"recipient": agent, "head": True, "way": {"$in": others}}
    keys = [row["_id"] for row in await _found(where, most=_PORTION, session=session)]
    if keys:
        later = {"$and": [way == INBOX, {"$gt": ["$due", "$$NOW"]}]}
        change: Row = {"$unset": "way"} if paused else {"$set": {"way": {"$cond": [later, TIMED, way]}}}
        await database.collection(Message).update_many({"_id": {"$in": keys}}, [change], session=session)
    if len(keys) < _PORTION:
        await activity.aligned(agent, session=session)
    return keys


async def _found(where: Row, *, most: int = 0, session: Session) -> Sequence[Row]:
    rows = database.collection(Message).find(where, {"recipient": 1, "status": 1}, session=session)
    return [row async for row in rows.limit(most)]


async def _withdraw_more(thread: Key, *, session: Session) -> None:
    found = await _found({"thread": thread, "open": True}, most=_PORTION + 1, session=session)
    await _withdraw(found[:_PORTION], session=session)
    for row in found[_PORTION:]:
        # Whoever looks for what is due goes on from here.
        more: list[Row] = [{"$set": {"way": TIMED, "due": "$$NOW"}}]
        await database.collection(Message).update_one({"_id": row["_id"]}, more, session=session)


async def _withdraw(found: Sequence[Row], *, session: Session) -> None:
    if not found:
        return
    change = _closed(DeliveryStatus.WITHDRAWN, error=_KILLED)
    await database.collection(Message).update_many(
        {"_id": {"$in": [row["_id"] for row in found]}}, change, session=session
    )
    count = Counter(row["recipient"] for row in found)
    leased = Counter(row["recipient"] for row in found if row["status"] == DeliveryStatus.LEASED)
    for agent in sorted(count):
        await activity.taken_back(agent, count=count[agent], leased=leased[agent], failed=None, session=session)


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
