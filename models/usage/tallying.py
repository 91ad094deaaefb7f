"""What some usage adds up to, and how that is added to what is kept: totals, days, hours, sums since a reset."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

from models.agents import Agent
from models.store import writes as stored
from models.store.database import Key, Outdated, Row, Session
from models.usage import events
from models.usage.days import Cell, Sums, UsageHours, UsageMonth
from models.usage.running import Place, Run, note, write
from models.usage.seen import Claim, Kind, Move


@dataclass(slots=True)
class Tally:
    """What some events add up to. `resets`: by which reset the running sums of agents began, where there was one."""

    resets: Mapping[Key, int] = field(default_factory=dict)
    totals: dict[Key, Sums] = field(default_factory=dict)
    days: dict[Cell, Sums] = field(default_factory=dict)
    hours: dict[Cell, Sums] = field(default_factory=dict)
    used: dict[Cell, tuple[datetime, datetime]] = field(default_factory=dict)
    spans: dict[Key, tuple[datetime, datetime]] = field(default_factory=dict)
    claims: dict[Claim, date] = field(default_factory=dict)
    running: dict[Place, Run] = field(default_factory=dict)

    def count(self, rows: Iterable[Row], zone: ZoneInfo) -> None:
        """Count stored events; their days are those of `zone`."""
        groups: dict[tuple[Key, str, date, date, int, int | None], list[Row]] = {}
        for row in rows:
            agent, at = row["agent"], row["at"]
            day = at.astimezone(zone).date()
            # What falls into the same cells is added up first: there are few cells, and each costs.
            key = agent, row["model"], day, at.date(), at.hour, row.get("reset")
            group = groups.get(key)
            if group is None:
                groups[key] = [row]
            else:
                group.append(row)
            for kind, name in _DISTINCT:
                if identifier := row.get(name):
                    claim = Claim(agent, kind, identifier)
                    self.claims[claim] = min(self.claims.get(claim, day), day)
        for (agent, model, day, _, _, reset), group in groups.items():
            sums, times = figures_of(group), [row["at"] for row in group]
            cell = Cell.of_day(agent, model, day)
            hour = Cell.of_hour(agent, model, times[0])
            _add(self.totals.setdefault(agent, {}), sums)
            _add(self.days.setdefault(cell, {}), sums)
            _add(self.hours.setdefault(hour, {}), sums)
            first, last = min(times), max(times)
            self.use(cell, first)
            self.use(cell, last)
            if reset == self.resets.get(agent):
                note(self.running, (cell.period, agent, model), Run(first, last, dict(sums)))

    def adjust(self, row: Row, figures: Sums, zone: ZoneInfo) -> None:
        """Add to the figures that a stored event is in, without another use."""
        agent, model, at = row["agent"], row["model"], row["at"]
        _add(self.totals.setdefault(agent, {}), figures)
        cell = Cell.of_day(agent, model, at.astimezone(zone).date())
        _add(self.days.setdefault(cell, {}), figures)
        if row.get("reset") == self.resets.get(agent):
            note(self.running, (cell.period, agent, model), Run(at, at, figures))
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
    """Add a tally to all that is kept; `living`: raises `Outdated` when an agent of it is deleted or reset by now."""
    # Totals first: what another process is changing too shows here as a conflict, before work is done.
    await add_totals(tally.totals, tally.spans, living=tally.resets if living else None, session=session)
    await add(UsageMonth, tally.days, used=tally.used, running=tally.running, session=session)
    await add(UsageHours, tally.hours, session=session)


async def add(
    document: type[UsageMonth | UsageHours],
    sums: Mapping[Cell, Mapping[str, int]],
    *,
    used: Mapping[Cell, tuple[datetime, datetime]] | None = None,
    running: Mapping[Place, Run] | None = None,
    session: Session,
) -> None:
    """Add figures to their cells, creating what is missing; `used`: first and last use within each cell.

    `running`: what to add to the sums since a reset, in documents that change anyway (decision 14).
    """
    documents: dict[Place, dict[str, dict[str, Any]]] = {}
    for cell, figures in sums.items():
        change = documents.setdefault((cell.period, cell.agent, cell.model), {"$inc": {}, "$min": {}, "$max": {}})
        for name, value in figures.items():
            if value:
                change["$inc"][f"{name}.{cell.cell}"] = value
        if used and cell in used:
            change["$min"][f"first_used_at.{cell.cell}"], change["$max"][f"last_used_at.{cell.cell}"] = used[cell]
    for place, run in (running or {}).items():
        write(run, documents.setdefault(place, {"$inc": {}, "$min": {}, "$max": {}}))
    # In one order for everybody: two transactions that meet do so at the first document, before work is done.
    writes = [
        (
            {"period": period, "agent": agent, "model": model},
            {operator: fields for operator, fields in change.items() if fields},
        )
        for (period, agent, model), change in sorted(documents.items())
        if any(change.values())
    ]
    await stored.update(document, writes, upsert=True, session=session)


async def add_totals(
    totals: Mapping[Key, Mapping[str, int]],
    spans: Mapping[Key, tuple[datetime, datetime]],
    *,
    living: Mapping[Key, int] | None = None,
    session: Session,
) -> None:
    """Add figures to the lifetime totals of agents.

    `living`: raises `Outdated` when one of them is deleted by now, or was reset by another reset than stands here.
    """
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
            alive = {} if living is None else {"deleted_at": None, "usage_reset": living.get(agent)}
            writes.append(({"_id": agent, **alive}, update))
    if await stored.update(Agent, writes, session=session) != len(writes) and living is not None:
        raise Outdated
