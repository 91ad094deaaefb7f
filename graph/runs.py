"""Versions of agents and their runs, as clients see and report them."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Annotated, ClassVar

import strawberry
from strawberry import ID, Maybe, Private

import graph.agents
from auth.permissions import Permission, readers
from graph.context import Context, Info
from graph.language import pages
from graph.language.describe import changes, field, input_type, object_type
from graph.language.enums import expose
from graph.language.nodes import Node, key_of
from graph.language.pages import After, Connection, First
from graph.language.rows import reader
from graph.language.scalars import BigInt, as_usd
from graph.usage.collecting import ItemResult
from models import agents
from models.runs import histograms, recording, versions
from models.runs.recording import Run as ReportedRun
from models.store.database import Key, Row
from models.usage.events import Outcome

if TYPE_CHECKING:
    from graph.agents import Agent, AgentBy

RunStatus = expose(recording.RunStatus)
VersionStatus = expose(versions.VersionStatus)


@object_type
class VersionMetrics:
    """What the runs of a version come to: kept as they are recorded, right at once, the same cost after a million."""

    row: Private[Row]
    total_runs: BigInt
    """Runs recorded, those that have not ended too."""

    @field
    def last_seen_at(self) -> datetime | None:
        """Give the beginning of the latest run; null without any."""
        seen: datetime | None = self.row["seen"]
        return seen

    @field
    def average_runtime_ms(self) -> float | None:
        """Give the mean runtime in milliseconds of the runs that ended and said it; null without any."""
        timed = self.row["timed_runs"]
        return self.row["runtime_ms"] / timed if timed else None

    @field
    def p50_runtime_ms(self) -> float | None:
        """Give the runtime in milliseconds that half of these runs did not exceed, within 2 %; null without any."""
        return histograms.percentile(self.row["runtimes"], 0.50)

    @field
    def p95_runtime_ms(self) -> float | None:
        """Give the runtime in milliseconds that 95 % of these runs did not exceed, within 2 %; null without any."""
        return histograms.percentile(self.row["runtimes"], 0.95)

    @field
    def p99_runtime_ms(self) -> float | None:
        """Give the runtime in milliseconds that 99 % of these runs did not exceed, within 2 %; null without any."""
        return histograms.percentile(self.row["runtimes"], 0.99)

    @field
    def success_rate(self) -> float | None:
        """Give the percentage (0 to 100) of the runs that ended which COMPLETED; null while none has ended."""
        finished = self.row["finished_runs"]
        return self.row["completed_runs"] / finished * 100 if finished else None

    @field
    def spend(self) -> Decimal:
        """Give the known cost of the runs in US dollars."""
        return as_usd(self.row["cost_nanodollars"])


_metrics = reader(VersionMetrics)


@object_type
class AgentVersion(Node):
    """One version of an agent: what it is made of and where it runs."""

    readable_by: ClassVar[Permission] = readers

    key: Private[Key]
    row: Private[Row]
    version: str
    """What it is called; unique among the agent's versions."""
    cluster: str | None
    """Where it runs; null when nobody has said."""
    deployment: str | None
    """How it is deployed there; null when nobody has said."""
    tools: list[str]
    """The tools that it has; at most 100."""
    models: list[str]
    """The models that it asks; at most 100."""
    created_at: datetime
    """When it was first heard of."""

    @field
    async def agent(self, info: Info) -> Annotated["Agent", strawberry.lazy("graph.agents")]:
        """Give the agent."""
        return graph.agents.Agent.of(await info.context.load(agents.by_keys, self.row["agent"]))

    @field
    def status(self, info: Info) -> VersionStatus:  # type: ignore[valid-type]  # an exposed enum is a variable to mypy
        """Say whether it is in use."""
        active = versions.is_active(self.row, now=info.context.now)
        return versions.VersionStatus.ACTIVE if active else versions.VersionStatus.INACTIVE

    @field
    def metrics(self) -> VersionMetrics:
        """Give what its runs come to."""
        return _metrics({**self.row["metrics"], "seen": self.row["last_seen_at"]})

    @field
    async def runs(
        self, info: Info, first: First = None, after: After = None
    ) -> Connection[Annotated["Run", strawberry.lazy("graph.runs")]]:
        """List its runs, newest first."""
        wanted = pages.asked("version runs", recording.NEWEST, first=first, after=after)
        page = await info.context.load(recording.of_versions, self.key, window=wanted.window)
        return wanted.connection(page, Run.of, self.count)

    async def count(self) -> int:
        """Give the number of runs to a list of them, which then need not count."""
        total: int = self.row["metrics"]["total_runs"]
        return total

    @classmethod
    def of(cls, row: Row) -> "AgentVersion":
        """Shape a stored version."""
        return _version(row)

    @classmethod
    async def find_node(cls, context: Context, key: str) -> "AgentVersion | None":
        """Find one by its key."""
        row = await context.find(versions.by_keys, key_of(key))
        return cls.of(row) if row else None


_version = reader(AgentVersion)


@object_type
class Run(Node):
    """One run of a version: a task from its beginning to its end, with as many calls of models as it took."""

    readable_by: ClassVar[Permission] = readers

    key: Private[Key]
    row: Private[Row]
    run_id: str
    """The run's identifier, the reporter's own; unique within its agent."""
    task_id: str | None
    """The task that it worked on, the reporter's own identifier; null when nobody has said."""
    status: RunStatus  # type: ignore[valid-type]  # mypy takes an exposed enum for a variable
    """How far it has come."""
    created_at: datetime
    """When it began."""
    duration_ms: BigInt | None
    """How long it took, in milliseconds; null while it runs, and when nobody has said."""
    initiator: str | None
    """Who or what began it; null when nobody has said."""
    tools: list[str]
    """The tools that it used; at most 100."""
    models: list[str]
    """The models that it asked; at most 100."""

    @field
    def cost(self) -> Decimal:
        """Give its cost in US dollars; 0 when nobody has said."""
        return as_usd(self.row["cost_nanodollars"] or 0)

    @field
    async def agent(self, info: Info) -> Annotated["Agent", strawberry.lazy("graph.agents")]:
        """Give the agent."""
        return graph.agents.Agent.of(await info.context.load(agents.by_keys, self.row["agent"]))

    @field
    async def version(self, info: Info) -> AgentVersion:
        """Give the version."""
        return AgentVersion.of(await info.context.load(versions.by_keys, self.row["version"]))

    @classmethod
    def of(cls, row: Row) -> "Run":
        """Shape a stored run."""
        return _run(row)

    @classmethod
    async def find_node(cls, context: Context, key: str) -> "Run | None":  # noqa: ARG003  # some types ask the context
        """Find one by its key."""
        row = await recording.find(key_of(key))
        return cls.of(row) if row else None


_run = reader(Run)


async def versions_of(info: Info, agent: Key, *, first: int | None, after: str | None) -> Connection[AgentVersion]:
    """List an agent's versions, newest first."""
    wanted = pages.asked("versions", versions.NEWEST, first=first, after=after)
    page = await info.context.load(versions.newest, agent, window=wanted.window)
    return wanted.connection(page, AgentVersion.of, partial(info.context.count, versions.counts, agent))


async def runs_of(info: Info, agent: Key, *, first: int | None, after: str | None) -> Connection[Run]:
    """List an agent's runs, newest first."""
    wanted = pages.asked("runs", recording.NEWEST, first=first, after=after)
    page = await info.context.load(recording.of_agents, agent, window=wanted.window)
    return wanted.connection(page, Run.of, partial(info.context.count, recording.counts, agent))


# ---------------------------------------------------------------- registerAgent


@input_type
class RegisterAgentInput:
    """An agent that is to be known; to say so again changes nothing."""

    name: str
    """What it is called: 1 to 200 characters, unique among agents."""
    project: str | None = None
    """The project it belongs to, at most 100 characters; taken where nobody has said."""


@object_type
class RegisterAgentPayload:
    """The agent, known now."""

    agent: Annotated["Agent", strawberry.lazy("graph.agents")]
    """The agent."""
    created: bool
    """Whether it was new."""


# ---------------------------------------------------------------- addAgentVersion


@input_type
class AddAgentVersionInput:
    """A version of an agent; what is left out of one that is known stays as it is, null clears."""

    agent: Annotated["AgentBy", strawberry.lazy("graph.agents")]
    """Which agent."""
    version: str
    """What it is called: 1 to 100 characters."""
    cluster: Maybe[str | None]
    """Where it runs, at most 200 characters."""
    deployment: Maybe[str | None]
    """How it is deployed there, at most 200 characters."""
    tools: Maybe[list[str]]
    """The tools that it has: at most 100, of 1 to 200 characters; the list replaces the old one."""
    models: Maybe[list[str]]
    """The models that it asks: at most 100, of 1 to 200 characters; the list replaces the old one."""

    def values(self) -> dict[str, object]:
        """Give what is said of the version."""
        return {"version": self.version, **changes(self)}


@object_type
class AddAgentVersionPayload:
    """The version, known now."""

    agent_version: AgentVersion
    """The version."""
    created: bool
    """Whether it was new."""


# ---------------------------------------------------------------- recordRuns


@input_type
class RunInput:
    """One run. One that is reported RUNNING is completed by a later report with the same id."""

    id: ID
    """Its identifier, yours: the same for every report of it, unique within the agent; 1 to 200 characters."""
    status: RunStatus  # type: ignore[valid-type]  # mypy takes an exposed enum for a variable
    """How far it has come."""
    created_at: datetime
    """When it began; at most 24 hours ahead."""
    task_id: ID | None = None
    """The task that it worked on; your identifier, not ours."""
    time_taken: str | None = None
    """How long it took: `5m30s`, `1h2m3.5s`, `350ms` as Go writes it, or `PT5M30S` as ISO 8601 does."""
    duration_ms: BigInt | None = None
    """The same in milliseconds. Sent with `timeTaken`, both must say the same."""
    initiator: str | None = None
    """Who or what began it, at most 200 characters."""
    tools: list[str] | None = None
    """The tools that it used, at most 100."""
    models: list[str] | None = None
    """The models that it asked, at most 100."""
    cost: Decimal | None = None
    """Its cost in US dollars, rounded to the nanodollar. It is the version's spend, and not usage: events are."""

    def read(self) -> ReportedRun | Outcome:
        """Turn it into a run; a duration that cannot be read refuses it."""
        took = recording.duration(self.time_taken, self.duration_ms)
        if isinstance(took, Outcome):
            return took
        return ReportedRun(
            run_id=self.id,
            status=self.status,
            created_at=self.created_at,
            duration_ms=took,
            task_id=self.task_id or None,
            initiator=self.initiator or None,
            tools=self.tools or (),
            models=self.models or (),
            cost=self.cost,
        )


@input_type
class RecordRunsInput:
    """Runs of one version of one agent."""

    agent: Annotated["AgentBy", strawberry.lazy("graph.agents")]
    """Which agent. An unknown name is registered; an unknown id refuses the request."""
    version: str
    """Which version; an unknown one is added."""
    runs: list[RunInput]
    """1 to 1,000 runs."""


@object_type
class RecordRunsPayload:
    """What became of the runs. Every run that is not in `items` was accepted, stored and counted."""

    accepted: int
    """Runs stored now, or completed now."""
    duplicates: int
    """Runs that had been recorded before: nothing changed."""
    rejected: int
    """Runs that were refused: nothing changed."""
    items: list[ItemResult]
    """Those not accepted, in order; at most as many as were sent."""


def as_reported(runs: Sequence[RunInput]) -> list[ReportedRun | Outcome]:
    """Turn inputs into runs, or what refuses them."""
    return [run.read() for run in runs]
