"""Agents are told when the budget of their thread runs out, by a message in their inbox, each once for each percent."""

from collections.abc import Sequence
from typing import Final, Protocol

import orjson

from models import agents
from models.agents import declared
from models.store.database import Key, Session
from models.threads import conversations, messages, putting
from models.threads.putting import Draft

PAYLOAD_TYPE: Final = "budget"
SENDER: Final = "system"
# From which percent on a warning is so severe.
_SEVERITIES: Final = ((100, "EXHAUSTED"), (95, "CRITICAL"), (90, "HIGH"), (0, "WARNING"))


class _Scope(Protocol):
    @property
    def key(self) -> str: ...


class Crossing(Protocol):
    """A percent of its limit that a thread's budget has come to; the key of its scope is the thread's."""

    @property
    def scope(self) -> _Scope: ...
    @property
    def percent(self) -> int: ...
    @property
    def used(self) -> int: ...
    @property
    def limit(self) -> int: ...


async def tell(crossings: Sequence[Crossing], *, session: Session) -> None:
    """Put a message in the inbox of each agent of each thread, once for each (thread, limit, percent, agent).

    The payload is {severity, percent, used, left, limit}, in tokens. A thread that is not there, or has ended, is
    passed over, and so are plain listeners, who spend nothing, and agents that are gone.
    """
    for crossing in crossings:
        key = Key(crossing.scope.key)
        thread = await conversations.find(key, session=session)
        for agent in thread["participants"] if thread and thread["status"] in conversations.GOING else ():
            recipient = await agents.find(agent, session=session)
            if recipient is None or declared.is_retired(recipient) or not declared.is_agent(recipient):
                continue
            message = messages.key_of(f"{SENDER}:{agent}", f"{key}:{crossing.limit}:{crossing.percent}")
            if await messages.find(message, session=session) is None:
                draft = Draft(
                    key=message,
                    sender=None,
                    sender_name=SENDER,
                    recipient=recipient,
                    payload_type=PAYLOAD_TYPE,
                    payload=_payload(crossing),
                    depth=0,
                    parent=None,
                    content=b"",
                )
                thread = await conversations.require(key, session=session)
                await putting.put(draft, thread, session=session)


def _payload(crossing: Crossing) -> str:
    severity = next(word for percent, word in _SEVERITIES if crossing.percent >= percent)
    said = {
        "severity": severity,
        "percent": crossing.percent,
        "used": crossing.used,
        "left": max(crossing.limit - crossing.used, 0),
        "limit": crossing.limit,
    }
    return orjson.dumps(said).decode()
