"""Runs as they are listed: of a version, of an agent, of the company; filtered, newest first."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from models import text
from models.errors import BadInput
from models.runs.reports import AgentRun, RunStatus
from models.runs.versions import AgentVersion
from models.store import database, pages
from models.store.database import DESCENDING, Key, Row
from models.store.pages import Order, Page, Window

NEWEST: Final = Order("created_at", descending=True)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which runs; what is left out does not matter. Each of them has an index that delivers the order."""

    statuses: tuple[RunStatus, ...] | None = None
    initiator: str | None = None
    task: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def where(self) -> dict[str, Any]:
        """Say it to the database."""
        named = {"initiator": self.initiator, "task_id": self.task}
        wanted: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
        if self.statuses is not None:
            wanted["status"] = {"$in": sorted({status.value for status in self.statuses})}
        if span := {name: at for name, at in (("$gte", self.since), ("$lt", self.until)) if at is not None}:
            wanted["created_at"] = span
        return wanted


EVERY: Final = Filter()


# ---------------------------------------------------------------- reads


async def find(key: Key) -> Row | None:
    """Find one by its key."""
    return await database.collection(AgentRun).find_one({"_id": key})


async def of_versions(keys: Sequence[Key], *, chosen: Filter, window: Window) -> Mapping[Key, Page]:
    """Read one page of each version's runs, newest first."""
    return await _each(keys, "version", chosen=chosen, window=window)


async def of_agents(keys: Sequence[Key], *, chosen: Filter, window: Window) -> Mapping[Key, Page]:
    """Read one page of each agent's runs, newest first."""
    return await _each(keys, "agent", chosen=chosen, window=window)


async def page(chosen: Filter, *, window: Window) -> Page:
    """Read one page of all runs, newest first."""
    return await pages.read(database.collection(AgentRun), chosen.where(), order=NEWEST, window=window)


async def recent(count: int) -> Sequence[Row]:
    """Read the runs of which something was heard last: of an end or a beginning."""
    cursor = database.collection(AgentRun).find({}).sort([("at", DESCENDING), ("_id", DESCENDING)])
    return await cursor.limit(count).to_list(count)


async def counts_of_versions(keys: Sequence[Key], *, chosen: Filter) -> Mapping[Key, int]:
    """Count the runs of versions; those without any are left out."""
    return await _counts("_id", keys, "version", chosen=chosen)


async def counts_of_agents(keys: Sequence[Key], *, chosen: Filter) -> Mapping[Key, int]:
    """Count the runs of agents; those without any are left out."""
    return await _counts("agent", keys, "agent", chosen=chosen)


async def count(chosen: Filter) -> int:
    """Count all runs."""
    if chosen != EVERY:
        return await database.collection(AgentRun).count_documents(chosen.where())
    (total,) = await database.aggregate(AgentVersion, [_stored(None)]) or [{"count": 0}]
    found: int = total["count"]
    return found


# ---------------------------------------------------------------- rules


async def _each(keys: Sequence[Key], field: str, *, chosen: Filter, window: Window) -> Mapping[Key, Page]:
    return await pages.read_each(
        database.collection(AgentRun), keys, field=field, where=chosen.where(), order=NEWEST, window=window
    )


async def _counts(own: str, keys: Sequence[Key], field: str, *, chosen: Filter) -> Mapping[Key, int]:
    """Count runs that match; all of them from what is kept of versions, which costs nothing."""
    if chosen == EVERY:
        kept = await database.aggregate(AgentVersion, [{"$match": {own: {"$in": list(keys)}}}, _stored(f"${own}")])
        return {row["_id"]: row["count"] for row in kept}
    found = await database.aggregate(
        AgentRun,
        [
            {"$match": {field: {"$in": list(keys)}, **chosen.where()}},
            {"$group": {"_id": f"${field}", "count": {"$sum": 1}}},
        ],
    )
    return {row["_id"]: row["count"] for row in found}


def _stored(by: str | None) -> Row:
    """Add up versions' runs less those that were removed since."""
    runs = {"$subtract": ["$metrics.total_runs", {"$ifNull": ["$removed_runs", 0]}]}
    return {"$group": {"_id": by, "count": {"$sum": runs}}}


def chooser(agents: Collection[Key] | None) -> Callable[[Row], bool]:
    """Make the test that picks the runs of some agents."""
    return lambda row: agents is None or row["agent"] in agents


def checked(chosen: Filter) -> Filter:
    """Check a filter. Raises `BadInput`."""
    for name, value in (("filter.initiator", chosen.initiator), ("filter.task", chosen.task)):
        if value is not None and (not value or text.is_unfit(value)):
            raise BadInput.at(name, "1 character or more, no control characters and no line breaks.")
    if chosen.statuses == ():
        raise BadInput.at("filter.status", "Name one status or more, or leave it out.")
    if chosen.since and chosen.until and chosen.since >= chosen.until:
        raise BadInput.at("filter.from", "`from` lies before `to`.")
    return chosen
