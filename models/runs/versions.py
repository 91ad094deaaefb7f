"""Versions of agents: what each is made of, and the metrics of its runs, kept as these are recorded."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, ClassVar, Final

from pydantic import AfterValidator, BaseModel, Field

from models import text
from models.enums import DescribedEnum
from models.runs.figures import Metrics
from models.store import database, pages
from models.store.database import (
    ASCENDING,
    DESCENDING,
    DuplicateKeyError,
    IndexModel,
    Key,
    Row,
    Session,
    Stored,
    UpdateOne,
)
from models.store.pages import Order, Page, Window

ACTIVE_FOR: Final = timedelta(hours=48)
_WORDS: Final = 300
_NAMED: Final = dict.fromkeys(("agent", "version", "cluster", "agent_name", "words"), 1)


class VersionStatus(DescribedEnum):
    """Whether a version is in use."""

    ACTIVE = "ACTIVE", "Had a run in the last 48 hours."
    INACTIVE = "INACTIVE", "Had none."


def _without_repeats(names: list[str]) -> list[str]:
    return list(dict.fromkeys(names))


Names = Annotated[list[Annotated[str, text.Line(200)]], Field(max_length=100), AfterValidator(_without_repeats)]


class VersionFields(BaseModel):
    """What is said of a version."""

    version: Annotated[str, text.Line(100)]
    cluster: Annotated[str, text.Line(200)] | None = None
    deployment: Annotated[str, text.Line(200)] | None = None
    tools: Names = []
    models: Names = []


class AgentVersion(Stored, VersionFields):
    """One version of an agent."""

    agent: Key
    agent_name: str
    words: list[str]
    created_at: datetime
    last_seen_at: datetime | None = None
    metrics: Metrics = Metrics()
    removed_runs: int = 0

    class Settings:
        """Where it is stored."""

        name = "agent_versions"
        indexes: ClassVar[list[IndexModel]] = [
            IndexModel([("agent", ASCENDING), ("version", ASCENDING)], unique=True, name="version"),
            IndexModel([("last_seen_at", DESCENDING), ("_id", DESCENDING)], name="last seen"),
            IndexModel([("created_at", DESCENDING), ("_id", DESCENDING)], name="created"),
            IndexModel([("metrics.total_runs", DESCENDING), ("_id", DESCENDING)], name="runs"),
            IndexModel([("metrics.cost_nanodollars", DESCENDING), ("_id", DESCENDING)], name="spend"),
            IndexModel([("agent", ASCENDING), ("created_at", DESCENDING), ("_id", DESCENDING)], name="of an agent"),
            IndexModel([("words", ASCENDING)], name="words"),
        ]


class AgentVersionOrderField(DescribedEnum):
    """What versions can be sorted by."""

    LAST_SEEN_AT = "LAST_SEEN_AT", "The beginning of the latest run; those without any count as the earliest."
    CREATED_AT = "CREATED_AT", "When it was first heard of."
    TOTAL_RUNS = "TOTAL_RUNS", "How many runs were recorded."
    SPEND = "SPEND", "The known cost of its runs."


LAST_SEEN: Final = Order("last_seen_at", descending=True)
NEWEST: Final = Order("created_at", descending=True)
_FIELDS: Final[Mapping[AgentVersionOrderField, str]] = {
    AgentVersionOrderField.LAST_SEEN_AT: "last_seen_at",
    AgentVersionOrderField.CREATED_AT: "created_at",
    AgentVersionOrderField.TOTAL_RUNS: "metrics.total_runs",
    AgentVersionOrderField.SPEND: "metrics.cost_nanodollars",
}


# ---------------------------------------------------------------- reads


async def find(agent: Key, version: str) -> Row | None:
    """Find one by its agent and name."""
    return await database.collection(AgentVersion).find_one({"agent": agent, "version": version.strip()})


async def by_keys(keys: Sequence[Key]) -> Mapping[Key, Row]:
    """Find many at once."""
    return {row["_id"]: row async for row in database.collection(AgentVersion).find({"_id": {"$in": list(keys)}})}


async def page(
    *, search: str | None, status: VersionStatus | None, now: datetime, order: Order, window: Window
) -> Page:
    """Read one page of all versions."""
    return await pages.read(database.collection(AgentVersion), _where(search, status, now), order=order, window=window)


async def count(*, search: str | None, status: VersionStatus | None, now: datetime) -> int:
    """Count versions."""
    return await database.collection(AgentVersion).count_documents(_where(search, status, now))


async def newest(agents: Sequence[Key], *, window: Window) -> Mapping[Key, Page]:
    """Read one page of each agent's versions, newest first."""
    return await pages.read_each(database.collection(AgentVersion), agents, field="agent", order=NEWEST, window=window)


async def counts(agents: Sequence[Key]) -> Mapping[Key, int]:
    """Count each agent's versions; agents without any are left out."""
    pipeline: list[Row] = [
        {"$match": {"agent": {"$in": list(agents)}}},
        {"$group": {"_id": "$agent", "count": {"$sum": 1}}},
    ]
    return {row["_id"]: row["count"] for row in await database.aggregate(AgentVersion, pipeline)}


# ---------------------------------------------------------------- writes


async def add(agent: Row, values: Mapping[str, Any], *, now: datetime) -> tuple[Row, bool]:
    """Add a version to an agent, or change what is said of it; says whether it is new.

    What is left out stays as it is. Raises `BadInput`.
    """
    checked = text.validate(VersionFields, values)
    rows = database.collection(AgentVersion)
    where = {"agent": agent["_id"], "version": checked["version"]}
    while True:
        row = await rows.find_one(where)
        if row is not None:
            changed = _changed(row, {**checked, **_found_by(agent, {**row, **checked})})
            if changed:
                row = await database.change_and_read(rows, {"_id": row["_id"]}, {"$set": changed})
            return row, False
        new = row_of(agent, checked, now=now)
        try:
            await rows.insert_one(new)
        except DuplicateKeyError:
            # Added by somebody else meanwhile.
            continue
        return new, True


async def keys_of(
    named: Mapping[tuple[Key, str], Row], *, now: datetime, session: Session
) -> Mapping[tuple[Key, str], Key]:
    """Give the keys of versions named by agent and version, unknown ones added; `named` gives each one's agent.

    An agent that is called otherwise by now is found by that.
    """
    rows = database.collection(AgentVersion)
    where = [{"agent": agent, "version": version} for agent, version in named]
    found: dict[tuple[Key, str], Key] = {}
    outdated: list[UpdateOne] = []
    async for row in rows.find({"$or": where}, _NAMED, session=session):
        named_so = row["agent"], row["version"]
        found[named_so] = row["_id"]
        if changed := _changed(row, _found_by(named[named_so], row)):
            outdated.append(UpdateOne({"_id": row["_id"]}, {"$set": changed}))
    if outdated:
        await rows.bulk_write(outdated, session=session)
    new = [row_of(named[each], {"version": each[1]}, now=now) for each in sorted(named.keys() - found.keys())]
    if new:
        await rows.insert_many(new, session=session)
    return found | {(row["agent"], row["version"]): row["_id"] for row in new}


# ---------------------------------------------------------------- rules


def order(by: AgentVersionOrderField, *, descending: bool) -> Order:
    """Give an order of all versions."""
    return Order(_FIELDS[by], descending=descending)


def row_of(agent: Row, values: Mapping[str, Any], *, now: datetime) -> dict[str, Any]:
    """Write a new version as stored."""
    said = {**VersionFields(version=values["version"]).model_dump(), **values}
    return {
        "_id": Key(),
        "agent": agent["_id"],
        **said,
        **_found_by(agent, said),
        "created_at": now,
        "last_seen_at": None,
        "metrics": Metrics().model_dump(),
        "removed_runs": 0,
    }


def _found_by(agent: Row, said: Mapping[str, Any]) -> dict[str, Any]:
    """Give what a version is found by, of what its agent is called now."""
    words = text.words(agent["name"], agent.get("project"), said["version"], said["cluster"], most=_WORDS)
    return {"agent_name": agent["name"], "words": words}


def _changed(row: Row, values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if row[name] != value}


def is_active(row: Row, *, now: datetime) -> bool:
    """Whether a version had a run lately."""
    return row["last_seen_at"] is not None and now - row["last_seen_at"] <= ACTIVE_FOR


def _where(search: str | None, status: VersionStatus | None, now: datetime) -> dict[str, Any]:
    since = now - ACTIVE_FOR
    lately: Mapping[VersionStatus, dict[str, Any]] = {
        VersionStatus.ACTIVE: {"last_seen_at": {"$gte": since}},
        VersionStatus.INACTIVE: {"$nor": [{"last_seen_at": {"$gte": since}}]},
    }
    return {**(lately[status] if status else {}), **text.search("words", search)}
