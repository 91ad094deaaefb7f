"""Usage since a reset: running sums by agent and model, and how all of them begin anew at one moment."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import structlog

from models.agents import Agent
from models.errors import BadInput, ServiceUnavailable
from models.store import database
from models.store.database import DESCENDING, Key, Row, Session, Stored
from models.usage import tallying
from models.usage.days import Totals, UsageMonth
from models.usage.running import Place, Run, note

CONFIRMATION: Final = "reset usage"
"""What somebody types who means it."""


_FORMER: Final = 0
_AT_ONCE: Final = 1000
_RUNNING: Final[Mapping[str, Any]] = {"running": {"$exists": True}}
_READ: Final = dict.fromkeys(("period", "agent", "model", "running"), 1)

log = structlog.get_logger()


class UsageReset(Stored):
    """One reset; the newest says since when the running sums count."""

    id: int  # type: ignore[assignment]  # the first is 1
    at: datetime
    by: Key
    commit: Key

    class Settings:
        """Where it is stored."""

        name = "usage_resets"


@dataclass(slots=True)
class Summary:
    """What has been counted since the newest reset; `since` is None where there was none."""

    since: datetime | None = None
    by: Key | None = None
    totals: Totals = field(default_factory=Totals)
    by_agent: dict[Key, Totals] = field(default_factory=dict)
    by_model: dict[str, Totals] = field(default_factory=dict)


# ---------------------------------------------------------------- reads


async def newest(*, session: Session | None = None) -> Row | None:
    """Find the last reset."""
    return await database.collection(UsageReset).find_one({}, sort=[("_id", DESCENDING)], session=session)


async def of_agents(agents: Collection[Key] | None, *, session: Session) -> Mapping[Key, int]:
    """Say by which reset the running sums of agents began; None: of all. Those that began without one are left out."""
    where: dict[str, Any] = {"usage_reset": {"$exists": True}}
    if agents is not None:
        where["_id"] = {"$in": list(agents)}
    rows = database.collection(Agent).find(where, {"usage_reset": 1}, session=session)
    return {row["_id"]: row["usage_reset"] async for row in rows}


async def running(*, session: Session) -> dict[Place, Run]:
    """Read all that runs, added up over the months."""
    rows = database.collection(UsageMonth).find(_RUNNING, _READ, session=session)
    found: dict[Place, Run] = {}
    async for row in rows:
        note(found, (_FORMER, row["agent"], row["model"]), Run.of(row))
    return found


def gathered(runs: Mapping[Place, Run]) -> dict[Place, Run]:
    """Add up over the months what runs in them."""
    found: dict[Place, Run] = {}
    for (_, agent, model), run in runs.items():
        note(found, (_FORMER, agent, model), Run(run.first, run.last, dict(run.sums)))
    return found


async def summary(*, agent: Key | None, model: str | None, now: datetime) -> Summary:
    """Read the running sums, of one agent or one model where given: as many documents as agents have models."""
    where: dict[str, Any] = dict(_RUNNING)
    if agent is not None:
        where["agent"] = agent
    if model is not None:
        where["model"] = model
    async with database.snapshot(UsageMonth) as session:
        reset = await newest(session=session)
        cursor = database.collection(UsageMonth).find(where, _READ, session=session)
        rows: Sequence[Row] = await cursor.to_list(None)
    found = Summary(since=reset["at"], by=reset["by"]) if reset else Summary()
    for row in rows:
        run = Run.of(row)
        for each in (
            found.totals,
            found.by_agent.setdefault(row["agent"], Totals()),
            found.by_model.setdefault(row["model"], Totals()),
        ):
            each.add(run.sums.items())
            each.seen(run.first, run.last)
    former = sum(0 < row["period"] < _month(now) for row in rows)
    if 2 * former > len(rows):
        await _fold(before=_month(now))
    return found


# ---------------------------------------------------------------- writes


class Resetting:
    """The change that a reset is, for `models/store/commits.py`: whoever asks for it is who is noted.

    Every agent is written to. Collecting notes by which reset its agents' sums began and changes them only while that
    holds, so each event counts either before the reset or after it, and says which: a batch that a reset overtakes is
    counted again, after it.
    """

    async def prepare(self, items: Sequence[Key]) -> None:
        """Read nothing before: all of it may change."""

    async def apply(
        self,
        items: Sequence[Key],
        prepared: None,  # noqa: ARG002  # nothing is
        *,
        commit: Key,
        again: bool,  # noqa: ARG002  # its own work is known by the commit
        session: Session,
    ) -> Sequence[None]:
        """Begin all running sums anew."""
        before = await newest(session=session)
        if before is None or before["commit"] != commit:
            number = before["_id"] + 1 if before else 1
            await database.collection(UsageReset).update_one(
                # The database's clock: one for every process.
                {"_id": number},
                [{"$set": {"at": "$$NOW", "by": items[-1], "commit": commit}}],
                upsert=True,
                session=session,
            )
            await database.collection(Agent).update_many({}, {"$set": {"usage_reset": number}}, session=session)
            months = database.collection(UsageMonth)
            await months.delete_many({"period": _FORMER}, session=session)
            await months.update_many(_RUNNING, {"$unset": {"running": ""}}, session=session)
        return [None] * len(items)

    def committed(self) -> None:
        """Nobody waits to be told."""


async def _fold(*, before: int) -> None:
    """Add up what runs in former months, so that a reading does not grow with the months; some at a time."""

    async def body(session: Session) -> None:
        months = database.collection(UsageMonth)
        where = {**_RUNNING, "period": {"$gt": _FORMER, "$lt": before}}
        rows = await months.find(where, _READ, session=session).limit(_AT_ONCE).to_list(_AT_ONCE)
        sums: dict[Place, Run] = {}
        for row in rows:
            note(sums, (_FORMER, row["agent"], row["model"]), Run.of(row))
        keys = [row["_id"] for row in rows]
        await months.update_many({"_id": {"$in": keys}}, {"$unset": {"running": ""}}, session=session)
        await tallying.add(UsageMonth, {}, running=sums, session=session)

    try:
        await database.transaction(UsageMonth, body, deadline_s=1.0, retry_duplicates=True)
    except ServiceUnavailable:
        # Collecting changes them all the time; a later reading comes to it.
        log.info("usage: former months are not added up yet")


# ---------------------------------------------------------------- rules


def check(confirmation: str) -> None:
    """Check that somebody means it. Raises `BadInput`."""
    if confirmation != CONFIRMATION:
        raise BadInput.at("confirm", f"All running sums begin anew. Type “{CONFIRMATION}” to say that you mean it.")


def _month(now: datetime) -> int:
    return now.year * 100 + now.month
