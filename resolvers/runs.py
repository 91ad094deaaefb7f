"""Versions and runs: report them, read them."""

from collections.abc import AsyncGenerator
from functools import partial
from typing import Annotated

import strawberry

from auth.permissions import collectors, readers
from graph import agents as agent_types
from graph.agents import Agent, AgentBy
from graph.context import Info
from graph.language import pages
from graph.language.describe import object_type
from graph.language.guards import mutation, plain_unless_reader, query, subscription
from graph.language.pages import After, Connection, First, bounded
from graph.runs.activity import Activity, DashboardFigure
from graph.runs.metrics import RunDay, timeline
from graph.runs.recorded import AgentVersion, AgentVersionOrder, Run, RunsChosen, VersionStatus, asked
from graph.runs.reporting import (
    AddAgentVersionInput,
    AddAgentVersionPayload,
    RecordRunsInput,
    RecordRunsPayload,
    RegisterAgentInput,
    RegisterAgentPayload,
    as_reported,
)
from graph.usage.collecting import ItemResult, counted
from graph.usage.figures import Days, From, To
from models import agents
from models.runs import dashboard, listed, reports, versions
from models.runs.figures import COMPANY, Owner
from models.usage import reported


@object_type
class RunQueries:
    """What can be asked about versions and runs."""

    @query(allow=readers)
    async def agent_version(
        self,
        agent: Annotated[AgentBy, strawberry.argument(description="Whose version.")],
        version: Annotated[str, strawberry.argument(description="What the version is called.")],
    ) -> AgentVersion | None:
        """Find one version of an agent; null when there is none."""
        found = await agents.find(agent.ref("agent"))
        row = await versions.find(found["_id"], version) if found else None
        return AgentVersion.of(row) if row else None

    @query(allow=readers)
    async def agent_versions(
        self,
        info: Info,
        search: Annotated[
            str | None,
            strawberry.argument(
                description="Up to 10 words, each the beginning of one in agent, project, version or cluster; "
                "the first two as they were called when the version or a run of it was last reported."
            ),
        ] = None,
        status: Annotated[
            VersionStatus | None,  # type: ignore[valid-type]  # mypy takes an exposed enum for a variable
            strawberry.argument(description="Only those in use, or only those that are not."),
        ] = None,
        order: Annotated[
            AgentVersionOrder | None, strawberry.argument(description="Last seen first, when left out.")
        ] = None,
        first: First = None,
        after: After = None,
    ) -> Connection[AgentVersion]:
        """List all versions of all agents with their metrics."""
        now, by = info.context.now, order.read() if order else versions.LAST_SEEN
        wanted = pages.asked("agent versions", by, first=first, after=after)
        page = await versions.page(search=search, status=status, now=now, order=by, window=wanted.window)
        return wanted.connection(page, AgentVersion.of, partial(versions.count, search=search, status=status, now=now))

    @query(allow=readers)
    async def runs(self, filter: RunsChosen = None, first: First = None, after: After = None) -> Connection[Run]:
        """List the runs of all agents, newest first; those that were removed since are not among them."""
        wanted, chosen = asked("all runs", filter, first=first, after=after)
        page = await listed.page(chosen, window=wanted.window)
        return wanted.connection(page, Run.of, partial(listed.count, chosen))

    @query(allow=readers)
    async def run_timeline(
        self,
        info: Info,
        agent: Annotated[AgentBy | None, strawberry.argument(description="Only this agent's; of all, without.")] = None,
        days: Days = 30,
        from_: From = None,
        to: To = None,
    ) -> list[RunDay]:
        """List runs day by day, ascending, days without any as zeros; at most 366 days."""
        owners = (Owner.agent(await agent_types.key_of(agent, field="agent")),) if agent else COMPANY
        return await timeline(info, owners, days, from_, to)

    @query(allow=readers)
    async def dashboard(self, info: Info) -> list[DashboardFigure]:
        """Give four figures of how work goes now: Active Agents, Total Runs Today, Avg Response Time, Total Cost Today.

        An agent is active with a run that began in the last 48 hours, and is compared with the same 48 hours a week
        earlier. Today is the company's, up to this minute, and compared with yesterday up to the same time. Response
        time is the mean runtime of the runs that began in the last 60 minutes, compared with the 60 before.
        """
        found = await dashboard.read(info.context.now, info.context.services.zone)
        return [DashboardFigure.of(figure) for figure in found]

    @query(allow=readers)
    async def recent_activity(
        self,
        first: Annotated[int | None, strawberry.argument(description="How many, 1 to 100; 20 when left out.")] = None,
    ) -> list[Activity]:
        """List the latest that happened to runs, newest first: ends, and beginnings of those that have not ended."""
        return [Activity.of(row) for row in await listed.recent(bounded(first))]


@object_type
class RunSubscriptions:
    """What can be watched of runs."""

    @subscription(allow=readers)
    async def activity(
        self,
        info: Info,
        agents: Annotated[
            list[AgentBy] | None, strawberry.argument(description="Only of these agents, at most 100.")
        ] = None,
        after: Annotated[
            str | None,
            strawberry.argument(description="Begin after the activity with this cursor, with what came since."),
        ] = None,
    ) -> AsyncGenerator[Activity, None]:
        """Watch runs as they are reported to begin and to end, in the order in which they are stored.

        Keep the last `cursor` and pass it as `after` to go on after a break: none is left out, none comes twice, for as
        long as the database's log reaches back, usually hours. Who reads too slowly is told so with RATE_LIMITED and
        let go.
        """
        chosen = await agent_types.keys_of(agents, field="agents") if agents is not None else None
        where = listed.chooser(chosen)
        async for happening in info.context.services.happenings.follow(after=after, where=where):
            yield Activity.heard(happening)


@object_type
class RunMutations:
    """How versions and runs are reported."""

    @mutation(allow=collectors)
    async def register_agent(self, info: Info, input: RegisterAgentInput) -> RegisterAgentPayload | None:
        """Make an agent known by name and project, without an owner; one that is known already stays as it is.

        API keys without scope READ are told plain fields of it alone.
        """
        plain_unless_reader(info, "agent")
        row, created = await reported.register(input.name, project=input.project, now=info.context.now)
        return RegisterAgentPayload(agent=Agent.of(row), created=created)

    @mutation(allow=collectors)
    async def add_agent_version(self, info: Info, input: AddAgentVersionInput) -> AddAgentVersionPayload | None:
        """Add a version to an agent, or change what is said of one.

        API keys without scope READ are told plain fields of it alone.
        """
        plain_unless_reader(info, "agentVersion")
        agent = await agents.require(input.agent.ref("agent"), field="agent")
        row, created = await versions.add(agent, input.values(), now=info.context.now)
        return AddAgentVersionPayload(agent_version=AgentVersion.of(row), created=created)

    @mutation(allow=collectors)
    async def record_runs(self, info: Info, input: RecordRunsInput) -> RecordRunsPayload | None:
        """Record runs of a version. Each is counted exactly once by its id, however often it is sent.

        Runs say how work went, usage events what it cost in tokens: neither counts for the other, so both may be
        reported of the same work. Where runs are removed after a while (`RUN_RETENTION_DAYS`), what they came to stays
        in all figures, and one that began before the oldest that is kept is refused (TOO_OLD): it may have counted
        already. When no answer comes, or SERVICE_UNAVAILABLE, send the same runs again.
        """
        services, now = info.context.services, info.context.now
        agent = input.agent.ref("agent")
        version = reports.check(agent, input.version, len(input.runs))
        fit, refused = reports.part(as_reported(input.runs), now=now)
        batch = reports.Batch(agent, version, fit, now)
        recorded = await services.commits.submit(services.recording, batch, weight=len(input.runs))
        outcomes = reports.merged(refused, reports.require_known(recorded))
        return RecordRunsPayload(**counted("run", outcomes), items=ItemResult.of(outcomes))
