"""Runs of versions: recorded once each, completed later where they came while running, counted as they come."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar, Final

from pydantic import BaseModel

from models import agents, text
from models.agents import Agent
from models.enums import DescribedEnum
from models.errors import Fault, NotFound
from models.runs import durations, histograms, versions
from models.runs.versions import AgentVersion
from models.store import database, pages
from models.store.database import ASCENDING, DESCENDING, IndexModel, Key, Row, Session, Stored, UpdateOne
from models.store.pages import Order, Page, Window
from models.usage import events, reported
from models.usage.events import Outcome


class RunStatus(DescribedEnum):
    """How far a run has come."""

    COMPLETED = "COMPLETED", "Ended well."
    FAILED = "FAILED", "Ended with an error."
    TIMED_OUT = "TIMED_OUT", "Took too long and was ended."
    CANCELLED = "CANCELLED", "Was ended by somebody."
    RUNNING = "RUNNING", "Has not ended yet; a later report of the same run says how it did."


class RunFields(BaseModel):
    """What is said of a run."""

    run_id: str
    task_id: str | None = None
    status: RunStatus
    created_at: datetime
    duration_ms: int | None = None
    initiator: str | None = None
    tools: list[str] = []
    models: list[str] = []
    cost_nanodollars: int | None = None


class AgentRun(Stored, RunFields):
    """One run. Its key is made of agent and run id: the run and the proof that it was counted are one document."""

    agent: Key
    version: Key
    content: bytes
    commit: Key

    class Settings:
        """Where it is stored, and an index for each way in which runs are listed."""

        name = "agent_runs"
        indexes: ClassVar[list[IndexModel]] = [
            IndexModel([("version", ASCENDING), ("created_at", DESCENDING), ("_id", DESCENDING)], name="of a version"),
            IndexModel([("agent", ASCENDING), ("created_at", DESCENDING), ("_id", DESCENDING)], name="of an agent"),
        ]


NEWEST: Final = Order("created_at", descending=True)
_ID: Final = 200
_NAMES: Final = 100

Sums = dict[str, int]


@dataclass(slots=True, kw_only=True)
class Run:
    """One run as reported, checked by `fault`; `duration` is what was made of what is said of it."""

    run_id: str
    status: RunStatus
    created_at: datetime
    duration_ms: int | None = None
    task_id: str | None = None
    initiator: str | None = None
    tools: Sequence[str] = ()
    models: Sequence[str] = ()
    cost: Decimal | None = None

    def row(self) -> dict[str, Any]:
        """Write what is said as stored."""
        cost = None if self.cost is None else events.nanodollars(self.cost)
        return {
            "run_id": self.run_id,
            "task_id": self.task_id,
            "status": self.status.value,
            "created_at": self.created_at,
            "duration_ms": self.duration_ms,
            "initiator": self.initiator,
            "tools": list(self.tools),
            "models": list(self.models),
            "cost_nanodollars": cost,
            "content": _digest(self),
        }


@dataclass(frozen=True, slots=True)
class Batch:
    """The runs of one request: of one version of one agent."""

    agent: agents.Ref
    version: str
    runs: Sequence[Run]
    now: datetime


# ---------------------------------------------------------------- reads


async def find(key: Key) -> Row | None:
    """Find one by its key."""
    return await database.collection(AgentRun).find_one({"_id": key})


async def of_versions(keys: Sequence[Key], *, window: Window) -> Mapping[Key, Page]:
    """Read one page of each version's runs, newest first."""
    return await pages.read_each(database.collection(AgentRun), keys, field="version", order=NEWEST, window=window)


async def of_agents(keys: Sequence[Key], *, window: Window) -> Mapping[Key, Page]:
    """Read one page of each agent's runs, newest first."""
    return await pages.read_each(database.collection(AgentRun), keys, field="agent", order=NEWEST, window=window)


async def counts(keys: Sequence[Key]) -> Mapping[Key, int]:
    """Count the runs of agents, from the metrics of their versions; agents without any are left out."""
    pipeline: list[Row] = [
        {"$match": {"agent": {"$in": list(keys)}}},
        {"$group": {"_id": "$agent", "count": {"$sum": "$metrics.total_runs"}}},
    ]
    return {row["_id"]: row["count"] for row in await database.aggregate(AgentVersion, pipeline)}


# ---------------------------------------------------------------- writes


class Recording:
    """The change that runs are, for `models/store/commits.py`."""

    async def prepare(self, items: Sequence[Batch]) -> None:
        """Read nothing before: all of it may change."""

    async def apply(
        self,
        items: Sequence[Batch],
        prepared: None,  # noqa: ARG002  # nothing is
        *,
        commit: Key,
        again: bool,  # noqa: ARG002  # a run may be completed: what is stored of it is read each time
        session: Session,
    ) -> Sequence[Sequence[Outcome]]:
        """Record what is new, complete what was running, and say of each run what became of it."""
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
        ledger = _Ledger(state, commit)
        outcomes = []
        for batch in items:
            agent = found.get(batch.agent)
            if agent is None:
                outcomes.append(
                    [events.rejected("agent", "There is no agent with this id.", code="NOT_FOUND")] * len(batch.runs)
                )
                continue
            version = keys[agent["_id"], batch.version]
            outcomes.append([ledger.record(agent["_id"], version, run) for run in batch.runs])
        await ledger.store(session=session)
        return outcomes

    def committed(self) -> None:
        """Nobody waits to be told."""


class _Ledger:
    """What a commit does to runs and to the metrics of their versions."""

    def __init__(self, state: dict[Key, dict[str, Any]], commit: Key) -> None:
        self._state = state
        self._commit = commit
        self._own: set[Key] = {key for key, row in state.items() if row["commit"] == commit}
        self._new: set[Key] = set()
        self._completed: set[Key] = set()
        self._sums: dict[Key, Sums] = {}
        self._seen: dict[Key, datetime] = {}

    def record(self, agent: Key, version: Key, run: Run) -> Outcome:
        key = key_of(agent, run.run_id)
        said = run.row()
        before = self._state.get(key)
        if before is None:
            self._new.add(key)
        elif key in self._own and before["content"] == said["content"]:
            # An earlier try of this very commit has stored it.
            self._own.discard(key)
            return events.ACCEPTED
        elif before["content"] == said["content"]:
            return events.DUPLICATE
        elif before["version"] != version:
            return events.rejected("id", "This run was recorded for another version.", code="CONFLICT")
        elif before["status"] != RunStatus.RUNNING:
            # What comes late about a run that has ended says nothing new.
            return events.DUPLICATE if run.status is RunStatus.RUNNING else events.CONTENT_DIFFERS
        elif key not in self._new:
            self._completed.add(key)
        after = {"_id": key, "agent": agent, "version": version, **said, "commit": self._commit}
        sums = self._sums.setdefault(version, {})
        for row, sign in ((before, -1), (after, 1)):
            for name, value in (contribution(row) if row else {}).items():
                sums[name] = sums.get(name, 0) + sign * value
        self._seen[version] = max(self._seen.get(version, run.created_at), run.created_at)
        self._state[key] = after
        return events.ACCEPTED

    async def store(self, *, session: Session) -> None:
        # The metrics first, in one order: what another process is changing too shows here, before work is done.
        writes = [
            UpdateOne({"_id": version}, {"$inc": changes, "$max": {"last_seen_at": self._seen[version]}})
            for version, sums in sorted(self._sums.items())
            if (changes := {f"metrics.{name}": value for name, value in sums.items() if value})
        ]
        if writes:
            await database.collection(AgentVersion).bulk_write(writes, ordered=False, session=session)
        rows = database.collection(AgentRun)
        if self._completed:
            completed = [
                UpdateOne({"_id": key}, {"$set": _without_key(self._state[key])}) for key in sorted(self._completed)
            ]
            await rows.bulk_write(completed, ordered=False, session=session)
        if self._new:
            await rows.insert_many([self._state[key] for key in sorted(self._new)], ordered=False, session=session)


# ---------------------------------------------------------------- rules


def key_of(agent: Key, run_id: str) -> Key:
    """Make the key of a run: a digest of 96 bits, so that it names the run as other keys name theirs."""
    said = f"{agent}\x1f{run_id}".encode("utf-8", "surrogatepass")
    return Key(hashlib.blake2b(said, digest_size=12).digest())


def contribution(row: Row) -> Sums:
    """Give what one stored run adds to its version's metrics. What has not ended has no runtime yet."""
    sums: Sums = {"total_runs": 1, "cost_nanodollars": row["cost_nanodollars"] or 0}
    if row["status"] == RunStatus.RUNNING:
        return sums
    sums |= {"finished_runs": 1, "completed_runs": int(row["status"] == RunStatus.COMPLETED)}
    if row["duration_ms"] is not None:
        sums |= {"timed_runs": 1, "runtime_ms": row["duration_ms"]}
        sums[f"runtimes.{histograms.bucket(row['duration_ms'])}"] = 1
    return sums


def check(version: str, count: int) -> str:
    """Check what a whole request says; gives the version's name. Raises `BadInput`."""
    events.check_size(count, field="runs")
    name: str = text.validate(versions.VersionFields, {"version": version})["version"]
    return name


def fault(run: Run, *, now: datetime) -> Outcome | None:
    """Say what is wrong with a run, or None."""
    if not run.run_id:
        return events.rejected("id", "A run needs an id: the same for every report of it.")
    said = [("id", run.run_id), ("task_id", run.task_id), ("initiator", run.initiator)]
    said += [("tools", each) for each in run.tools] + [("models", each) for each in run.models]
    for name, value in said:
        if value and (len(value) > _ID or text.is_unfit(value)):
            return events.rejected(name, f"At most {_ID} characters, no control characters and no line breaks.")
    if max(len(run.tools), len(run.models)) > _NAMES:
        return events.rejected("tools" if len(run.tools) > _NAMES else "models", f"At most {_NAMES}.")
    if not events.EARLIEST <= run.created_at <= now + events.AHEAD:
        return events.rejected("created_at", f"A time lies between {events.EARLIEST:%Y-%m-%d} and 24 hours from now.")
    if run.cost is not None and not 0 <= run.cost <= events.MOST_COST:
        return events.rejected("cost", f"A cost lies between 0 and {events.MOST_COST} US dollars.")
    return None


def duration(time_taken: str | None, duration_ms: int | None) -> int | Outcome | None:
    """Settle how long a run took, or refuse it."""
    settled = durations.settle(time_taken, duration_ms)
    return events.rejected(str(settled.path[0]), settled.message) if isinstance(settled, Fault) else settled


def _digest(run: Run) -> bytes:
    said = (
        run.run_id, run.status.value, run.created_at, run.duration_ms, run.task_id, run.initiator, tuple(run.tools),
        tuple(run.models), run.cost,
    )  # fmt: skip
    return hashlib.blake2b(repr(said).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _without_key(row: Row) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "_id"}


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


def require_known(outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
    """Refuse the whole request where its agent is none. Raises `NotFound`."""
    if outcomes and all(each.code == NotFound.code for each in outcomes):
        raise NotFound("There is no such agent.", field="agent")
    return outcomes


def part(reports: Sequence[Run | Outcome], *, now: datetime) -> tuple[list[Run], Mapping[int, Outcome]]:
    """Part what may be recorded from what is refused, by its place."""
    refused: dict[int, Outcome] = {}
    fit: list[Run] = []
    for place, run in enumerate(reports):
        wrong = run if isinstance(run, Outcome) else fault(run, now=now)
        if wrong is not None:
            refused[place] = wrong
        elif isinstance(run, Run):
            fit.append(run)
    return fit, refused


def merged(refused: Mapping[int, Outcome], recorded: Sequence[Outcome]) -> Sequence[Outcome]:
    """Put outcomes back in the order in which runs were reported."""
    rest = iter(recorded)
    return [refused[place] if place in refused else next(rest) for place in range(len(refused) + len(recorded))]
