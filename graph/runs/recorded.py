"""Versions of agents and their runs, as clients see and choose them."""

from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Annotated, ClassVar

import strawberry
from strawberry import ID, Private

import graph.agents
from auth.permissions import Permission, readers
from graph.context import Context, Info
from graph.language import pages
from graph.language.describe import field, input_type, object_type
from graph.language.enums import expose
from graph.language.nodes import Node, key_of
from graph.language.pages import After, Asked, Connection, First
from graph.language.rows import reader
from graph.language.scalars import BigInt, as_usd
from graph.runs.metrics import RunDay, VersionMetrics, timeline
from graph.usage.figures import Days, From, To
from models import agents
from models.agents import Direction as Way
from models.runs import listed, reports, versions
from models.runs.figures import Owner
from models.runs.listed import Filter
from models.store.database import Key, Row
from models.store.pages import Order

if TYPE_CHECKING:
    from graph.agents import Agent, Direction

RunStatus = expose(reports.RunStatus)
VersionStatus = expose(versions.VersionStatus)
AgentVersionOrderField = expose(versions.AgentVersionOrderField)


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
    async def version(self, info: Info) -> Annotated["AgentVersion", strawberry.lazy("graph.runs.recorded")]:
        """Give the version."""
        return AgentVersion.of(await info.context.load(versions.by_keys, self.row["version"]))

    @classmethod
    def of(cls, row: Row) -> "Run":
        """Shape a stored run."""
        return _run(row)

    @classmethod
    async def find_node(cls, context: Context, key: str) -> "Run | None":  # noqa: ARG003  # some types ask the context
        """Find one by its key."""
        row = await listed.find(key_of(key))
        return cls.of(row) if row else None


_run = reader(Run)


@input_type
class RunFilter:
    """Which runs; what is left out does not matter.

    One of `task`, `initiator` and `status`, with the span of time, is found at once. Where several are given, the runs
    that fit one of them are looked through for the others.
    """

    status: list[RunStatus] | None = None  # type: ignore[valid-type]  # mypy takes an exposed enum for a variable
    """Those that have come so far: one status or more."""
    initiator: str | None = None
    """Those that this one began, written the same."""
    task: ID | None = None
    """Those that worked on this task; your identifier, as `taskId`."""
    from_: datetime | None = strawberry.field(default=None, name="from")
    """Those that began then or later."""
    to: datetime | None = None
    """Those that began before."""

    def read(self) -> Filter:
        """Turn it into a filter of what is stored. Raises `BadInput`."""
        statuses = None if self.status is None else tuple(self.status)
        return listed.checked(Filter(statuses, self.initiator, self.task, self.from_, self.to))


RunsChosen = Annotated[RunFilter | None, strawberry.argument(description="Only these.")]


def asked(name: str, chosen: RunFilter | None, *, first: int | None, after: str | None) -> tuple[Asked, Filter]:
    """Check what a list of runs is asked for. Raises `BadInput`."""
    return pages.asked(name, listed.NEWEST, first=first, after=after), chosen.read() if chosen else listed.EVERY


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
        return VersionMetrics.of(self.row["metrics"], seen=self.row["last_seen_at"])

    @field
    async def runs(
        self, info: Info, filter: RunsChosen = None, first: First = None, after: After = None
    ) -> Connection[Run]:
        """List its runs, newest first; those that were removed since are not among them."""
        wanted, chosen = asked("version runs", filter, first=first, after=after)
        page = await info.context.load(listed.of_versions, self.key, chosen=chosen, window=wanted.window)
        count = partial(info.context.count, listed.counts_of_versions, self.key, chosen=chosen)
        return wanted.connection(page, Run.of, count)

    @field
    async def run_timeline(self, info: Info, days: Days = 30, from_: From = None, to: To = None) -> list[RunDay]:
        """Its runs day by day, ascending, days without any as zeros; at most 366 days."""
        return await timeline(info, (Owner.version(self.key),), days, from_, to)

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


@input_type
class AgentVersionOrder:
    """In what order."""

    field: AgentVersionOrderField  # type: ignore[valid-type]  # mypy takes an exposed enum for a variable
    """By what."""
    direction: Annotated["Direction", strawberry.lazy("graph.agents")] = Way.ASC  # type: ignore[valid-type]  # as above
    """Which way."""

    def read(self) -> Order:
        """Turn it into an order of what is stored."""
        return versions.order(self.field, descending=self.direction is Way.DESC)


async def versions_of(info: Info, agent: Key, *, first: int | None, after: str | None) -> Connection[AgentVersion]:
    """List an agent's versions, newest first."""
    wanted = pages.asked("versions", versions.NEWEST, first=first, after=after)
    page = await info.context.load(versions.newest, agent, window=wanted.window)
    return wanted.connection(page, AgentVersion.of, partial(info.context.count, versions.counts, agent))


async def runs_of(
    info: Info, agent: Key, *, chosen: RunFilter | None, first: int | None, after: str | None
) -> Connection[Run]:
    """List an agent's runs, newest first."""
    wanted, only = asked("runs", chosen, first=first, after=after)
    page = await info.context.load(listed.of_agents, agent, chosen=only, window=wanted.window)
    return wanted.connection(page, Run.of, partial(info.context.count, listed.counts_of_agents, agent, chosen=only))
