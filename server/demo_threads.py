"""Errands of the believable company: threads that are done, at work, waiting, failed or out of tokens."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from graph.context import Services
from graph.language import nodes
from models.budgets.kept import Scope
from models.store.database import Key, Row
from models.threads.sending import Letter, Sender
from models.usage.counting import Batch
from models.usage.events import Event

_MODEL: Final = "claude-sonnet-4-5"


class _Errand(NamedTuple):
    to: str
    by: str
    payload: dict[str, str]
    spent: Sequence[int]
    """Tokens of each call that was made for it; none where nobody has begun."""
    ends: str


_DONE, _AT_WORK, _WAITS, _FAILED = "done", "at work", "waits", "failed"
_ERRANDS: Final = (
    _Errand("Contract Reader", "Mira Lindqvist", {"task": "List the notice periods", "document": "MSA-2231.pdf"},
            (9_400, 12_100, 3_900), _DONE),
    _Errand("Invoice Matcher", "Jonas Weber", {"task": "Match the open items of October", "ledger": "4400"},
            (21_000, 18_500), _DONE),
    _Errand("Market Scout", "Ravi Menon", {"task": "Who has entered the Nordic market since spring?"},
            (14_200, 30_800, 33_500), _AT_WORK),
    _Errand("Release Watcher", "Aisha Rahman", {"task": "Follow release 8.2 until it is out"},
            (22_000, 26_000, 29_500, 24_000), _AT_WORK),
    _Errand("Headline Smith", "Camille Laurent", {"task": "Ten headlines for the winter campaign", "tone": "dry"},
            (4_100,), _DONE),
    _Errand("Travel Desk", "Noah Adeyemi", {"task": "Trains from Hamburg to Malmö, two people, 3 December"},
            (), _WAITS),
    _Errand("Travel Desk", "Sofia Rossi", {"task": "Move the Lisbon trip by a week"}, (), _WAITS),
    _Errand("Expense Auditor", "Elena Petrova", {"task": "Check the claims above 500 euros", "month": "2026-10"},
            (7_700,), _FAILED),
)  # fmt: skip


async def load(services: Services, known: Sequence[Row], *, now: datetime) -> None:
    """Send each errand, have it taken as its agent would, and count what was spent on it."""
    keys = {agent["name"]: agent["_id"] for agent in known}
    await services.messaging.pause(keys["Travel Desk"])
    for number, errand in enumerate(_ERRANDS):
        sender = Sender(agent=None, name=errand.by, scope="demo")
        sent = await services.messaging.send(
            Letter(
                sender=sender,
                to=keys[errand.to],
                thread=None,
                payload_type="task",
                payload=errand.payload,
                idempotency_key=f"errand {number}",
            ),
            now=now,
        )
        if errand.ends != _WAITS:
            await _take(services, sent, errand, now=now)


async def _take(services: Services, sent: Row, errand: _Errand, *, now: datetime) -> None:
    messaging, agent, thread = services.messaging, sent["recipient"], sent["thread"]
    row = await messaging.hand_out(agent, holder=Key())
    assert row is not None  # noqa: S101  # it was sent a moment ago, to an agent that nobody serves
    for call in _calls(sent, errand, now=now):
        await services.commits.submit(services.counting, Batch([call], now))
    if errand.ends == _FAILED:
        error = "The claims of October cannot be opened: the archive asks for a password."
        await messaging.fail(row["_id"], lease=row["lease"], agent=agent, error=error, for_good=True)
    else:
        await messaging.acknowledge(row["_id"], lease=row["lease"], agent=agent)
    if errand.ends == _DONE:
        await messaging.complete(thread, reason=None, failed=False, agent=agent)


def _calls(sent: Row, errand: _Errand, *, now: datetime) -> Iterator[Event]:
    for number, tokens in enumerate(errand.spent):
        completion = tokens // 6
        yield Event(
            source="demo",
            id=f"{sent['_id']}-{number}",
            agent=sent["recipient"],
            at=now - timedelta(minutes=len(errand.spent) - number),
            model=_MODEL,
            provider="anthropic",
            prompt_tokens=tokens - completion,
            completion_tokens=completion,
            latency_ms=1800 + tokens // 20,
            thread=nodes.encode("Thread", sent["thread"]),
            budget=Scope.thread(sent["thread"]).id,
        )
