"""One run as reported and as stored, and what a run may not say."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, ClassVar, Final

from pydantic import BaseModel

from models import agents, text
from models.enums import DescribedEnum
from models.errors import BadInput, Fault, NotFound
from models.runs import durations, versions
from models.store.database import ASCENDING, DESCENDING, IndexModel, Key, Row, Stored
from models.usage import events
from models.usage.events import ItemOutcome, Outcome

CONTENT_DIFFERS: Final = Outcome(
    ItemOutcome.DUPLICATE,
    "CONTENT_DIFFERS",
    "A run with this id was recorded before, and it said something else. The first one counts.",
)
TOO_OLD: Final = events.rejected(
    "created_at",
    "Runs that began so long ago are removed, and this one may have been counted already. It does not count again.",
    code="TOO_OLD",
)
_STAYING: Final = ("task_id", "initiator", "tools", "models", "cost_nanodollars")
_ID: Final = 200
_NAMES: Final = 100


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


def _index(name: str, *fields: str, only: str | None = None) -> IndexModel:
    """Describe an index in whose order runs are listed, the last field and newest first; `only` those that say it."""
    *whose, order = fields
    keys = [*((field, ASCENDING) for field in whose), (order, DESCENDING), ("_id", DESCENDING)]
    said: dict[str, Any] = {"partialFilterExpression": {only: {"$gt": ""}}} if only else {}
    return IndexModel(keys, name=name, **said)


class AgentRun(Stored, RunFields):
    """One run. Its key is made of agent and run id: the run and the proof that it was counted are one document."""

    agent: Key
    version: Key
    content: bytes
    commit: Key
    at: datetime

    class Settings:
        """Where it is stored, and an index for each way in which runs are listed and for each filter."""

        name = "agent_runs"
        indexes: ClassVar[list[IndexModel]] = [
            _index("recent", "at"),
            _index("newest", "created_at"),
            _index("of a task", "task_id", "created_at", only="task_id"),
            *(
                index
                for whose, said in (((), ""), (("agent",), " of an agent"), (("version",), " of a version"))
                for index in (
                    *([_index(said.strip(), *whose, "created_at")] if whose else []),
                    _index(f"status{said}", *whose, "status", "created_at"),
                    _index(f"initiator{said}", *whose, "initiator", "created_at", only="initiator"),
                )
            ),
        ]


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
            # What has not ended has taken no time yet that would stay.
            "duration_ms": None if self.status is RunStatus.RUNNING else self.duration_ms,
            "initiator": self.initiator,
            "tools": list(self.tools),
            "models": list(self.models),
            "cost_nanodollars": cost,
            "content": _digest(self, cost),
        }


@dataclass(frozen=True, slots=True)
class Batch:
    """The runs of one request: of one version of one agent."""

    agent: agents.Ref
    version: str
    runs: Sequence[Run]
    now: datetime


# ---------------------------------------------------------------- rules


def key_of(agent: Key, run_id: str) -> Key:
    """Make the key of a run: a digest of 96 bits, so that it names the run as other keys name theirs."""
    said = f"{agent}\x1f{run_id}".encode("utf-8", "surrogatepass")
    return Key(hashlib.blake2b(said, digest_size=12).digest())


def check(agent: agents.Ref, version: str, count: int) -> str:
    """Check what a whole request says; gives the version's name. Raises `BadInput`."""
    events.check_size(count, field="runs")
    faults: list[Fault] = []
    if isinstance(agent, str):
        try:
            text.validate(agents.AgentFields, {"name": agent})
        except BadInput as error:
            faults += [Fault(("agent", *each.path), each.message, each.code) for each in error.faults]
    name: str = text.validate(versions.VersionFields, {"version": version}, faults=faults)["version"]
    return name


def completed(before: Row, after: Row) -> dict[str, Any]:
    """Give a running run as it is after another report of it: what that leaves out stays as it was said.

    It began when it was first said to, so it stays on its day.
    """
    kept = {name: before[name] for name in _STAYING if after[name] is None or after[name] == []}
    return {**after, **kept, "created_at": before["created_at"]}


def happened(row: Row, *, now: datetime) -> datetime:
    """Give the moment of the latest that is known of a run: its end where that is known, else its beginning."""
    ended: bool = row["status"] != RunStatus.RUNNING and row["duration_ms"] is not None
    last: datetime = row["created_at"] + timedelta(milliseconds=row["duration_ms"]) if ended else row["created_at"]
    return min(last, now)


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


def _digest(run: Run, cost: int | None) -> bytes:
    said = (
        run.run_id, run.status.value, run.created_at, run.duration_ms, run.task_id, run.initiator, tuple(run.tools),
        tuple(run.models), cost,
    )  # fmt: skip
    return hashlib.blake2b(repr(said).encode("utf-8", "surrogatepass"), digest_size=16).digest()


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
