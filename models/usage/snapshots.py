"""Cumulative reports: the last one of each agent and source is kept, and a new one counts by its difference from it."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, ClassVar, Final
from zoneinfo import ZoneInfo

from models import text
from models.agents import AgentFields, Discipline
from models.alerts import rules
from models.errors import BadInput
from models.store import database
from models.store.database import ASCENDING, IndexModel, Key, ReplaceOne, Row, Session, Stored
from models.usage import crossings, events, reported, tallying
from models.usage.days import Cell, Sums
from models.usage.events import ItemOutcome, Outcome
from models.usage.reported import Said
from models.usage.tallying import Tally

MOST_DAYS: Final = 4000
WEIGHT: Final = 4
"""What one report weighs in a group commit, beside an event: some hundred figures may change with it."""

_SPLIT: Final = ("prompt_tokens", "completion_tokens")
_TOKENS: Final = (*_SPLIT, "unsplit_tokens")
_TOTALS: Final = ("messages", "conversations", "users", *_TOKENS)
_OF_A_DAY: Final = ("messages", *_TOKENS)


class UsageSnapshot(Stored):
    """What one source last reported of one agent; with the events it is all that figures are computed from."""

    id: str  # type: ignore[assignment]  # agent and source
    agent: Key
    source: str
    reported_at: datetime
    totals: dict[str, int]
    days: dict[str, dict[str, int]]
    content: bytes
    commit: Key
    applied: list[bytes]

    class Settings:
        """Where it is stored."""

        name = "usage_snapshots"
        indexes: ClassVar[list[IndexModel]] = [IndexModel([("agent", ASCENDING)], name="agent")]


@dataclass(frozen=True, slots=True)
class Day:
    """One day of a report; what is None was not said."""

    day: date
    messages: int = 0
    total_tokens: int | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a source reports of an agent as a whole; what is None was not said."""

    name: str
    source: str
    reported_at: datetime
    discipline: Discipline | None = None
    description: str | None = None
    messages: int | None = None
    conversations: int | None = None
    users: int | None = None
    total_tokens: int | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    timeline: Sequence[Day] | None = None

    def content(self) -> bytes:
        """Digest what the report says (16 bytes)."""
        return hashlib.blake2b(repr(self).encode("utf-8", "surrogatepass"), digest_size=16).digest()


@dataclass(frozen=True, slots=True)
class Report:
    """The snapshots of one request, parted: those that may be applied, and those refused, by their place."""

    snapshots: Sequence[Snapshot]
    refused: Mapping[int, Outcome]
    now: datetime

    def merged(self, applied: Sequence[Outcome]) -> Sequence[Outcome]:
        """Put the outcomes back in the order in which the snapshots were reported."""
        rest = iter(applied)
        size = len(self.refused) + len(applied)
        return [self.refused[place] if place in self.refused else next(rest) for place in range(size)]


@dataclass(slots=True)
class _Kept:
    """What is known of one agent and source while a commit applies to it."""

    reported_at: datetime | None = None
    totals: Sums = field(default_factory=dict)
    days: dict[str, Sums] = field(default_factory=dict)
    content: bytes = b""
    own: set[bytes] = field(default_factory=set)
    """Contents that this very commit has applied in an earlier try."""
    applied: list[bytes] = field(default_factory=list)
    """Contents that this try has applied."""


class Snapshots:
    """The change that snapshots are, for `models/store/commits.py`."""

    def __init__(self, zone: ZoneInfo, *, alerting: bool = True, raised: Callable[[], None] = lambda: None) -> None:
        """`zone`: whose days are reported; `alerting`: whether what they cross is told.

        `raised` is called when alerts have been stored.
        """
        self._zone = zone
        self._alerting = alerting
        self._tell = raised
        self._raised = 0

    def committed(self) -> None:
        """Tell of alerts."""
        if self._raised:
            self._raised = 0
            self._tell()

    async def prepare(self, items: Sequence[Report]) -> None:
        """Read nothing before: all of it may change."""

    async def apply(
        self,
        items: Sequence[Report],
        prepared: None,  # noqa: ARG002  # nothing is
        *,
        commit: Key,
        again: bool,  # noqa: ARG002  # what is kept of a source is read each time
        session: Session,
    ) -> Sequence[Sequence[Outcome]]:
        """Apply what is newer than the last report of its source, and say of each what became of it."""
        given = [each for report in items for each in report.snapshots]
        said = {
            each.name.strip(): Said(each.discipline, (each.description or "").replace("\r\n", "\n").strip())
            for each in given
        }
        keys = await reported.keys(said, now=items[-1].now, session=session)
        places = {_key(keys[each.name.strip()], each.source): (keys[each.name.strip()], each.source) for each in given}
        kept = await _kept(places, commit=commit, session=session)
        tally = Tally()
        outcomes = [
            [self._apply(each, keys[each.name.strip()], kept=kept, tally=tally) for each in report.snapshots]
            for report in items
        ]
        writes = [
            ReplaceOne({"_id": place}, _row(*places[place], state, commit=commit), upsert=True)
            for place, state in sorted(kept.items())
            if state.applied
        ]
        if writes:
            await tallying.keep(tally, session=session)
            if self._alerting:
                self._raised += await crossings.raise_for(tally, zone=self._zone, session=session)
            await database.collection(UsageSnapshot).bulk_write(writes, ordered=False, session=session)
        return outcomes

    def _apply(self, snapshot: Snapshot, agent: Key, *, kept: Mapping[str, _Kept], tally: Tally) -> Outcome:
        state = kept[_key(agent, snapshot.source)]
        content = snapshot.content()
        if content in state.own and content not in state.applied:
            state.applied.append(content)
            return events.ACCEPTED
        if state.reported_at is not None and snapshot.reported_at <= state.reported_at:
            if content == state.content:
                return events.DUPLICATE
            return _SAME_TIME if snapshot.reported_at == state.reported_at else _outdated(state.reported_at)
        days, totals = _days_of(snapshot, state.days), state.totals
        totals = _totals_of(snapshot, totals, days)
        tally.totals[agent] = _plus(tally.totals.get(agent, {}), _minus(totals, state.totals))
        changes = {day: _minus(days.get(day, {}), state.days.get(day, {})) for day in days.keys() | state.days.keys()}
        _count_days(tally, agent, changes, zone=self._zone)
        if not days and any(totals.values()):
            tally.span(agent, snapshot.reported_at)
        state.reported_at, state.totals, state.days, state.content = snapshot.reported_at, totals, days, content
        state.applied.append(content)
        return events.ACCEPTED


_SAME_TIME: Final = Outcome(
    ItemOutcome.DUPLICATE,
    code=events.CONTENT_DIFFERS.code,
    message="This source has reported something else for the same `reportedAt`; nothing changed. "
    "Correct a report with a later one.",
    field="reported_at",
)


def _outdated(newest: datetime) -> Outcome:
    return events.rejected(
        "reported_at",
        f"A later report of this source, of {newest.isoformat()}, is in place; nothing changed.",
        code="OUTDATED",
    )


# ---------------------------------------------------------------- reads


async def _kept(places: Mapping[str, Any], *, commit: Key, session: Session) -> dict[str, _Kept]:
    found = {place: _Kept() for place in places}
    async for row in database.collection(UsageSnapshot).find({"_id": {"$in": list(places)}}, session=session):
        own = set(row["applied"]) if row["commit"] == commit else set()
        found[row["_id"]] = _Kept(row["reported_at"], row["totals"], row["days"], row["content"], own)
    return found


async def last_of(agents: Sequence[Key], *, source: str) -> Mapping[Key, Row]:
    """Read what a source last reported of many agents; those of which it never did are left out."""
    places = [_key(agent, source) for agent in agents]
    return {row["agent"]: row async for row in database.collection(UsageSnapshot).find({"_id": {"$in": places}})}


def read(reported: Sequence[Snapshot], *, now: datetime) -> Report:
    """Check what a request reports. Raises `BadInput` for a number of snapshots that no request may have."""
    events.check_size(len(reported), field="agents")
    refused: dict[int, Outcome] = {}
    fit: list[Snapshot] = []
    for place, snapshot in enumerate(reported):
        wrong = fault(snapshot, now=now)
        if wrong is not None:
            refused[place] = wrong
        else:
            fit.append(snapshot)
    return Report(fit, refused, now)


# ---------------------------------------------------------------- rules


def says(row: Row, snapshot: Snapshot) -> bool:
    """Whether a stored report says the same as a snapshot, whenever either was made."""
    days = _days_of(snapshot, row["days"])
    return bool(days == row["days"] and _totals_of(snapshot, row["totals"], days) == row["totals"])


def after(row: Row, snapshot: Snapshot) -> Snapshot:
    """Date a snapshot after a stored report, so that it replaces it."""
    return replace(snapshot, reported_at=max(snapshot.reported_at, row["reported_at"] + timedelta(milliseconds=1)))


def count(tally: Tally, row: Row, zone: ZoneInfo) -> None:
    """Count one stored snapshot into a tally, as a rebuild does."""
    agent = row["agent"]
    tally.totals[agent] = _plus(tally.totals.get(agent, {}), row["totals"])
    _count_days(tally, agent, row["days"], zone=zone)
    if not row["days"] and any(row["totals"].values()):
        tally.span(agent, row["reported_at"])


def _count_days(tally: Tally, agent: Key, changes: Mapping[str, Mapping[str, int]], *, zone: ZoneInfo) -> None:
    for written, change in changes.items():
        if not change:
            continue
        day = date.fromisoformat(written)
        cell = Cell.of_day(agent, events.UNNAMED_MODEL, day)
        tally.days[cell] = _plus(tally.days.get(cell, {}), change)
        if any(value > 0 for value in change.values()):
            # No report tells the hour: the day's beginning stands for it.
            tally.use(cell, rules.start_of(day, zone))


def fault(snapshot: Snapshot, *, now: datetime) -> Outcome | None:
    """Say what is wrong with a snapshot, or None."""
    try:
        events.check_source(snapshot.source)
        said = {"name": snapshot.name, "description": snapshot.description, "discipline": snapshot.discipline}
        text.validate(AgentFields, {name: value for name, value in said.items() if value is not None})
    except BadInput as error:
        return events.rejected(error.field or "name", error.message)
    if not events.EARLIEST <= snapshot.reported_at <= now + events.AHEAD:
        return events.rejected("reported_at", f"A time lies between {events.EARLIEST:%Y-%m-%d} and 24 hours from now.")
    return _fault_of_counts(snapshot) or _fault_of_days(snapshot)


def _fault_of_counts(said: Snapshot | Day, *, at: str = "") -> Outcome | None:
    for name in ("messages", "conversations", "users", "total_tokens", *_SPLIT):
        value = getattr(said, name, None)
        if value is not None and not 0 <= value <= _MOST:
            return events.rejected(f"{at}{name}", f"A count lies between 0 and {_MOST}.")
    split = (said.prompt_tokens or 0) + (said.completion_tokens or 0)
    if said.total_tokens is not None and said.total_tokens < split:
        return events.rejected(
            f"{at}total_tokens", "The total is below prompt and completion tokens together. Leave it out, or mend it."
        )
    return None


def _fault_of_days(snapshot: Snapshot) -> Outcome | None:
    timeline = snapshot.timeline or ()
    if len(timeline) > MOST_DAYS:
        return events.rejected("timeline", f"At most {MOST_DAYS} days.")
    # Somewhere on earth it is already tomorrow.
    latest = snapshot.reported_at.astimezone(UTC).date() + timedelta(days=1)
    seen: set[date] = set()
    for place, day in enumerate(timeline):
        at = f"timeline.{place}."
        if not events.EARLIEST.date() <= day.day <= latest:
            return events.rejected(f"{at}day", f"A day lies between {events.EARLIEST:%Y-%m-%d} and the report's own.")
        if day.day in seen:
            return events.rejected(f"{at}day", f"{day.day} stands twice in this timeline.")
        seen.add(day.day)
        if wrong := _fault_of_counts(day, at=at):
            return wrong
    return None


_MOST: Final = 10**15


def _figures(said: Snapshot | Day) -> Sums:
    prompt, completion = said.prompt_tokens or 0, said.completion_tokens or 0
    total = said.total_tokens if said.total_tokens is not None else prompt + completion
    return {
        "messages": said.messages or 0,
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "unsplit_tokens": total - prompt - completion,
    }


def _days_of(snapshot: Snapshot, before: Mapping[str, Sums]) -> dict[str, Sums]:
    """Give a source's days after a report: it says everything from its first day on, and nothing of those before."""
    if not snapshot.timeline:
        return dict(before)
    first = min(day.day for day in snapshot.timeline).isoformat()
    kept = {day: sums for day, sums in before.items() if day < first}
    said = {day.day.isoformat(): _some(_figures(day)) for day in snapshot.timeline}
    return kept | {day: sums for day, sums in said.items() if sums}


def _totals_of(snapshot: Snapshot, before: Sums, days: Mapping[str, Sums]) -> Sums:
    """Give a source's totals after a report; what it leaves out is the sum of its days, or stays as it was."""
    figures = dict(before)
    summed = {name: sum(sums.get(name, 0) for sums in days.values()) for name in _OF_A_DAY} if days else {}
    tokens_said = any(getattr(snapshot, name) is not None for name in ("total_tokens", *_SPLIT))
    said = _figures(snapshot)
    for name in _TOKENS:
        figures[name] = said[name] if tokens_said else summed.get(name, figures.get(name, 0))
    figures["messages"] = (
        snapshot.messages if snapshot.messages is not None else summed.get("messages", figures.get("messages", 0))
    )
    for name in ("conversations", "users"):
        value: int | None = getattr(snapshot, name)
        if value is not None:
            figures[name] = value
    return {name: figures.get(name, 0) for name in _TOTALS}


def _some(sums: Sums) -> Sums:
    return {name: value for name, value in sums.items() if value}


def _plus(one: Mapping[str, int], other: Mapping[str, int]) -> Sums:
    return {name: one.get(name, 0) + other.get(name, 0) for name in one.keys() | other.keys()}


def _minus(one: Mapping[str, int], other: Mapping[str, int]) -> Sums:
    return _some({name: one.get(name, 0) - other.get(name, 0) for name in one.keys() | other.keys()})


def _key(agent: Key, source: str) -> str:
    return f"{agent}\x1f{source}"


def _row(agent: Key, source: str, state: _Kept, *, commit: Key) -> dict[str, Any]:
    return {
        "_id": _key(agent, source),
        "agent": agent,
        "source": source,
        "reported_at": state.reported_at,
        "totals": state.totals,
        "days": state.days,
        "content": state.content,
        "commit": commit,
        "applied": state.applied,
    }
