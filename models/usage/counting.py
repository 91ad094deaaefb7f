"""What a batch of events does to events, all figures, distinct ids, budgets and alerts, in one transaction."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

from models import agents
from models.budgets import kept
from models.budgets.changing import Budgets
from models.budgets.ledger import Spend
from models.store import database, writes
from models.store.database import Key, Row, Session
from models.usage import crossings, events, reported, seen
from models.usage.events import Event, Outcome, UsageEvent
from models.usage.tallying import Tally, keep


@dataclass(frozen=True, slots=True)
class Batch:
    """The events of one request, checked, with the moment it came."""

    events: Sequence[Event]
    now: datetime


@dataclass(frozen=True, slots=True)
class _Named:
    """What some events name: agents, and reservations with the budgets that they are part of."""

    agents: Mapping[agents.Ref, Key]
    resets: Mapping[Key, int]
    """By which reset the running sums of agents began, where there was one."""
    reservations: Mapping[Key, Row]
    refused: Mapping[int, Outcome]
    """Events, by their identity, that name what there is not; an agent's name that is new is registered."""


_NO_AGENT: Final = events.rejected("agent.id", "There is no agent with this id.", code="NOT_FOUND")
_NO_RESERVATION: Final = events.rejected("reservation", "There is no such reservation.", code="NOT_FOUND")
_OTHER_THREAD: Final = events.rejected("thread", "The reservation was made for another thread. Leave out `thread`.")


class Counting:
    """The change that usage events are, for `models/store/commits.py`."""

    def __init__(
        self,
        zone: ZoneInfo,
        *,
        price: Callable[[dict[str, Any]], None] = lambda _: None,
        budgets: Budgets | None = None,
        raised: Callable[[], None] = lambda: None,
    ) -> None:
        """`zone`: whose days figures are kept by; `price` writes a cost into an event of which nobody has said one.

        `raised` is called when alerts have been stored.
        """
        self.zone = zone
        self._price = price
        self._budgets = budgets or Budgets()
        self._tell = raised
        self._raised = 0

    def committed(self) -> None:
        """Tell of alerts."""
        self._budgets.committed()
        if self._raised:
            self._raised = 0
            self._tell()

    async def prepare(self, items: Sequence[Batch]) -> _Named:
        """Find what is named."""
        named = {event.agent for batch in items for event in batch.events}
        rows = await agents.counted(list(named))
        found = {ref: row["_id"] for ref, row in rows.items()}
        resets = {row["_id"]: reset for row in rows.values() if (reset := row.get("usage_reset")) is not None}
        lost = {ref for ref in named if isinstance(ref, Key) and ref not in found}
        held = {event.reservation for batch in items for event in batch.events if event.reservation is not None}
        # None of them ever goes: what is found now is there in the transaction too.
        there = await kept.reservations(list(held)) if held else {}
        refused: dict[int, Outcome] = {}
        if lost or held:
            every = [event for batch in items for event in batch.events]
            strange = {event.budget for event in every if event.budget and _is_strange(event, there)}
            others = await kept.by_ids(list(strange)) if strange else {}
            for event in every:
                if reason := _refusal(event, lost, there, others=others):
                    refused[id(event)] = reason
        return _Named(found, resets, there, refused)

    async def apply(
        self,
        items: Sequence[Batch],
        prepared: _Named,
        *,
        commit: Key,
        again: bool,
        session: Session,
    ) -> Sequence[Sequence[Outcome]]:
        """Count what is new among the events and say of each what became of it.

        The first try takes all for new: nearly always they are, and the key of one that is not ends the transaction,
        which is tried again with a look at what is stored (a sixth faster).

        The transaction commits even when nothing is new: an event that only a dying primary holds must not be called
        a duplicate, and only a majority commit can tell.
        """
        keys = [event.key for batch in items for event in batch.events]
        # One whose agent is unknown may have been counted while there was one.
        looks = again or bool(prepared.refused)
        known = await _known(keys, session=session) if looks else {}
        fresh: dict[str, tuple[Event, datetime]] = {}
        for batch in items:
            for event in batch.events:
                if event.key not in known and id(event) not in prepared.refused:
                    fresh.setdefault(event.key, (event, batch.now))
        found = await _agents(fresh.values(), prepared.agents, now=items[-1].now, session=session)
        rows = {key: event.row(found[event.agent], now=now, commit=commit) for key, (event, now) in fresh.items()}
        for row in rows.values():
            self._price(row)
            if reservation := row.get("reservation"):
                row["budget"] = prepared.reservations[reservation]["budget"]
            if (reset := prepared.resets.get(row["agent"])) is not None:
                row["reset"] = reset
        if rows:
            await self._count(list(rows.values()), prepared.resets, session=session)
        if len(rows) == len(keys):
            return [[events.ACCEPTED] * len(batch.events) for batch in items]
        return _outcomes(items, known=known, rows=rows, refused=prepared.refused, commit=commit)

    async def _count(self, rows: Sequence[dict[str, Any]], resets: Mapping[Key, int], *, session: Session) -> None:
        tally = Tally(resets)
        tally.count(rows, self.zone)
        tally.distinct(await seen.note(tally.claims, session=session))
        if charged := [row for row in rows if "budget" in row]:
            await self._charge(charged, session=session)
        await keep(tally, living=True, session=session)
        self._raised += await crossings.raise_for(tally, zone=self.zone, session=session)
        await writes.insert(UsageEvent, rows, session=session)

    async def _charge(self, rows: Sequence[dict[str, Any]], *, session: Session) -> None:
        spends = [
            Spend(row["budget"], row.get("reservation"), row["prompt_tokens"], row["completion_tokens"], row["agent"])
            for row in rows
        ]
        there = await self._budgets.spend(spends, session=session)
        for row in rows:
            # Its `thread` is none of ours.
            if row["budget"] not in there:
                del row["budget"]


def _is_strange(event: Event, there: Mapping[Key, Row]) -> bool:
    """Whether an event's thread, should it be one of ours, is not that of its reservation."""
    reservation = there.get(event.reservation) if event.reservation else None
    return reservation is not None and event.budget != reservation["budget"]


def _refusal(
    event: Event, lost: Collection[agents.Ref], there: Mapping[Key, Row], *, others: Collection[str]
) -> Outcome | None:
    if event.agent in lost:
        return _NO_AGENT
    if event.reservation is None:
        return None
    if event.reservation not in there:
        return _NO_RESERVATION
    return _OTHER_THREAD if event.budget in others and _is_strange(event, there) else None


async def _known(keys: Sequence[str], *, session: Session) -> Mapping[str, Row]:
    cursor = database.collection(UsageEvent).find(
        {"_id": {"$in": list(set(keys))}}, {"content": 1, "commit": 1}, session=session
    )
    return {row["_id"]: row async for row in cursor}


async def _agents(
    fresh: Iterable[tuple[Event, datetime]], known: Mapping[agents.Ref, Key], *, now: datetime, session: Session
) -> Mapping[agents.Ref, Key]:
    """Give the keys of agents; those named for the first time are registered."""
    unknown = {
        event.agent: reported.NOTHING for event, _ in fresh if isinstance(event.agent, str) and event.agent not in known
    }
    if not unknown:
        return known
    found: dict[agents.Ref, Key] = dict(known)
    found.update(await reported.keys(unknown, now=now, session=session))
    return found


def _outcomes(
    items: Sequence[Batch],
    *,
    known: Mapping[str, Row],
    rows: Mapping[str, Row],
    refused: Mapping[int, Outcome],
    commit: Key,
) -> Sequence[Sequence[Outcome]]:
    answered: set[str] = set()

    def outcome(event: Event) -> Outcome:
        stored = known.get(event.key)
        if stored is None:
            if reason := refused.get(id(event)):
                return reason
            stored = rows[event.key]
        # An earlier try of this very commit may have stored it: that makes it new, not a duplicate.
        if stored["commit"] == commit and event.key not in answered:
            answered.add(event.key)
            return events.ACCEPTED
        return events.DUPLICATE if stored["content"] == event.content() else events.CONTENT_DIFFERS

    return [[outcome(event) for event in batch.events] for batch in items]


@dataclass(frozen=True, slots=True)
class Report:
    """A request's events parted: those that may be counted, and those refused, by their place."""

    accepted: Batch
    refused: Mapping[int, Outcome]

    def merged(self, counted: Sequence[Outcome]) -> Sequence[Outcome]:
        """Put the outcomes back in the order in which the events were reported."""
        rest = iter(counted)
        size = len(self.refused) + len(counted)
        return [self.refused[place] if place in self.refused else next(rest) for place in range(size)]


def read(source: str, reported: Sequence[Event | Outcome], *, now: datetime) -> Report:
    """Check what a request reports; an event that could not even be read comes as its refusal.

    Raises `BadInput` for a source or a number of events that no request may have.
    """
    events.check_source(source)
    events.check_size(len(reported))
    refused: dict[int, Outcome] = {}
    fit: list[Event] = []
    for place, event in enumerate(reported):
        wrong = event if isinstance(event, Outcome) else events.fault(event, now=now)
        if wrong is not None:
            refused[place] = wrong
        elif isinstance(event, Event):
            fit.append(event)
    return Report(Batch(fit, now), refused)
