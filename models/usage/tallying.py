"""What some usage adds up to, and how that is added to what is kept: totals, days and hours."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

from models.agents import Agent
from models.store import writes as stored
from models.store.database import Key, Outdated, Row, Session
from models.usage import days, events
from models.usage.days import Cell, Sums, UsageHours, UsageMonth
from models.usage.seen import Claim, Kind, Move


@dataclass(slots=True)
class Tally:
    """What some events add up to."""

    totals: dict[Key, Sums] = field(default_factory=dict)
    days: dict[Cell, Sums] = field(default_factory=dict)
    hours: dict[Cell, Sums] = field(default_factory=dict)
    used: dict[Cell, tuple[datetime, datetime]] = field(default_factory=dict)
    spans: dict[Key, tuple[datetime, datetime]] = field(default_factory=dict)
    claims: dict[Claim, date] = field(default_factory=dict)

    def count(self, rows: Iterable[Row], zone: ZoneInfo) -> None:
        """Count stored events; their days are those of `zone`."""
        groups: dict[tuple[Key, str, date, date, int], list[Row]] = {}
        for row in rows:
            agent, at = row["agent"], row["at"]
            day = at.astimezone(zone).date()
            # What falls into the same cells is added up first: there are few cells, and each costs.
            key = agent, row["model"], day, at.date(), at.hour
            group = groups.get(key)
            if group is None:
                groups[key] = [row]
            else:
                group.append(row)
            for kind, name in _DISTINCT:
                if identifier := row.get(name):
                    claim = Claim(agent, kind, identifier)
                    self.claims[claim] = min(self.claims.get(claim, day), day)
        for (agent, model, day, _, _), group in groups.items():
            sums, times = figures_of(group), [row["at"] for row in group]
            cell = Cell.of_day(agent, model, day)
            hour = Cell.of_hour(agent, model, times[0])
            _add(self.totals.setdefault(agent, {}), sums)
            _add(self.days.setdefault(cell, {}), sums)
            _add(self.hours.setdefault(hour, {}), sums)
            self.use(cell, min(times))
            self.use(cell, max(times))

    def adjust(self, row: Row, figures: Sums, zone: ZoneInfo) -> None:
        """Add to the figures that a stored event is in, without another use."""
        agent, model, at = row["agent"], row["model"], row["at"]
        _add(self.totals.setdefault(agent, {}), figures)
        _add(self.days.setdefault(Cell.of_day(agent, model, at.astimezone(zone).date()), {}), figures)
        _add(self.hours.setdefault(Cell.of_hour(agent, model, at), {}), figures)

    def use(self, cell: Cell, at: datetime) -> None:
        """Note that a cell's agent was used."""
        self.used[cell] = _widened(self.used.get(cell), at)
        self.span(cell.agent, at)

    def span(self, agent: Key, at: datetime) -> None:
        """Note that an agent was used."""
        self.spans[agent] = _widened(self.spans.get(agent), at)

    def distinct(self, moves: Sequence[Move]) -> None:
        """Count users and conversations on their first days; they belong to no one model."""
        for move in moves:
            cells = self.days.setdefault(Cell.of_day(move.agent, events.UNNAMED_MODEL, move.day), {})
            cells[move.kind] = cells.get(move.kind, 0) + move.change
            if move.is_new:
                sums = self.totals.setdefault(move.agent, {})
                sums[move.kind] = sums.get(move.kind, 0) + 1


_DISTINCT: Final = ((Kind.USER, "user"), (Kind.CONVERSATION, "conversation"))


def _add(kept: Sums, sums: Sums) -> None:
    for name, value in sums.items():
        kept[name] = kept.get(name, 0) + value


def _widened(span: tuple[datetime, datetime] | None, at: datetime) -> tuple[datetime, datetime]:
    return (min(span[0], at), max(span[1], at)) if span else (at, at)


def figures_of(rows: Sequence[Row]) -> Sums:
    """Give the figures that some stored events add."""
    costs = [row["cost_nanodollars"] for row in rows if row.get("cost_nanodollars") is not None]
    latencies = [row["latency_ms"] for row in rows if row.get("latency_ms") is not None]
    return {
        "messages": sum([row["messages"] for row in rows]),
        "requests": len(rows),
        "prompt_tokens": sum([row["prompt_tokens"] for row in rows]),
        "completion_tokens": sum([row["completion_tokens"] for row in rows]),
        "cached_tokens": sum([row.get("cached_tokens", 0) for row in rows]),
        "cache_write_tokens": sum([row.get("cache_write_tokens", 0) for row in rows]),
        "reasoning_tokens": sum([row.get("reasoning_tokens", 0) for row in rows]),
        "cost_nanodollars": sum(costs),
        "unpriced_events": len(rows) - len(costs),
        "latency_ms": sum(latencies),
        "timed_events": len(latencies),
    }


async def keep(tally: Tally, *, living: bool = False, session: Session) -> None:
    """Add a tally to totals, days and hours; `living` as `add_totals` has it."""
    # Totals first: what another process is changing too shows here as a conflict, before work is done.
    await add_totals(tally.totals, tally.spans, living=living, session=session)
    await days.add(UsageMonth, tally.days, used=tally.used, session=session)
    await days.add(UsageHours, tally.hours, session=session)


async def add_totals(
    totals: Mapping[Key, Mapping[str, int]],
    spans: Mapping[Key, tuple[datetime, datetime]],
    *,
    living: bool = False,
    session: Session,
) -> None:
    """Add figures to the lifetime totals of agents; `living`: raises `Outdated` when one of them is deleted by now."""
    alive = {"deleted_at": None} if living else {}
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
            writes.append(({"_id": agent, **alive}, update))
    if await stored.update(Agent, writes, session=session) != len(writes) and living:
        raise Outdated
