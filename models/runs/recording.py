"""Runs of versions: recorded once each, completed later where they came while running, counted as they come."""

import random
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from models import agents
from models.agents import Agent
from models.runs import figures, reports, retention, versions
from models.runs.figures import HOURS_KEPT, Tally
from models.runs.reports import AgentRun, Batch, Run, RunStatus, happened, key_of
from models.runs.versions import AgentVersion
from models.store import database
from models.store.database import Key, ReplaceOne, Row, Session, UpdateOne
from models.usage import events, reported
from models.usage.events import Outcome


class Recording:
    """The change that runs are, for `models/store/commits.py`."""

    def __init__(self, zone: ZoneInfo) -> None:
        """`zone`: whose days figures are kept by."""
        self._zone = zone
        self._choose_part()

    def _choose_part(self) -> None:
        self._part = random.randrange(figures.PARTS)  # noqa: S311  # spreads writers, guards nothing

    async def prepare(self, items: Sequence[Batch]) -> None:
        """Read nothing before: all of it may change."""

    async def apply(
        self,
        items: Sequence[Batch],
        prepared: None,  # noqa: ARG002  # nothing is
        *,
        commit: Key,
        again: bool,
        session: Session,
    ) -> Sequence[Sequence[Outcome]]:
        """Record what is new, complete what was running, and say of each run what became of it."""
        if again:
            # Another process may add to the same part of the company's figures.
            self._choose_part()
        found = await _agents(items, session=session)
        named = {
            (found[batch.agent]["_id"], batch.version): found[batch.agent] for batch in items if batch.agent in found
        }
        keys = await versions.keys_of(named, now=items[-1].now, session=session) if named else {}
        places = {
            key_of(found[batch.agent]["_id"], run.run_id)
            for batch in items
            if batch.agent in found
            for run in batch.runs
        }
        rows = database.collection(AgentRun)
        state: dict[Key, dict[str, Any]] = {
            row["_id"]: row async for row in rows.find({"_id": {"$in": sorted(places)}}, session=session)
        }
        horizon = await retention.horizon(session=session)
        ledger = _Ledger(state, commit, Tally(self._zone, since=items[-1].now - HOURS_KEPT), horizon=horizon)
        outcomes = []
        for batch in items:
            agent = found.get(batch.agent)
            if agent is None:
                outcomes.append(
                    [events.rejected("agent", "There is no agent with this id.", code="NOT_FOUND")] * len(batch.runs)
                )
                continue
            version = keys[agent["_id"], batch.version]
            outcomes.append([ledger.record(agent["_id"], version, run, now=batch.now) for run in batch.runs])
        await ledger.store(part=self._part, session=session)
        return outcomes

    def committed(self) -> None:
        """Nobody waits to be told."""


class _Ledger:
    """What a commit does to runs and to what is kept of them."""

    def __init__(
        self, state: dict[Key, dict[str, Any]], commit: Key, tally: Tally, *, horizon: datetime | None
    ) -> None:
        self._state = state
        self._commit = commit
        self._tally = tally
        self._horizon = horizon
        self._own: set[Key] = {key for key, row in state.items() if row["commit"] == commit}
        self._new: set[Key] = set()
        self._completed: set[Key] = set()

    def record(self, agent: Key, version: Key, run: Run, *, now: datetime) -> Outcome:
        key = key_of(agent, run.run_id)
        said = run.row()
        before = self._state.get(key)
        if before is None and self._horizon and run.created_at < self._horizon:
            return reports.TOO_OLD
        if before is None:
            self._new.add(key)
        elif before["version"] != version:
            return events.rejected("id", "This run was recorded for another version.", code="CONFLICT")
        elif key in self._own and before["content"] == said["content"]:
            # An earlier try of this very commit has stored it.
            self._own.discard(key)
            return events.ACCEPTED
        elif before["content"] == said["content"]:
            return events.DUPLICATE
        elif before["status"] != RunStatus.RUNNING:
            # What comes late about a run that has ended says nothing new.
            return events.DUPLICATE if run.status is RunStatus.RUNNING else reports.CONTENT_DIFFERS
        elif key not in self._new:
            self._completed.add(key)
        after = {"_id": key, "agent": agent, "version": version, **said, "commit": self._commit}
        if before:
            after = reports.completed(before, after)
            self._tally.add(before, sign=-1)
        after["at"] = happened(after, now=now)
        self._tally.add(after)
        self._state[key] = after
        return events.ACCEPTED

    async def store(self, *, part: int, session: Session) -> None:
        # The metrics first, in one order: what another process is changing too shows here, before work is done.
        writes = [
            UpdateOne({"_id": version}, {"$inc": changes, "$max": {"last_seen_at": figure.last}})
            for version, figure in sorted(self._tally.of_versions().items())
            if (changes := {f"metrics.{name}": value for name, value in figure.sums.items() if value})
        ]
        if writes:
            await database.collection(AgentVersion).bulk_write(writes, ordered=False, session=session)
        await figures.keep(self._tally, part=part, session=session)
        rows = database.collection(AgentRun)
        if self._completed:
            # As a whole: who follows the changes is given the run as it is now.
            completed = [ReplaceOne({"_id": key}, self._state[key]) for key in sorted(self._completed)]
            await rows.bulk_write(completed, ordered=False, session=session)
        if self._new:
            await rows.insert_many([self._state[key] for key in sorted(self._new)], ordered=False, session=session)


async def _agents(items: Sequence[Batch], *, session: Session) -> Mapping[agents.Ref, Row]:
    """Find the agents of some batches; those named for the first time are registered."""
    names = {batch.agent: reported.NOTHING for batch in items if isinstance(batch.agent, str)}
    keys: dict[agents.Ref, Key] = {}
    if names:
        keys.update(await reported.keys(names, now=items[-1].now, session=session))
    wanted = [*keys.values(), *(batch.agent for batch in items if isinstance(batch.agent, Key))]
    where = {"_id": {"$in": wanted}, "deleted_at": None}
    rows = {
        row["_id"]: row
        async for row in database.collection(Agent).find(where, {"name": 1, "project": 1}, session=session)
    }
    found: dict[agents.Ref, Row] = {ref: rows[key] for ref, key in keys.items() if key in rows}
    return found | {key: row for key, row in rows.items() if key not in found}
