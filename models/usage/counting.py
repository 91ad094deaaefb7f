"""What a batch of events does to events, totals, days, hours, distinct ids and alerts, all in one transaction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from models import agents
from models.agents import Agent
from models.alerts import raised, rules
from models.alerts.raised import Reading
from models.alerts.rules import AlertWindow
from models.store import database
from models.store.database import Key, Row, Session, UpdateOne
from models.usage import days, events, seen
from models.usage.days import Cell, Sums, UsageHours, UsageMonth
from models.usage.events import Event, ItemOutcome, Outcome, UsageEvent
from models.usage.seen import Claim, Kind, Move


@dataclass(frozen=True, slots=True)
class Batch:
    """The events of one request, checked, with the moment it came."""

    events: Sequence[Event]
    now: datetime


@dataclass(slots=True)
class Tally:
    """What some events add up to."""

    totals: dict[Key, Sums] = field(default_factory=dict)
    days: dict[Cell, Sums] = field(default_factory=dict)
    hours: dict[Cell, Sums] = field(default_factory=dict)
    used: dict[Cell, tuple[datetime, datetime]] = field(default_factory=dict)
    spans: dict[Key, tuple[datetime, datetime]] = field(default_factory=dict)
    claims: dict[Claim, date] = field(default_factory=dict)

    def count(self, row: Row, zone: ZoneInfo) -> None:
        """Count one stored event; its days are those of `zone`."""
        agent, model, at = row["agent"], row["model"], row["at"]
        figures = figures_of(row)
        day = at.astimezone(zone).date()
        cell = Cell.of_day(agent, model, day)
        for sums in (
            self.totals.setdefault(agent, {}),
            self.days.setdefault(cell, {}),
            self.hours.setdefault(Cell.of_hour(agent, model, at), {}),
        ):
            for name, value in figures.items():
                sums[name] = sums.get(name, 0) + value
        self.used[cell] = _widened(self.used.get(cell), at)
        self.spans[agent] = _widened(self.spans.get(agent), at)
        for kind, name in ((Kind.USER, "user"), (Kind.CONVERSATION, "conversation")):
            if identifier := row.get(name):
                claim = Claim(agent, kind, identifier)
                self.claims[claim] = min(self.claims.get(claim, day), day)

    def distinct(self, moves: Sequence[Move]) -> None:
        """Count users and conversations on their first days; they belong to no one model."""
        for move in moves:
            cells = self.days.setdefault(Cell.of_day(move.agent, events.UNNAMED_MODEL, move.day), {})
            cells[move.kind] = cells.get(move.kind, 0) + move.change
            if move.is_new:
                sums = self.totals.setdefault(move.agent, {})
                sums[move.kind] = sums.get(move.kind, 0) + 1


def _widened(span: tuple[datetime, datetime] | None, at: datetime) -> tuple[datetime, datetime]:
    return (min(span[0], at), max(span[1], at)) if span else (at, at)


def figures_of(row: Row) -> Sums:
    """Give the figures that one stored event adds."""
    cost, latency = row.get("cost_nanodollars"), row.get("latency_ms")
    return {
        "messages": row["messages"],
        "requests": 1,
        "prompt_tokens": row["prompt_tokens"],
        "completion_tokens": row["completion_tokens"],
        "cached_tokens": row.get("cached_tokens", 0),
        "cache_write_tokens": row.get("cache_write_tokens", 0),
        "reasoning_tokens": row.get("reasoning_tokens", 0),
        "cost_nanodollars": cost or 0,
        "unpriced_events": int(cost is None),
        "latency_ms": latency or 0,
        "timed_events": int(latency is not None),
    }


class Counting:
    """The change that usage events are, for `models/store/commits.py`."""

    def __init__(self, zone: ZoneInfo) -> None:
        """`zone`: whose days figures are kept by."""
        self.zone = zone

    async def apply(self, items: Sequence[Batch], *, commit: Key, session: Session) -> Sequence[Sequence[Outcome]]:
        """Count what is new among the events and say of each what became of it.

        The transaction commits even when nothing is new: an event that only a dying primary holds must not be called
        a duplicate, and only a majority commit can tell.
        """
        known = await _known([event.key for batch in items for event in batch.events], session=session)
        fresh: dict[str, tuple[Event, datetime]] = {}
        for batch in items:
            for event in batch.events:
                if event.key not in known:
                    fresh.setdefault(event.key, (event, batch.now))
        found = await _agents([event for event, _ in fresh.values()], now=items[-1].now, session=session)
        rows = {
            key: event.row(found[event.agent], now=now, commit=commit)
            for key, (event, now) in fresh.items()
            if event.agent in found
        }
        if rows:
            await self._count(list(rows.values()), session=session)
        return _outcomes(items, known=known, rows=rows, commit=commit)

    async def _count(self, rows: Sequence[dict[str, Any]], *, session: Session) -> None:
        tally = Tally()
        for row in rows:
            tally.count(row, self.zone)
        tally.distinct(await seen.note(tally.claims, session=session))
        # Totals first: what another process is changing too shows here as a conflict, before work is done.
        await add_totals(tally.totals, tally.spans, session=session)
        await days.add(UsageMonth, tally.days, used=tally.used, session=session)
        await days.add(UsageHours, tally.hours, session=session)
        await self._alert(tally, session=session)
        await database.collection(UsageEvent).insert_many(rows, ordered=False, session=session)

    async def _alert(self, tally: Tally, *, session: Session) -> None:
        active = await rules.active(session=session)
        if not active:
            return
        # $$NOW is the primary's clock: one clock for every process, whatever their hosts' clocks say.
        pipeline: list[Row] = [
            {"$match": {"_id": {"$in": sorted(tally.totals)}}},
            {"$project": {"discipline": 1, "project": 1, "usage": 1, "now": "$$NOW"}},
        ]
        changed = await database.collection(Agent).aggregate(pipeline, session=session).to_list(None)
        pairs = [(rule, agent) for agent in changed for rule in active if rules.applies(rule, agent)]
        readings = [
            Reading(rule, agent, rules.measure(rule["metric"], agent["usage"]), None)
            for rule, agent in pairs
            if rule["window"] == AlertWindow.LIFETIME
        ]
        readings += await self._by_day(pairs, tally, session=session)
        readings += await self._by_hour(pairs, tally, session=session)
        if readings:
            await raised.raise_for(readings, now=changed[0]["now"], session=session)

    async def _by_day(self, pairs: Sequence[tuple[Row, Row]], tally: Tally, *, session: Session) -> Sequence[Reading]:
        touched: dict[Key, set[date]] = {}
        for cell in tally.used:
            year, month = divmod(cell.period, 100)
            touched.setdefault(cell.agent, set()).add(date(year, month, int(cell.cell)))
        wanted = {
            (agent["_id"], rule["_id"], rules.days_of(rule["window"], day)): (rule, agent)
            for rule, agent in pairs
            if rule["window"] not in {AlertWindow.LIFETIME, AlertWindow.HOUR}
            for day in touched.get(agent["_id"], ())
        }
        if not wanted:
            return []
        first, last = min(span[0] for _, _, span in wanted), max(span[1] for _, _, span in wanted)
        sums = await days.day_sums([agent for agent, _, _ in wanted], first=first, last=last, session=session)
        readings = []
        for (key, _, (start, end)), (rule, agent) in wanted.items():
            value = sum(
                rules.measure(rule["metric"], sums.get((key, start + timedelta(days=n)), {}))
                for n in range((end - start).days + 1)
            )
            readings.append(Reading(rule, agent, value, rules.start_of(start, self.zone)))
        return readings

    async def _by_hour(self, pairs: Sequence[tuple[Row, Row]], tally: Tally, *, session: Session) -> Sequence[Reading]:
        wanted = [
            (rule, agent, hour)
            for rule, agent in pairs
            if rule["window"] == AlertWindow.HOUR
            for hour in {_hour(cell) for cell in tally.hours if cell.agent == agent["_id"]}
        ]
        if not wanted:
            return []
        sums = await days.hour_sums(
            [agent["_id"] for _, agent, _ in wanted],
            first=min(hour for _, _, hour in wanted),
            last=max(hour for _, _, hour in wanted),
            session=session,
        )
        return [
            Reading(rule, agent, rules.measure(rule["metric"], sums.get((agent["_id"], hour), {})), hour)
            for rule, agent, hour in wanted
        ]


async def add_totals(
    totals: Mapping[Key, Mapping[str, int]],
    spans: Mapping[Key, tuple[datetime, datetime]],
    *,
    session: Session,
) -> None:
    """Add figures to the lifetime totals of agents."""
    writes = []
    for agent in sorted(totals):
        sums = totals[agent]
        changes = {f"usage.{name}": value for name, value in sums.items() if value}
        tokens = sum(sums.get(name, 0) for name in ("prompt_tokens", "completion_tokens", "unsplit_tokens"))
        if tokens:
            changes["usage.total_tokens"] = tokens
        update: dict[str, Any] = {"$inc": changes} if changes else {}
        if agent in spans:
            first, last = spans[agent]
            update |= {"$min": {"usage.first_used_at": first}, "$max": {"usage.last_used_at": last}}
        if update:
            writes.append(UpdateOne({"_id": agent}, update))
    if writes:
        await database.collection(Agent).bulk_write(writes, ordered=False, session=session)


async def _known(keys: Sequence[str], *, session: Session) -> Mapping[str, Row]:
    cursor = database.collection(UsageEvent).find(
        {"_id": {"$in": list(set(keys))}}, {"content": 1, "commit": 1}, session=session
    )
    return {row["_id"]: row async for row in cursor}


async def _agents(fresh: Sequence[Event], *, now: datetime, session: Session) -> Mapping[agents.Ref, Key]:
    refs = {event.agent for event in fresh}
    if not refs:
        return {}
    found: dict[agents.Ref, Key] = dict(await agents.by_refs(list(refs), session=session))
    unknown = sorted(ref for ref in refs if isinstance(ref, str) and ref not in found)
    found.update(await agents.register(unknown, disciplines={}, now=now, session=session))
    return found


def _outcomes(
    items: Sequence[Batch], *, known: Mapping[str, Row], rows: Mapping[str, Row], commit: Key
) -> Sequence[Sequence[Outcome]]:
    answered: set[str] = set()
    no_agent = events.rejected("agent.id", "There is no agent with this id.", code="NOT_FOUND")

    def outcome(event: Event) -> Outcome:
        stored = known.get(event.key) or rows.get(event.key)
        if stored is None:
            return no_agent
        # An earlier try of this very commit may have stored it: that makes it new, not a duplicate.
        if stored["commit"] == commit and event.key not in answered:
            answered.add(event.key)
            return events.ACCEPTED
        return events.DUPLICATE if stored["content"] == event.content() else events.CONTENT_DIFFERS

    return [[outcome(event) for event in batch.events] for batch in items]


def _hour(cell: Cell) -> datetime:
    period = cell.period
    return datetime(period // 10_000, period // 100 % 100, period % 100, int(cell.cell), tzinfo=UTC)


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


def tallied(outcomes: Sequence[Outcome]) -> Mapping[ItemOutcome, int]:
    """Count outcomes by kind."""
    return {kind: sum(each.outcome is kind for each in outcomes) for kind in ItemOutcome}
