"""Agents as reporters name them: found by name, registered when new, and filled in where nobody has said."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import structlog

from models import agents
from models.agents import Agent, Discipline
from models.errors import Conflict
from models.store import database
from models.store.database import Key, Row, Session, UpdateOne

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Said:
    """What a reporter says of an agent beside its name."""

    discipline: Discipline | None = None
    description: str = ""


NOTHING: Final = Said()


async def keys(said: Mapping[str, Said], *, now: datetime, session: Session) -> Mapping[str, Key]:
    """Give the keys of agents by name. New ones are registered without an owner; what people wrote stays.

    One with “pencil” in its name and no discipline is a pencil agent.
    """
    rows = database.collection(Agent)
    known = {
        row["name"]: row
        async for row in rows.find({"name": {"$in": list(said)}, "deleted_at": None}, {"usage": 0}, session=session)
    }
    new = [agents.row(_missing(name, said[name], {}), owner=None, now=now) for name in sorted(said.keys() - known)]
    if new:
        await rows.insert_many(new, session=session)
    filled = {name: missing for name, row in known.items() if (missing := _missing(name, said[name], row))}
    if filled:
        writes = [
            UpdateOne(
                {"_id": known[name]["_id"]},
                {"$set": {**missing, **agents.derived({**known[name], **missing}), "updated_at": now}},
            )
            for name, missing in sorted(filled.items())
        ]
        await rows.bulk_write(writes, session=session)
    return {name: row["_id"] for name, row in known.items()} | {row["name"]: row["_id"] for row in new}


async def register(name: str, *, project: str | None, now: datetime) -> tuple[Row, bool]:
    """Make an agent known, without an owner; says whether it is new.

    Of one that is known the project alone is taken, where nobody has said. Raises `BadInput`.
    """
    while True:
        found = await agents.find(name.strip())
        if found is not None:
            said = project if found["project"] is None else None
            return (
                await agents.update(found["_id"], {"project": said}, only_owner=None, now=now) if said else found
            ), False
        try:
            values = {"name": name, "project": project, "discipline": agents.by_name(name)}
            return await agents.create(values, owner=None, by_person=False, now=now), True
        except Conflict:
            # Registered by somebody else meanwhile.
            continue


async def tag_pencils(session: Session) -> None:
    """Make pencil agents of those that were stored before the collector did so."""
    rows = database.collection(Agent)
    found = rows.find({"discipline": None, "deleted_at": None}, {"name": 1}, session=session)
    pencils = [row["_id"] async for row in found if agents.by_name(row["name"])]
    if pencils:
        await rows.update_many(
            {"_id": {"$in": pencils}}, {"$set": {"discipline": Discipline.PENCIL_AGENTS.value}}, session=session
        )
        log.info("pencil agents tagged", agents=len(pencils))


def _missing(name: str, said: Said, row: Mapping[str, Any]) -> dict[str, Any]:
    missing: dict[str, Any] = {} if row else {"name": name}
    discipline = said.discipline or agents.by_name(name)
    if row.get("discipline") is None and discipline is not None:
        missing["discipline"] = discipline.value
    if not row.get("description") and (description := said.description.replace("\r\n", "\n").strip()):
        missing["description"] = description
    return missing
