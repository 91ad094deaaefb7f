"""Costs calculated again by the price table as it stands now: of events whose cost it gave, or that have none."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

from models.prices import costs, entries
from models.prices.costs import Table
from models.store import database
from models.store.commits import Commits
from models.store.database import ASCENDING, Key, Row, Session, UpdateOne
from models.usage import resets, tallying
from models.usage.events import CostSource, UsageEvent, cost_source
from models.usage.tallying import Tally

_CHUNK: Final = 1000
_DEADLINE_S: Final = 60.0
_READ: Final = dict.fromkeys(
    (
        "agent", "at", "model", "provider", "prompt_tokens", "completion_tokens", "cached_tokens", "cache_write_tokens",
        "reasoning_tokens", "cost_nanodollars", "price", "reset",
    ),
    1,
)  # fmt: skip


@dataclass(slots=True)
class Share:
    """What changes for one agent's use of one model: events, and their known cost in nanodollars before and after."""

    events: int = 0
    before: int = 0
    after: int = 0
    unpriced_before: int = 0
    unpriced_after: int = 0


@dataclass(slots=True)
class Report:
    """What has been read, and what is priced otherwise now, by agent and model."""

    read: int = 0
    shares: dict[tuple[Key, str], Share] = field(default_factory=dict)

    def add(self, found: "Sequence[_Found]") -> None:
        """Note some events that are priced otherwise."""
        for each in found:
            share = self.shares.setdefault((each.row["agent"], each.row["model"]), Share())
            share.events += 1
            share.before += each.row.get("cost_nanodollars") or 0
            share.after += each.cost or 0
            share.unpriced_before += each.row.get("cost_nanodollars") is None
            share.unpriced_after += each.cost is None

    @property
    def whole(self) -> Share:
        """All of it together."""
        shares = self.shares.values()
        return Share(**{name: sum(getattr(each, name) for each in shares) for name in Share.__dataclass_fields__})


@dataclass(frozen=True, slots=True)
class _Found:
    """An event as stored, and what the table says of it now."""

    row: Row
    cost: int | None
    price: Key | None


async def reprice(
    zone: ZoneInfo, *, since: datetime, apply: bool, progress: Callable[[int], None] = lambda _: None
) -> Report:
    """Price events from `since` on again, a thousand at a time, by the table as it stands now.

    With `apply` the events of a thousand and all figures that they are in, by the days of `zone`, change in one
    transaction: whatever ends this, events and figures agree, and a second run does the rest. Collecting may go on. No
    alert is raised; the next event of an agent looks at its figures anyway. `progress` is told how many were read.
    """
    table = await entries.table()
    report = Report()
    change = _Repricing(table, zone)
    async with Commits(UsageEvent, deadline_s=_DEADLINE_S) as commits:
        last = ""
        while rows := await _after(last):
            last = rows[-1]["_id"]
            found = [other for row in rows if row["at"] >= since and (other := _otherwise(row, table)) is not None]
            if apply and found:
                await commits.submit(change, [each.row["_id"] for each in found], weight=len(found))
            report.add(found)
            report.read += len(rows)
            progress(report.read)
    return report


class _Repricing:
    """The change that new costs are, for `models/store/commits.py`: of the events with these keys."""

    def __init__(self, table: Table, zone: ZoneInfo) -> None:
        self._table = table
        self._zone = zone

    async def prepare(self, items: Sequence[Sequence[str]]) -> None:
        """Read nothing before: all of it may change."""

    async def apply(
        self,
        items: Sequence[Sequence[str]],
        prepared: None,  # noqa: ARG002  # nothing is
        *,
        commit: Key,  # noqa: ARG002  # what is priced already is not found to be otherwise
        again: bool,  # noqa: ARG002  # as above
        session: Session,
    ) -> Sequence[None]:
        """Price the events again that are priced otherwise still, and add the difference to every figure."""
        keys = [key for item in items for key in item]
        rows = database.collection(UsageEvent)
        stored = rows.find({"_id": {"$in": keys}}, _READ, session=session)
        found = [other async for row in stored if (other := _otherwise(row, self._table)) is not None]
        tally = Tally(await resets.of_agents({each.row["agent"] for each in found}, session=session))
        for each in found:
            tally.adjust(each.row, _difference(each), self._zone)
        # Figures first: what collectors are changing too shows here as a conflict, before work is done.
        await tallying.keep(tally, session=session)
        writes = [UpdateOne({"_id": each.row["_id"]}, _update(each)) for each in found]
        if writes:
            await rows.bulk_write(writes, ordered=False, session=session)
        return [None] * len(items)

    def committed(self) -> None:
        """Nobody waits to be told."""


async def _after(last: str) -> Sequence[Row]:
    # Not filtered by time: a search through many events of which few count would take longer than an operation may.
    cursor = database.collection(UsageEvent).find({"_id": {"$gt": last}}, _READ).sort("_id", ASCENDING)
    found: Sequence[Row] = await cursor.limit(_CHUNK).to_list(_CHUNK)
    return found


def _otherwise(row: Row, table: Table) -> _Found | None:
    """Give what an event costs now, where that is another cost or another price than what is stored."""
    if cost_source(row) is CostSource.REPORTED:
        return None
    bare: dict[str, Any] = {name: value for name, value in row.items() if name not in {"cost_nanodollars", "price"}}
    costs.price(bare, table)
    cost, price = bare.get("cost_nanodollars"), bare.get("price")
    is_same = cost == row.get("cost_nanodollars") and price == row.get("price")
    return None if is_same else _Found(row, cost, price)


def _difference(each: _Found) -> dict[str, int]:
    before = each.row.get("cost_nanodollars")
    return {
        "cost_nanodollars": (each.cost or 0) - (before or 0),
        "unpriced_events": int(each.cost is None) - int(before is None),
    }


def _update(each: _Found) -> Mapping[str, Any]:
    values = {"cost_nanodollars": each.cost, "price": each.price}
    said = {name: value for name, value in values.items() if value is not None}
    return {"$set": said} if said else {"$unset": dict.fromkeys(values, "")}
