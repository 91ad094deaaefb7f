"""The registry: create, change, find, search, mark as deleted."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, ClassVar, Final

from pydantic import AfterValidator, BaseModel, Field

from models import text
from models.agents import declared
from models.agents.declared import Declaration
from models.enums import DescribedEnum
from models.errors import Conflict, Fault, Forbidden, NotFound
from models.store import database, pages
from models.store.database import ASCENDING, DuplicateKeyError, IndexModel, Key, ReturnDocument, Row, Session, Stored
from models.store.pages import Order, Page, Window


class AgentStatus(DescribedEnum):
    """Where an agent stands in its life."""

    ACTIVE = "ACTIVE", "In use."
    INACTIVE = "INACTIVE", "Switched off, may come back."
    DEVELOPMENT = "DEVELOPMENT", "Being built."
    DEPRECATED = "DEPRECATED", "To be replaced; start nothing new on it."


class AuditStatus(DescribedEnum):
    """Whether an agent has passed the company's audit."""

    AUDITED = "AUDITED", "Passed the audit."
    NOT_AUDITED = "NOT_AUDITED", "Not audited yet."


class Discipline(DescribedEnum):
    """The part of the company an agent works for."""

    STRATEGY = "STRATEGY", "Strategy."
    CREATIVE = "CREATIVE", "Creative."
    OVERSIGHT = "OVERSIGHT", "Oversight, including delivery."
    OPTIMIZATION = "OPTIMIZATION", "Optimization."
    BACK_OFFICE = "BACK_OFFICE", "Back office, including operations."
    PENCIL_AGENTS = "PENCIL_AGENTS", "Pencil agents: set by itself for a collected agent with “pencil” in its name."


class AgentOrderField(DescribedEnum):
    """What a list of agents may be ordered by."""

    NAME = "NAME", "Name, without regard to case."
    CREATED_AT = "CREATED_AT", "When it was registered."
    UPDATED_AT = "UPDATED_AT", "When its description last changed."
    LAST_USED_AT = "LAST_USED_AT", "When it was last used; agents never used count as the earliest."
    RATING = "RATING", "Average stars; unrated agents count as the lowest."
    TOTAL_TOKENS = "TOTAL_TOKENS", "Lifetime tokens."
    MESSAGES = "MESSAGES", "Lifetime messages."


class Direction(DescribedEnum):
    """Which way a list is ordered."""

    ASC = "ASC", "Smallest, earliest or first in the alphabet first."
    DESC = "DESC", "Largest, latest or last in the alphabet first."


def _without_repeats(tags: list[str]) -> list[str]:
    return list(dict.fromkeys(tags))


class AgentFields(BaseModel):
    """What people write about an agent; an editable field stands here, in the type and in the inputs."""

    name: Annotated[str, text.Line(200)]
    description: Annotated[str, text.Lines(10_000)] = ""
    project: Annotated[str, text.Line(100)] | None = None
    discipline: Discipline | None = None
    status: AgentStatus = AgentStatus.ACTIVE
    audit_status: AuditStatus = AuditStatus.NOT_AUDITED
    tags: Annotated[list[Annotated[str, text.Line(50)]], Field(max_length=20), AfterValidator(_without_repeats)] = []
    userbase: Annotated[str, text.Line(200)] | None = None
    department: Annotated[str, text.Line(100)] | None = None
    contact_person: Annotated[str, text.Line(200)] | None = None


class LifetimeUsage(BaseModel):
    """An agent's totals since it is known; kept by `models/usage/counting.py`, in the transaction of each event."""

    messages: int = 0
    requests: int = 0
    conversations: int = 0
    users: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    unsplit_tokens: int = 0
    total_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    cost_nanodollars: int = 0
    unpriced_events: int = 0
    latency_ms: int = 0
    timed_events: int = 0
    first_used_at: datetime | None = None
    last_used_at: datetime | None = None


class Stars(BaseModel):
    """What an agent's ratings come to; kept by `models/ratings.py`."""

    count: int = 0
    sum: int = 0
    average: float | None = None
    distribution: dict[str, int] = {"1": 0, "2": 0, "3": 0, "4": 0, "5": 0}


class Agent(Stored, AgentFields):
    """One agent, with the figures that lists are ordered by."""

    owner: Key | None = None
    name_folded: str
    words: list[str]
    usage: LifetimeUsage = LifetimeUsage()
    rating: Stars = Stars()
    declared: Declaration | None = None
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None = None
    usage_reset: int | None = None

    class Settings:
        """Where it is stored, and an index for each order that a list may have."""

        name = "agents"
        indexes: ClassVar[list[IndexModel]] = [
            # A deleted agent keeps its name and its history, and a new one may take the name.
            IndexModel([("name", ASCENDING), ("deleted_at", ASCENDING)], unique=True, name="name"),
            IndexModel([("owner", ASCENDING), ("name_folded", ASCENDING), ("_id", ASCENDING)], name="owner"),
            IndexModel([("words", ASCENDING)], name="words"),
            *(
                IndexModel([("deleted_at", ASCENDING), (field, ASCENDING), ("_id", ASCENDING)], name=f"by {field}")
                for field in (
                    "name_folded",
                    "created_at",
                    "updated_at",
                    "usage.last_used_at",
                    "rating.average",
                    "usage.total_tokens",
                    "usage.messages",
                )
            ),
        ]


Ref = Key | str
"""What names an agent: its key, or its name."""

ORDERS: Final[Mapping[AgentOrderField, str]] = {
    AgentOrderField.NAME: "name_folded",
    AgentOrderField.CREATED_AT: "created_at",
    AgentOrderField.UPDATED_AT: "updated_at",
    AgentOrderField.LAST_USED_AT: "usage.last_used_at",
    AgentOrderField.RATING: "rating.average",
    AgentOrderField.TOTAL_TOKENS: "usage.total_tokens",
    AgentOrderField.MESSAGES: "usage.messages",
}
BY_NAME: Final = Order("name_folded")

# Equal to null would also mean missing, which is two ranges of an index; its order could not be read off it then.
_NULL: Final = {"$type": "null"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which agents are meant; what is None does not matter."""

    search: str | None = None
    status: Sequence[AgentStatus] | None = None
    audit_status: AuditStatus | None = None
    discipline: Sequence[Discipline] | None = None
    project: str | None = None
    tag: str | None = None
    owner: Key | None = None
    unclaimed: bool | None = None

    def where(self) -> dict[str, Any]:
        """Say it as MongoDB understands it."""
        wanted: dict[str, Any] = {"deleted_at": _NULL}
        if self.status is not None:
            wanted["status"] = {"$in": [value.value for value in self.status]}
        if self.audit_status is not None:
            wanted["audit_status"] = self.audit_status.value
        if self.discipline is not None:
            wanted["discipline"] = {"$in": [value.value for value in self.discipline]}
        if self.project is not None:
            wanted["project"] = self.project
        if self.tag is not None:
            wanted["tags"] = self.tag
        if self.unclaimed is not None:
            wanted["owner"] = None if self.unclaimed else {"$ne": None}
        if self.owner is not None:
            wanted["owner"] = self.owner
        return {**wanted, **text.search("words", self.search)}


# ---------------------------------------------------------------- reads


async def find(ref: Ref, *, session: Session | None = None) -> Row | None:
    """Find one by key or name."""
    return await database.collection(Agent).find_one(_which(ref), session=session)


async def require(ref: Ref, *, field: str = "by", session: Session | None = None) -> Row:
    """Find one by key or name; `NotFound` names the input `field`."""
    row = await find(ref, session=session)
    if row is None:
        raise NotFound("There is no such agent.", field=field)
    return row


async def by_keys(keys: Sequence[Key], *, session: Session | None = None) -> Mapping[Key, Row]:
    """Find many at once; deleted ones too, since what hangs on them still names them."""
    rows = database.collection(Agent).find({"_id": {"$in": list(keys)}}, session=session)
    return {row["_id"]: row async for row in rows}


async def by_refs(refs: Sequence[Ref], *, session: Session | None = None) -> Mapping[Ref, Key]:
    """Find the keys of many, named by key or name; a ref that finds nothing is left out."""
    return {ref: row["_id"] for ref, row in (await counted(refs, session=session)).items()}


async def counted(refs: Sequence[Ref], *, session: Session | None = None) -> Mapping[Ref, Row]:
    """Find many, named by key or name, with the reset that their usage counts from; what is not there is left out."""
    keys = [ref for ref in refs if isinstance(ref, Key)]
    names = [ref for ref in refs if isinstance(ref, str)]
    found: dict[Ref, Row] = {}
    for field, wanted in (("_id", keys), ("name", names)):
        if wanted:
            where = {field: {"$in": wanted}, "deleted_at": None}
            async for row in database.collection(Agent).find(where, {"name": 1, "usage_reset": 1}, session=session):
                found[row[field]] = row
    return found


async def by_names(names: Sequence[str], *, session: Session) -> Mapping[str, Row]:
    """Find many at once by name; a name that finds nothing is left out."""
    where = {"name": {"$in": list(names)}, "deleted_at": None}
    return {row["name"]: row async for row in database.collection(Agent).find(where, session=session)}


async def page(chosen: Filter, *, order: Order, window: Window, needed: Collection[str] | None = None) -> Page:
    """Read one page, of each row only what is `needed`; by the index of its order, unless words are searched."""
    hint = None if chosen.search else f"by {order.field}"
    # A page tells its places by the field of its order.
    projection = {"words": 0}
    if needed is not None:
        in_it = order.field.partition(".")[0] in needed
        projection = dict.fromkeys([*needed, *([] if in_it else [order.field])], 1)
    return await pages.read(
        database.collection(Agent), chosen.where(), order=order, window=window, projection=projection, hint=hint
    )


async def owned(owners: Sequence[Key], *, window: Window) -> Mapping[Key, Page]:
    """Read one page of each person's agents, by name."""
    source, living = database.collection(Agent), {"deleted_at": _NULL}
    return await pages.read_each(
        source, owners, field="owner", where=living, order=BY_NAME, window=window, projection={"words": 0}
    )


async def counts(owners: Sequence[Key]) -> Mapping[Key, int]:
    """Count each person's agents; people without any are left out."""
    pipeline: Sequence[Row] = [
        {"$match": {"owner": {"$in": list(owners)}, "deleted_at": None}},
        {"$group": {"_id": "$owner", "count": {"$sum": 1}}},
    ]
    return {row["_id"]: row["count"] for row in await database.aggregate(Agent, pipeline)}


async def count(chosen: Filter) -> int:
    """Count those a filter means."""
    return await database.collection(Agent).count_documents(chosen.where())


async def keys_of(chosen: Filter) -> Sequence[Key]:
    """Give the keys of those a filter means."""
    return [row["_id"] async for row in database.collection(Agent).find(chosen.where(), {"_id": 1})]


# ---------------------------------------------------------------- writes


async def create(values: Mapping[str, Any], *, owner: Key | None, by_person: bool, now: datetime) -> Row:
    """Register an agent; a person says the discipline.

    Raises `BadInput` with every fault, `Conflict` for a name that is taken.
    """
    untold = by_person and values.get("discipline") is None
    missing = [Fault(("discipline",), "Say which discipline the agent works for.", "REQUIRED")] if untold else []
    checked = text.validate(AgentFields, values, partial=False, faults=missing)
    try:
        new = row(checked, owner=owner, now=now)
        await database.collection(Agent).insert_one(new)
    except DuplicateKeyError:
        raise _taken() from None
    return new


async def update(ref: Ref, values: Mapping[str, Any], *, only_owner: Key | None, now: datetime) -> Row:
    """Change the given fields and no others; `only_owner` limits it to that person's agents."""
    changed = text.validate(AgentFields, values)

    async def body(session: Session) -> Row:
        before = await _mine(ref, only_owner, session=session)
        if all(before[name] == value for name, value in changed.items()):
            return before
        if changed.get("name", before["name"]) != before["name"]:
            declared.refuse_part(before, field="name")
        after: Row = await database.change_and_read(
            database.collection(Agent),
            {"_id": before["_id"]},
            {"$set": {**changed, **derived({**before, **changed}), "updated_at": now}},
            session=session,
        )
        return after

    try:
        return await database.transaction(Agent, body)
    except DuplicateKeyError:
        raise _taken() from None


async def delete(ref: Ref, *, only_owner: Key | None, now: datetime) -> Key:
    """Mark as deleted: found no more, its name free again, its history kept until erasure."""

    async def body(session: Session) -> Key:
        row = await _mine(ref, only_owner, session=session)
        declared.refuse_part(row, field="agent")
        await database.collection(Agent).update_one({"_id": row["_id"]}, {"$set": {"deleted_at": now}}, session=session)
        key: Key = row["_id"]
        return key

    return await database.transaction(Agent, body)


async def claim(ref: Ref, *, owner: Key, now: datetime) -> Row:
    """Take over an agent that nobody owns. Raises `Conflict` when somebody does."""
    after = await database.collection(Agent).find_one_and_update(
        {**_which(ref), "owner": None},
        {"$set": {"owner": owner, "updated_at": now}},
        return_document=ReturnDocument.AFTER,
    )
    if after is None:
        await require(ref, field="agent")
        raise Conflict("This agent has an owner already. Ask the owner or an admin.", field="agent")
    return after


# ---------------------------------------------------------------- rules


def by_name(name: str) -> Discipline | None:
    """Guess the discipline that a name tells."""
    return Discipline.PENCIL_AGENTS if "pencil" in name.casefold() else None


_MOST_WORDS: Final = 500
_SEARCHED: Final = ("name", "description", "department", "contact_person", "project")


def derived(row: Mapping[str, Any]) -> dict[str, Any]:
    """Give what is stored of an agent to order and to find it by."""
    words = text.words(*(row.get(field) for field in _SEARCHED), *row.get("tags", ()), most=_MOST_WORDS)
    return {"name_folded": text.fold(row["name"]), "words": words}


def row(values: Mapping[str, Any], *, owner: Key | None, now: datetime, key: Key | None = None) -> dict[str, Any]:
    """Write a new agent as stored."""
    agent = Agent(**values, **derived(values), owner=owner, created_at=now, updated_at=now)
    # What an agent has not had yet is left out: `$min` takes a stored null for the smallest of times.
    used = agent.usage.model_dump(exclude_none=True)
    return {"_id": key or Key(), **agent.model_dump(exclude={"id", "revision_id"}), "usage": used}


def _which(ref: Ref) -> dict[str, Any]:
    return {"_id" if isinstance(ref, Key) else "name": ref if isinstance(ref, Key) else ref.strip(), "deleted_at": None}


async def _mine(ref: Ref, only_owner: Key | None, *, session: Session) -> Row:
    row = await require(ref, field="agent", session=session)
    if only_owner is not None and row["owner"] != only_owner:
        raise Forbidden("Only the owner of an agent, or an admin, may change it.", field="agent")
    return row


def _taken() -> Conflict:
    return Conflict("There is an agent of this name already.", field="name")
