"""What is declared, made so: agents registered, changed and retired, alert rules kept, all in one transaction."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

from pydantic import ConfigDict

from models import agents
from models.agents import Agent
from models.agents.declared import Declaration
from models.alerts import rules
from models.alerts.rules import AlertRule
from models.budgets import defaults
from models.enums import DescribedEnum
from models.errors import Conflict
from models.organism.declaring import Declared, Member
from models.store import database, pages, turns
from models.store.database import InsertOne, Key, Row, Session, Stored, UpdateOne
from models.store.pages import Page, Window
from models.threads import activity, delivery, events
from models.threads.activity import AgentState
from models.threads.events import EventKind
from models.threads.messages import Message


class ChangeKind(DescribedEnum):
    """What became of a part of the organism."""

    ADDED = "ADDED", "It was not declared before: an agent is registered now, where nobody had."
    CHANGED = "CHANGED", "Something else is declared of it."
    REMOVED = "REMOVED", "It is declared no more: an agent is retired, and keeps its history; a rule is deleted."


class OrganismPart(DescribedEnum):
    """What an organism has."""

    ORGANISM = "ORGANISM", "The organism itself: its name, description and default budget."
    AGENT = "AGENT", "An agent or a listener."
    CAPABILITY = "CAPABILITY", "A capability."
    ALERT_RULE = "ALERT_RULE", "An alert rule."


@dataclass(frozen=True, slots=True, order=True)
class Change:
    """One change that applying a file made; `fields`: what is different, of one that was there before."""

    part: OrganismPart
    name: str
    kind: ChangeKind
    fields: tuple[str, ...] = ()


class Organism(Stored):
    """The organism as last declared; there is one.

    `members` are its agents, those that have been retired left out; `budget` the tokens of a new thread; `changes` what
    the last change of it was, by which `commit` knows its own work.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    id: str  # type: ignore[assignment]  # a word, where Beanie expects an ObjectId
    name: str
    description: str = ""
    budget: int | None = None
    capabilities: list[dict[str, Any]] = []
    members: list[Key] = []
    commit: Key
    changes: list[dict[str, Any]] = []
    revision: int
    applied_at: datetime

    class Settings:
        """Where it is stored."""

        name = "organism"


_ONLY: Final = "organism"
_OWN: Final = ("name", "description", "budget")

# ---------------------------------------------------------------- reads


async def find(*, session: Session | None = None) -> Row | None:
    """Find the organism; None where none was ever declared."""
    return await database.collection(Organism).find_one({"_id": _ONLY}, session=session)


async def page(members: Sequence[Key], *, window: Window) -> Page:
    """Read one page of its agents, by name."""
    where = {"_id": {"$in": list(members)}}
    return await pages.read(
        database.collection(Agent), where, order=agents.BY_NAME, window=window, projection={"words": 0}
    )


async def capabilities(names: Sequence[str]) -> Mapping[str, Row]:
    """Find capabilities by name; a name that finds nothing is left out."""
    organism = await find()
    found = {each["name"]: each for each in (organism["capabilities"] if organism else ())}
    return {name: found[name] for name in names if name in found}


async def able(names: Sequence[str]) -> Mapping[str, Sequence[Row]]:
    """Find the agents that have each capability, by name."""
    organism = await find()
    where = {"_id": {"$in": organism["members"] if organism else []}, "declared.capabilities": {"$in": list(names)}}
    cursor = database.collection(Agent).find(where, {"words": 0}).sort(agents.BY_NAME.sort(backwards=False))
    able: dict[str, list[Row]] = {name: [] for name in names}
    async for row in cursor:
        for name in able.keys() & set(row["declared"]["capabilities"]):
            able[name].append(row)
    return able


async def counts(organism: Row | None) -> Row:
    """Count what it has, and what it is doing."""
    keys = organism["members"] if organism else []
    listeners = {"_id": {"$in": keys}, "declared.is_agent": False}
    doing = await activity.by_agents(keys)
    states = Counter(activity.state(doing.get(key)) for key in keys)
    plain = await database.collection(Agent).count_documents(listeners)
    return {
        "agents": len(keys) - plain,
        "listeners": plain,
        "states": {state: states[state] for state in AgentState},
        "queued_messages": sum(each["queued"] for each in doing.values()),
        "capabilities": len(organism["capabilities"]) if organism else 0,
        "alert_rules": await database.collection(AlertRule).count_documents({"declared": True}),
    }


# ---------------------------------------------------------------- writes


async def apply(declared: Declared, *, now: datetime) -> Sequence[Row]:
    """Make everything as declared, or nothing; give what that changed, each as a `Change` is stored.

    What is so already is left alone: applying a file again, or by several processes at once, changes nothing more.
    """
    commit = Key()

    async def body(session: Session) -> Sequence[Row]:
        before = await find(session=session)
        if before is not None and before["commit"] == commit:
            # An earlier try had committed after all.
            own_work: Sequence[Row] = before["changes"]
            return own_work
        own, of_own = _own(declared, before)
        keys, of_agents, touched = await _keep_agents(declared, before, now=now, session=session)
        of_rules = await _keep_rules(declared, keys, now=now, session=session)
        changes = [asdict(each) for each in sorted([*of_own, *of_agents, *of_rules])]
        if changes:
            said = {**own, "members": list(keys.values()), "changes": changes}
            # Whoever applies at the same time meets this write, and begins again.
            await database.collection(Organism).update_one(
                {"_id": _ONLY},
                {"$set": {**said, "commit": commit, "applied_at": now}, "$inc": {"revision": 1}},
                upsert=True,
                session=session,
            )
            await defaults.declare(declared.budget, session=session)
            await events.append(EventKind.RELOAD, agents=touched, session=session)
        return changes

    # Messages are numbered in one document, and agents that talk without a break would keep this out for ever.
    async with turns.waiting(Message.__name__) as turn:

        async def ready(failed: int) -> None:
            if failed:
                await turn.take()

        return await database.transaction(Organism, body, retry_duplicates=True, before=ready)


def _own(declared: Declared, before: Row | None) -> tuple[dict[str, Any], list[Change]]:
    own = {name: getattr(declared, name) for name in _OWN}
    capabilities = [asdict(each) for each in declared.capabilities]
    changed = tuple(name for name in _OWN if before is not None and before.get(name) != own[name])
    changes = []
    if before is None or changed:
        kind = ChangeKind.ADDED if before is None else ChangeKind.CHANGED
        changes.append(Change(OrganismPart.ORGANISM, declared.name, kind, changed))
    changes += _compared(
        OrganismPart.CAPABILITY,
        {each["name"]: each for each in (before["capabilities"] if before else ())},
        {each["name"]: each for each in capabilities},
    )
    return {**own, "capabilities": capabilities}, changes


def _compared(part: OrganismPart, before: Mapping[str, Row], after: Mapping[str, Row]) -> list[Change]:
    changes = [Change(part, name, ChangeKind.ADDED) for name in after.keys() - before.keys()]
    changes += [Change(part, name, ChangeKind.REMOVED) for name in before.keys() - after.keys()]
    for name in before.keys() & after.keys():
        if changed := tuple(field for field in after[name] if after[name][field] != before[name].get(field)):
            changes.append(Change(part, name, ChangeKind.CHANGED, changed))
    return changes


async def _keep_agents(
    declared: Declared, before: Row | None, *, now: datetime, session: Session
) -> tuple[Mapping[str, Key], list[Change], Sequence[Key]]:
    """Have the agents as declared. Gives their keys by name, in the order of the file, and those that this touched."""
    rows = database.collection(Agent)
    wanted = {each.name: each for each in declared.agents}
    known = await agents.by_names(list(wanted), session=session)
    keys = {name: known[name]["_id"] if name in known else Key() for name in wanted}
    members = set(before["members"] if before else ())
    writes: list[InsertOne[dict[str, Any]] | UpdateOne] = []
    changes = []
    touched = []
    moved = []
    for name, member in wanted.items():
        said = _declaration(member, keys)
        row = known.get(name)
        if row is None:
            fresh = {"name": name, "description": member.description, "discipline": agents.by_name(name)}
            new = agents.row(fresh, owner=None, now=now, key=keys[name])
            writes.append(InsertOne({**new, "declared": said}))
            changes.append(Change(OrganismPart.AGENT, name, ChangeKind.ADDED))
            touched.append(keys[name])
            continue
        old = row.get("declared") or {}
        changed = tuple(field for field in said if old.get(field) != said[field])
        is_member = row["_id"] in members
        if changed or not is_member:
            writes.append(
                UpdateOne({"_id": row["_id"]}, {"$set": {"declared": said, **_described(row, old, member, now=now)}})
            )
            touched.append(row["_id"])
            if "endpoint" in changed:
                moved.append(row["_id"])
            kind = ChangeKind.CHANGED if is_member else ChangeKind.ADDED
            changes.append(Change(OrganismPart.AGENT, name, kind, changed if is_member else ()))
    gone = sorted(members - set(keys.values()))
    async for row in rows.find({"_id": {"$in": gone}}, {"name": 1}, session=session):
        writes.append(UpdateOne({"_id": row["_id"]}, {"$set": {"declared.retired_at": now}}))
        changes.append(Change(OrganismPart.AGENT, row["name"], ChangeKind.REMOVED))
        touched.append(row["_id"])
    if writes:
        await rows.bulk_write(writes, session=session)
    await delivery.reroute(moved, session=session)
    return keys, changes, touched


def _declaration(member: Member, keys: Mapping[str, Key]) -> dict[str, Any]:
    return Declaration(
        is_agent=member.is_agent,
        description=member.description,
        peers=[keys[name] for name in member.peers],
        payload_types=list(member.payload_types),
        endpoint=member.endpoint,
        capabilities=list(member.capabilities),
    ).model_dump()


def _described(row: Row, old: Row, member: Member, *, now: datetime) -> dict[str, Any]:
    """Give a new description to an agent whose present one nobody has written by hand."""
    if row["description"] not in {"", old.get("description")} or row["description"] == member.description:
        return {}
    changed = {"description": member.description}
    return {**changed, **agents.derived({**row, **changed}), "updated_at": now}


async def _keep_rules(declared: Declared, keys: Mapping[str, Key], *, now: datetime, session: Session) -> list[Change]:
    rows = database.collection(AlertRule)
    found = rows.find({"declared": True}, session=session)
    before = {row["name"]: row async for row in found}
    after = {
        each["name"]: {**each, "agent": keys[each["agent"]] if each["agent"] is not None else None}
        for each in declared.alert_rules
    }
    changes = _compared(OrganismPart.ALERT_RULE, before, after)
    for change in changes:
        await rules.declare(
            _rule_key(change.name), after.get(change.name), before=before.get(change.name), now=now, session=session
        )
    if await rows.count_documents({}, session=session) > rules.MOST_RULES:
        raise Conflict(f"With these there would be more than {rules.MOST_RULES} alert rules. Delete some first.")
    return changes


def _rule_key(name: str) -> Key:
    # A rule keeps its key, and with it what it has said, however often it is taken out and put back.
    return Key(hashlib.blake2b(name.encode(), digest_size=12, person=b"alert rules").digest())
