"""What may be sent, by whom, to whom, and in which thread."""

import asyncio
import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final

import orjson
from pydantic import BaseModel

from models import agents, payloads, text
from models.agents import declared
from models.errors import BadInput, Conflict, Fault, Forbidden, NotFound
from models.store import database
from models.store.database import Key, Row, Session
from models.threads import activity, conversations, messages, putting
from models.threads.conversations import MOST_PARTICIPANTS, Ref
from models.threads.messages import Message
from models.threads.putting import Draft

MOST_BYTES: Final = 256_000
"""The most bytes that a payload may have as JSON."""
MOST_LEVELS: Final = 40
"""The most levels that a payload may be deep."""
_LONGEST_PLACE: Final = 300
_NO_JSON: Final = "A payload is JSON: whole numbers have at most 64 bits, others are finite, and Unicode is not broken."


class MessageFields(BaseModel):
    """What is written about a message."""

    payload_type: Annotated[str, text.Line(100)]
    idempotency_key: Annotated[str, text.Line(200)] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How messages are sent and delivered, as the settings have it.

    `depth`: how many may stand before one in its chain of answers; `thread_tokens`: the budget of a thread that a
    message opens. One may be held for `lease_ms`, and is handed out `attempts` times; `pause_ms` pass after the first
    failure, and twice as long after each that follows, a minute at most.
    """

    depth: int = 32
    thread_tokens: int = 100_000
    lease_ms: int = 30_000
    attempts: int = 5
    pause_ms: int = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """Who sends: an agent, or somebody else by name. `scope` names them among all who give idempotency keys."""

    agent: Key | None
    name: str
    scope: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """What somebody wants to send; `thread` None opens one, `parent` is the message that it answers."""

    sender: Sender
    to: agents.Ref
    thread: Ref | None
    payload_type: str
    payload: Any
    idempotency_key: str | None = None
    parent: Key | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A letter that may be sent, as far as can be told before the transaction; `draft` lacks depth and parent."""

    letter: Letter
    draft: Draft
    thread: Ref
    now: datetime


# ---------------------------------------------------------------- before the transaction


async def check(letter: Letter, *, now: datetime) -> Checked | Row:
    """Check a letter; gives the message itself when it was sent before. Raises what there is to say against it."""
    values, body = _checked_fields(letter)
    recipient = await _recipient(letter)
    content = _content(letter, recipient["_id"], body)
    given = values["idempotency_key"]
    key = messages.key_of(letter.sender.scope, given) if given is not None else Key()
    if given is not None:
        # Majority: that it was sent is said again, and no failover may take it back.
        before = await database.collection(Message, majority=True).find_one({"_id": key})
        if before is not None:
            return _same(before, content)
    declared.refuse_retired(recipient, field="to")
    await _check_payload(recipient, letter, values["payload_type"])
    draft = Draft(
        key=key,
        sender=letter.sender.agent,
        sender_name=letter.sender.name,
        recipient=recipient,
        payload_type=values["payload_type"],
        payload=body,
        depth=0,
        parent=None,
        content=content,
    )
    return Checked(letter=letter, draft=draft, thread=letter.thread or Ref(Key(), is_new=True), now=now)


def _checked_fields(letter: Letter) -> tuple[Mapping[str, Any], str]:
    given = {"payload_type": letter.payload_type, "idempotency_key": letter.idempotency_key}
    wrong = _payload_fault(letter.payload)
    faults = [Fault(("payload",), wrong)] if isinstance(wrong, str) else []
    values = text.validate(MessageFields, given, faults=faults)
    assert isinstance(wrong, bytes)  # noqa: S101  # tells the type checker: otherwise it is a fault
    return values, wrong.decode()


def _payload_fault(payload: object) -> str | bytes:
    """Write a payload as JSON, or say what is wrong with it."""
    if _levels(payload) > MOST_LEVELS:
        return f"A payload is at most {MOST_LEVELS} levels deep."
    try:
        body = orjson.dumps(payload, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        return _NO_JSON
    # Written in a document as 1e999, a number becomes infinity, and that is written as null.
    if b"null" in body and not _is_finite(payload):
        return _NO_JSON
    return body if len(body) <= MOST_BYTES else f"A payload has at most {MOST_BYTES:,} bytes as JSON."


def _levels(payload: object) -> int:
    """Count levels, one more than there may be at the most; a plain value has none."""
    levels, layer = 0, [payload]
    while levels <= MOST_LEVELS and (layer := [inside for each in layer for inside in _inside(each)]):
        levels += 1
    return levels


def _is_finite(value: object) -> bool:
    return not (isinstance(value, float) and not math.isfinite(value)) and all(map(_is_finite, _inside(value)))


def _inside(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


async def _recipient(letter: Letter) -> Row:
    """Find whom a letter is for. An agent hears the same of one that is no peer and of one that is not there."""
    recipient = await agents.find(letter.to)
    if letter.sender.agent is None:
        if recipient is None:
            raise NotFound("There is no such agent.", field="to")
        return recipient
    sender = await agents.find(letter.sender.agent)
    if sender is None:
        raise NotFound("The agent of this API key is gone.", field="from")
    declared.refuse_retired(sender, field="from")
    peers = (sender.get("declared") or {}).get("peers", ())
    if recipient is None or recipient["_id"] not in peers:
        raise Forbidden(
            "An agent sends to its declared peers alone, and this is none of them. See its `peers`.", field="to"
        )
    return recipient


async def _check_payload(recipient: Row, letter: Letter, payload_type: str) -> None:
    types = {each["name"]: each for each in (recipient.get("declared") or {}).get("payload_types", ())}
    if not types:
        if not isinstance(letter.payload, dict):
            raise BadInput.at("payload", "This agent declares no payload types: any JSON object fits, nothing else.")
        return
    if payload_type not in types:
        known = ", ".join(sorted(types))
        raise BadInput.at("payload_type", f"This agent takes no such type. Send one of these: {known}.")
    schema = orjson.loads(types[payload_type]["schema"])
    # A large payload takes its time, and the loop has other things to do.
    fault = await asyncio.to_thread(payloads.fault, schema, letter.payload)
    if fault is not None:
        path, message = fault
        # As a JSON Pointer: the sender's own names must not be spelled as ours are.
        where = "".join(f"/{step}" for step in path)[:_LONGEST_PLACE]
        raise BadInput.at("payload", f"The payload does not fit {payload_type}, at {where or 'its top'}: {message}")


def _content(letter: Letter, recipient: Key, body: str) -> bytes:
    thread = letter.thread.thread if letter.thread else ""
    said = orjson.dumps([str(recipient), str(thread), letter.payload_type.strip(), body, str(letter.parent or "")])
    return hashlib.blake2b(said, digest_size=16).digest()


def _same(before: Row, content: bytes) -> Row:
    if before["content"] != content:
        raise Conflict(
            "Another message came with this idempotency key before. Use a new key for a new message.",
            field="idempotency_key",
        )
    return before


# ---------------------------------------------------------------- in the transaction


async def send(checked: Checked, *, terms: Terms, session: Session) -> Row:
    """Store a message that was checked, unless it is stored already. Refuses before it writes."""
    before = await messages.find(checked.draft.key, session=session)
    if before is not None:
        return _same(before, checked.draft.content)
    letter, ref = checked.letter, checked.thread
    # Read again: it may have been retired or deleted meanwhile, or have another endpoint.
    recipient = await agents.require(checked.draft.recipient["_id"], field="to", session=session)
    declared.refuse_retired(recipient, field="to")
    thread = await conversations.find(ref.thread, session=session)
    if thread is None and ref.name is None and not ref.is_new:
        raise _no_thread()
    if thread is not None:
        await _check_thread(thread, letter.sender.agent, recipient["_id"], session=session)
    parent = await _parent(letter, thread, session=session)
    depth = parent["depth"] + 1 if parent else 0
    if depth > terms.depth:
        raise Conflict(
            f"This chain of answers has come to its end: {terms.depth} messages stand before this one already. "
            "A person has to look at it.",
            field="parent",
        )
    draft = Draft(
        key=checked.draft.key,
        sender=letter.sender.agent,
        sender_name=letter.sender.name,
        recipient=recipient,
        payload_type=checked.draft.payload_type,
        payload=checked.draft.payload,
        depth=depth,
        parent=parent["_id"] if parent else None,
        content=checked.draft.content,
    )
    thread = thread or await conversations.open_now(ref, limit=terms.thread_tokens, now=checked.now, session=session)
    return await putting.put(draft, thread, session=session)


def _no_thread() -> NotFound:
    return NotFound("There is no such thread for you.", field="thread")


async def _check_thread(thread: Row, sender: Key | None, recipient: Key, *, session: Session) -> None:
    taking_part = thread["participants"]
    # An agent hears the same of a thread of others and of one that is not there.
    if sender is not None and taking_part and sender not in taking_part:
        raise _no_thread()
    await conversations.refuse_closed(thread, session=session)
    if len({*taking_part, recipient}) > MOST_PARTICIPANTS:
        raise Conflict(f"At most {MOST_PARTICIPANTS} agents take part in a thread.", field="to")


async def _parent(letter: Letter, thread: Row | None, *, session: Session) -> Row | None:
    """Find the message that a letter answers.

    Where an agent names none, it is the last that was handed to it in this thread, or else the one that it is handling:
    two agents that answer each other for ever are stopped, whether or not they say what they answer.
    """
    agent, parent = letter.sender.agent, letter.parent
    if parent is None and agent is not None:
        parent = thread["handed"].get(str(agent)) if thread else None
        theirs = await activity.find(agent, session=session) if parent is None else None
        parent = theirs["current_message"] if theirs else parent
        return None if parent is None else await messages.find(parent, session=session)
    if parent is None:
        return None
    row = await messages.find(parent, session=session)
    if row is None or (agent is not None and agent not in row["agents"]):
        raise NotFound("There is no such message for you.", field="parent")
    return row
